"""Makes folders of runs as the scripts leave them, without weights."""
import json

import numpy as np
import yaml

from src.run import sample

CLASSES = ("disc", "square", "<b>bar</b>")
CONFUSION = [[8, 1, 1], [0, 9, 1], [2, 3, 5]]
SETTINGS = {"dataset_name": "shapes", "encoder": "resnet18", "width_multiplier": 0.25, "epoch_size": 4,
            "batch_size": 64, "temperature": 0.2, "learning_rate": 0.004, "seed": 0}


def pretrained(epochs, **changes):
    """Yield the records of some epochs, and those of a monitor after every second epoch."""
    for epoch in range(1, epochs + 1):
        yield {"kind": "pretrain", "epoch": epoch, "loss": 8 / epoch, "contrastive_accuracy": 0.2 * epoch,
               "last_loss": 7 / epoch, "learning_rate": 0.004 / epoch, "seconds": 2.0, "images_per_second": 300.0,
               **changes}
        if epoch % 2 == 0:
            yield {"kind": "monitor", "epoch": epoch, "protocol": "weighted kNN", "knn_accuracy": 0.1 * epoch,
                   "alignment": 0.5, "uniformity": -3.5, "embedding_std": 0.08, "effective_rank": 40.0,
                   "collapsed": False, "seconds": 1.0}


def evaluated(accuracy, protocol_id="linear_sgd", kind="linear_eval", seed=0, protocol="by <some> protocol"):
    """Return the record of an evaluation."""
    return {"kind": kind, "protocol_id": protocol_id, "protocol": protocol, "dataset": "shapes", "seed": seed,
            "accuracy": accuracy, "accuracy_interval": [accuracy - 0.1, accuracy + 0.1], "top5_accuracy": 1.0,
            "class_accuracy": dict(zip(CLASSES, (0.8, 0.9, 0.5))), "confusion": CONFUSION, "images": 30,
            "encoder_epoch": 4}


def repeated(mean, deviation, seeds=(0, 1)):
    """Return the summary of a repeated evaluation."""
    return {"kind": "repeated_eval", "protocol_id": "linear_sgd", "protocol": "by <some> protocol", "images": 30,
            "seeds": list(seeds), "accuracy_mean": mean, "accuracy_std": deviation,
            "accuracy_interval": [round(mean - 0.15, 6), round(mean + 0.15, 6)]}


def make(folder, lines=(), script="", **settings):
    """Make the folder of a run, or append these records to it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{script}config.yaml").write_text(yaml.safe_dump(
        {"settings": {**SETTINGS, **settings}, "device_target": "CPU", "versions": {"mindspore": "2.10.0"},
         "git_revision": "1234567", "command_line": ["python", "train.py", "--seed", "<0>"]}))
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in lines)
    return folder


def sampled(folder, count=24, asked=3, nearest=2, features=4):
    """Write a sample into the folder of a run: image n has one grey, n, the class n % 3, and the place (n, n % 3)."""
    labels = np.arange(count, dtype=np.int32) % len(CLASSES)
    centres = 10 * np.eye(features)[:len(CLASSES)]
    kept = sample.Sample(
        np.repeat(np.arange(count, dtype=np.uint8), 8 * 8 * 3).reshape(count, 8, 8, 3),
        (centres[labels] + np.random.default_rng(0).normal(size=(count, features))).astype(np.float16), labels, CLASSES,
        np.arange(asked), np.full((asked, nearest, 8, 8, 3), 200, np.uint8),
        np.arange(asked * nearest, dtype=np.int32).reshape(asked, nearest) % len(CLASSES),
        np.stack([np.arange(count), labels], axis=1).astype(np.float32))
    sample.write(folder / "sample.npz", kept)
    return kept

"""Seconds of training the linear classifier on the CPU: this project against a plain PyTorch loop.

Features and labels are random and in memory. MindSpore's side is src.evaluation.linear_sgd.train as linear_eval.py
calls it, with its graph compilation, its standardisation of the features and a checkpoint per epoch. PyTorch's side
is the same work written plainly: standardisation, index_select, nn.Linear, Adam with a cosine decay, batches of 128.
Both train all --epochs; they take ten turns each, and a total is the sum of the turns, nothing of it scaled.
"""
import argparse
import tempfile
import time
from typing import Any, Dict, List, Tuple

import numpy as np

import common

SEED = 0
TURNS = 10
BATCH_SIZE = 128
CLASSES = 10
LEARNING_RATE = 1e-3
KEPT = 5  # checkpoints, as by default


def random_features(options: argparse.Namespace) -> Tuple[np.ndarray, np.ndarray]:
    """Return features (images, features), float32, and labels (images,), int32."""
    rng = np.random.default_rng(SEED)
    rows = rng.standard_normal((options.images, options.features), np.float32)
    return rows, rng.integers(0, CLASSES, options.images, np.int32)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the top-1 accuracy on the training rows, which shows that both sides learned the same."""
    return float((logits.argmax(1) == labels).mean())


def mindspore(options: argparse.Namespace, parent: common.Parent) -> None:
    """The worker of this project."""
    from src.device import environment
    environment.prepare("CPU", 0, SEED)
    from mindspore import Tensor

    from src.evaluation import linear_sgd
    from src.evaluation.features import Split
    from src.run import checkpoint
    from src.run.layout import Layout
    from src.simclr_model import LinearClassifier

    begin = 0.0

    def end_of_epoch(record: Dict[str, Any]) -> None:  # the last turn ends with the training itself
        nonlocal begin
        if record["epoch"] % (options.epochs // TURNS) == 0 and record["epoch"] < options.epochs:
            parent.answer({"seconds": time.perf_counter() - begin})
            parent.command()
            begin = time.perf_counter()

    train = Split(*random_features(options))
    parent.answer({"environment": common.mindspore_environment()})
    parent.command()
    with tempfile.TemporaryDirectory() as temporary:
        series = Layout(temporary).classifiers
        begin = time.perf_counter()

        def save(epoch: int, linear: LinearClassifier) -> None:
            checkpoint.save_epoch(series, epoch, linear.get_parameters(), {"holds": checkpoint.CLASSIFIER}, KEPT)

        linear = linear_sgd.train(train, CLASSES, options.epochs, BATCH_SIZE, LEARNING_RATE, SEED, end_of_epoch, save)
        seconds = time.perf_counter() - begin
    parent.answer({"seconds": seconds, "accuracy": accuracy(linear(Tensor(train.features)).asnumpy(), train.labels)})


def pytorch(options: argparse.Namespace, parent: common.Parent) -> None:
    """The worker of the PyTorch reference."""
    import torch
    from torch.nn import functional

    torch.manual_seed(SEED)
    torch.set_num_threads(common.cores())
    rows, labels = map(torch.from_numpy, random_features(options))
    targets = labels.long()
    steps = options.epochs * -(-options.images // BATCH_SIZE)
    parent.answer({"threads": torch.get_num_threads()})
    parent.command()
    begin = time.perf_counter()
    mean, scale = rows.mean(0), 1 / (rows.std(0) + 1e-6)
    classifier = torch.nn.Linear(options.features, CLASSES)
    for parameter in classifier.parameters():
        torch.nn.init.zeros_(parameter)
    optimizer = torch.optim.Adam(classifier.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(1, options.epochs + 1):
        for index in torch.randperm(options.images).split(BATCH_SIZE):
            h = (rows.index_select(0, index) - mean) * scale
            loss = functional.cross_entropy(classifier(h), targets.index_select(0, index))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % (options.epochs // TURNS) == 0 and epoch < options.epochs:
            parent.answer({"seconds": time.perf_counter() - begin})
            parent.command()
            begin = time.perf_counter()
    seconds = time.perf_counter() - begin
    with torch.no_grad():
        logits = classifier((rows - mean) * scale)
    parent.answer({"seconds": seconds, "accuracy": accuracy(logits.numpy(), labels.numpy())})


def summary(worker: common.Worker, turns: List[Dict[str, float]]) -> Dict[str, Any]:
    """Return the results of one framework."""
    seconds = [turn["seconds"] for turn in turns]
    return {**worker.facts, "total_seconds": sum(seconds), "train_accuracy": turns[-1]["accuracy"],
            "seconds_by_turn": seconds}


def measure(options: argparse.Namespace) -> None:
    """Let the two frameworks take turns and save their times."""
    machine = common.machine()
    ours, reference = workers = common.Worker("mindspore", common.LAUNCHER_ENVIRONMENT), common.Worker("pytorch")
    turns = common.alternate(workers, TURNS)
    for worker in workers:
        worker.close()
    common.save("linear_evaluation", {
        "machine": machine,
        "settings": {"images": options.images, "features": options.features, "classes": CLASSES,
                     "batch_size": BATCH_SIZE, "epochs": options.epochs},
        "mindspore": summary(ours, turns[0]),
        "pytorch": summary(reference, turns[1]),
        "speed_ratio": common.speed_ratio(*([turn["seconds"] for turn in side] for side in turns)),
    })


def whole_turns(text: str) -> int:
    epochs = int(text)
    if epochs < 1 or epochs % TURNS:
        raise argparse.ArgumentTypeError(f"got {epochs}, takes a multiple of {TURNS}")
    return epochs


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    flags.add_argument("--images", type=int, default=50_000, help="rows of features")
    flags.add_argument("--features", type=int, default=2048, help="width of a representation")
    flags.add_argument("--epochs", type=whole_turns, default=100, help=f"epochs, a multiple of {TURNS}")
    common.run(flags, {"mindspore": mindspore, "pytorch": pytorch}, measure)

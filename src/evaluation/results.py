"""What the evaluations share: settings from the encoder's checkpoint, the images, and the results."""
import dataclasses
import statistics
from typing import Any, Dict, Iterable, List, NamedTuple, Tuple, TypeVar

import numpy as np

from src import dataset
from src.common.errors import UserError
from src.common.logs import logger
from src.data.images import Images
from src.evaluation.accuracy import classification_metrics, wilson_interval
from src.run.checkpoint import Checkpoint
from src.run.folder import RunFolder
from src.settings.encoder_flags import EvalConfig, FinetuneConfig
from src.settings.parsing import adopt
from src.simclr_model import stem_of


class Outcome(NamedTuple):
    """What a protocol says of the test images.

    ``scores`` (M, class_num) rank the classes, ``protocol`` says in words how they were come by, the same for
    every seed, and ``details`` are for metrics.jsonl.
    """

    kind: str
    protocol: str
    scores: np.ndarray
    details: Dict[str, Any]


Config = TypeVar("Config", EvalConfig, FinetuneConfig)


def resolve(config: Config, encoder: Checkpoint) -> Config:
    """Fill in what the encoder's checkpoint knows; a flag that contradicts it is an error."""
    settings, source = encoder.info["settings"], str(encoder.path)
    config = adopt(config, {**settings, "stem": stem_of(settings)}, ("encoder", "width_multiplier", "stem"), source)
    if config.dataset_name is None:
        config = adopt(config, settings, ("dataset_name",), source)
    side = dataset.side_of(settings)
    dataset.check_side(config.dataset_name, side, f"{source} was trained on images of")
    return adopt(config, {"image_size": side}, ("image_size",), source)


def load_train(config: Config) -> Images:
    """Return the labelled training images."""
    return dataset.load(config.dataset_name, config.train_dataset_path, "train", num_samples=config.num_samples,
                        download=config.download, side=config.image_size)


def load_test(config: Config) -> Images:
    """Return the test images."""
    if config.eval_dataset_path:
        return dataset.load(config.dataset_name, config.eval_dataset_path, "test", "eval_dataset_path",
                            side=config.image_size)
    return dataset.load(config.dataset_name, config.train_dataset_path, "test", download=config.download,
                        side=config.image_size)


def resolve_classes(config: Config, known: Tuple[str, ...], test: Images) -> Config:
    """Fill in the number of classes, once those that are ``known`` before the test are.

    Raises:
        UserError: there are more classes than asked for, or the test images have others.
    """
    if test.classes != known:
        other = sorted(set(test.classes) ^ set(known))
        raise UserError(f"--eval_dataset_path: its {len(test.classes)} classes are not the {len(known)} that the "
                        f"classifier is for: {', '.join(other[:3])}{' ...' * (len(other) > 3)} "
                        f"{'are' if len(other) > 1 else 'is'} in one of them alone; give both the same classes")
    if config.class_num is None:
        return dataclasses.replace(config, class_num=len(known))
    if config.class_num < len(known):
        raise UserError(f"--class_num: got {config.class_num}, takes at least the {len(known)} classes of "
                        f"{config.dataset_name}")
    return config


def report_all(outcomes: Iterable[Tuple[int, Outcome]], labels: np.ndarray, classes: Tuple[str, ...],
               about: Dict[str, Any], folder: RunFolder) -> None:
    """Report every outcome, with its seed, and sum up.

    Args:
        outcomes: of protocols and seeds.
        labels: (M,), of the test images.
        classes: their names; the scores may have more classes.
        about: for every record of metrics.jsonl.
        folder: of the run.
    """
    accuracies: Dict[str, Dict[int, float]] = {}
    for seed, outcome in outcomes:
        accuracy = report(outcome, seed, labels, classes, about, folder)
        accuracies.setdefault(outcome.protocol, {})[seed] = accuracy
    summarise(accuracies, len(labels), about, folder)


def report(outcome: Outcome, seed: int, labels: np.ndarray, classes: Tuple[str, ...], about: Dict[str, Any],
           folder: RunFolder) -> float:
    """Judge every test image once, log the accuracy, add everything to metrics.jsonl and return the accuracy."""
    names = classes + tuple(f"class {index}" for index in range(len(classes), outcome.scores.shape[1]))
    result = classification_metrics(outcome.scores, labels, names)
    folder.add_metrics({"kind": outcome.kind, "protocol": outcome.protocol, **about, "seed": seed, **outcome.details,
                        **result})
    for name, accuracy in result["class_accuracy"].items():
        logger.info("  %-12s %s", name, "no images" if accuracy is None else f"{100 * accuracy:.2f} %")
    logger.info("top-1 %.3f %%, top-5 %.3f %% of %d test images", 100 * result["accuracy"],
                100 * result["top5_accuracy"], result["images"])
    return result["accuracy"]


def summarise(accuracies: Dict[str, Dict[int, float]], images: int, about: Dict[str, Any], folder: RunFolder) -> None:
    """Log the table of all protocols, with ``accuracies`` by protocol and seed, and record what was repeated.

    The interval is for the mean accuracy, and the deviation is that of a sample (divided by N - 1).
    """
    means: List[float] = []
    logger.info("%-10s  %-18s  %-18s  %s", "accuracy", "95 % interval", "over seeds", "protocol")
    for protocol, by_seed in accuracies.items():
        values, spread = list(by_seed.values()), ""
        means.append(statistics.fmean(values))
        interval = wilson_interval(means[-1], images)
        if len(values) > 1:
            deviation = statistics.stdev(values)
            spread = f"+- {100 * deviation:.3f} % of {len(values)}"
            folder.add_metrics({"kind": "repeated_eval", "protocol": protocol, **about, "seeds": list(by_seed),
                                "accuracies": values, "accuracy_mean": means[-1], "accuracy_std": deviation,
                                "accuracy_interval": interval, "images": images})
        logger.info("%-10s  %-18s  %-18s  %s", f"{100 * means[-1]:.3f} %",
                    f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f} %", spread, protocol)
    logger.info("Average accuracy: {'Accuracy': %s}", round(means[0], 7))

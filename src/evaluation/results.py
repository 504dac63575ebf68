"""The results of an evaluation: accuracies with their intervals, a log line and a record each, and a table of all."""
import math
import statistics
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from src.common.logs import logger
from src.run.records import REPEATED_EVAL, Record

NORMAL_QUANTILE = 1.959963984540054  # 95 % of a normal distribution lie within this many deviations


class Outcome(NamedTuple):
    """A protocol's scores (M, class_num) of the test images, which rank the classes, and what the record says of them.

    ``protocol`` names the protocol in words, the same for every seed, and ``protocol_id`` is its identifier.
    """

    kind: str
    protocol_id: str
    protocol: str
    scores: np.ndarray
    details: Dict[str, Any] = {}


class Results:
    """Judges the outcomes of protocols and seeds, and sums them up.

    ``labels`` (M,) are those of the test images, and ``classes`` their names; the scores may have more classes.
    ``common`` goes into every record.
    """

    def __init__(self, labels: np.ndarray, classes: Tuple[str, ...], common: Record, write: Callable[[Record], None]):
        self.labels = labels
        self.classes = classes
        self.common = common
        self.write = write
        self.accuracies: Dict[Tuple[str, str], Dict[int, float]] = {}  # by protocol and seed

    def add(self, seed: int, outcome: Outcome) -> None:
        """Log the accuracy of an outcome and write its record."""
        extra = (f"class {index}" for index in range(len(self.classes), outcome.scores.shape[1]))
        result = classification_metrics(outcome.scores, self.labels, (*self.classes, *extra))
        self.write({"kind": outcome.kind, "protocol_id": outcome.protocol_id, "protocol": outcome.protocol,
                    **self.common, "seed": seed, **outcome.details, **result})
        for name, accuracy in result["class_accuracy"].items():
            logger.info("  %-12s %s", name, "no images" if accuracy is None else f"{100 * accuracy:.2f} %")
        logger.info("top-1 %.3f %%, top-5 %.3f %% of %d test images", 100 * result["accuracy"],
                    100 * result["top5_accuracy"], result["images"])
        self.recall(seed, outcome.protocol_id, outcome.protocol, result["accuracy"])

    def recall(self, seed: int, protocol_id: str, protocol: str, accuracy: float) -> None:
        """Count in a result whose record was written before."""
        self.accuracies.setdefault((protocol_id, protocol), {})[seed] = accuracy

    def summarise(self) -> None:
        """Log a table of all protocols, and record the mean accuracy over several seeds.

        The interval is that of the mean accuracy, and the deviation that of a sample (divided by N - 1).
        """
        means: List[float] = []
        logger.info("%-10s  %-18s  %-18s  %s", "accuracy", "95 % interval", "over seeds", "protocol")
        for (protocol_id, protocol), by_seed in self.accuracies.items():
            values, spread = list(by_seed.values()), ""
            means.append(statistics.fmean(values))
            interval = wilson_interval(means[-1], len(self.labels))
            if len(values) > 1:
                deviation = statistics.stdev(values)
                spread = f"+- {100 * deviation:.3f} % of {len(values)}"
                self.write({"kind": REPEATED_EVAL, "protocol_id": protocol_id, "protocol": protocol, **self.common,
                            "seeds": list(by_seed), "accuracies": values, "accuracy_mean": means[-1],
                            "accuracy_std": deviation, "accuracy_interval": interval, "images": len(self.labels)})
            logger.info("%-10s  %-18s  %-18s  %s", f"{100 * means[-1]:.3f} %",
                        f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f} %", spread, protocol)
        logger.info("Average accuracy: {'Accuracy': %s}", round(means[0], 7))


def wilson_interval(accuracy: float, images: int) -> List[float]:
    """Return the 95 % confidence interval of an accuracy in [0, 1] that was measured on so many ``images``.

    It is the score interval (Wilson 1927), which stays within [0, 1] and holds near 0 and 1, unlike the normal one.
    """
    spread = NORMAL_QUANTILE**2 / images
    centre = (accuracy + spread / 2) / (1 + spread)
    half = math.sqrt(spread * accuracy * (1 - accuracy) + spread**2 / 4) / (1 + spread)
    return [max(0.0, centre - half), min(1.0, centre + half)]


def classification_metrics(logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> Dict[str, Any]:
    """Return top-1, top-5, per-class accuracy and confusion matrix.

    Args:
        logits: (N, classes); equal ones are ranked by class number.
        labels: (N,) in [0, classes).
        class_names: one per class.

    Returns:
        dict ready for JSON: ``accuracy`` and ``top5_accuracy`` in [0, 1]; ``accuracy_interval``, of 95 %
        confidence; ``class_accuracy`` by class name, None for a class without images; ``confusion``, rows
        true class, columns predicted; ``images``, N.
    """
    classes = logits.shape[1]
    ranking = np.argsort(-logits, axis=1, kind="stable")
    correct = ranking == labels[:, None]
    confusion = np.bincount(labels * classes + ranking[:, 0], minlength=classes * classes).reshape(classes, classes)
    totals = confusion.sum(1)
    return {
        "accuracy": float(correct[:, 0].mean()),
        "accuracy_interval": wilson_interval(float(correct[:, 0].mean()), len(labels)),
        "top5_accuracy": float(correct[:, :5].any(1).mean()),
        "class_accuracy": {name: float(hits / total) if total else None
                           for name, hits, total in zip(class_names, confusion.diagonal(), totals)},
        "confusion": confusion.tolist(),
        "images": len(labels),
    }

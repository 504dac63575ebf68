"""The results of an evaluation: one log line and one record each, and a table of all."""
import statistics
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

import numpy as np

from src.common.logs import logger
from src.evaluation.accuracy import classification_metrics, wilson_interval
from src.run.records import REPEATED_EVAL, Record


class Outcome(NamedTuple):
    """What a protocol says of the test images.

    ``scores`` (M, class_num) rank the classes; ``protocol`` says in words how they were come by, the same for every
    seed, and ``protocol_id`` is its identifier; ``kind`` and ``details`` are for the record.
    """

    kind: str
    protocol_id: str
    protocol: str
    scores: np.ndarray
    details: Dict[str, Any] = {}


class Results:
    """Judges one outcome after the other, and sums up.

    Args:
        labels: (M,), of the test images.
        classes: their names; the scores may have more classes.
        about: for every record.
        write: takes the records.
    """

    def __init__(self, labels: np.ndarray, classes: Tuple[str, ...], about: Record, write: Callable[[Record], None]):
        self.labels = labels
        self.classes = classes
        self.about = about
        self.write = write
        self.accuracies: Dict[Tuple[str, str], Dict[int, float]] = {}  # by protocol and seed

    def add(self, seed: int, outcome: Outcome) -> None:
        """Judge every test image once, log the accuracy and write the record."""
        extra = (f"class {index}" for index in range(len(self.classes), outcome.scores.shape[1]))
        result = classification_metrics(outcome.scores, self.labels, (*self.classes, *extra))
        self.write({"kind": outcome.kind, "protocol_id": outcome.protocol_id, "protocol": outcome.protocol,
                    **self.about, "seed": seed, **outcome.details, **result})
        for name, accuracy in result["class_accuracy"].items():
            logger.info("  %-12s %s", name, "no images" if accuracy is None else f"{100 * accuracy:.2f} %")
        logger.info("top-1 %.3f %%, top-5 %.3f %% of %d test images", 100 * result["accuracy"],
                    100 * result["top5_accuracy"], result["images"])
        self.recall(seed, outcome.protocol_id, outcome.protocol, result["accuracy"])

    def recall(self, seed: int, protocol_id: str, protocol: str, accuracy: float) -> None:
        """Take up a result that was judged and written before."""
        self.accuracies.setdefault((protocol_id, protocol), {})[seed] = accuracy

    def summarise(self) -> None:
        """Log the table of all protocols, and record what was repeated.

        The interval is for the mean accuracy, and the deviation is that of a sample (divided by N - 1).
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
                self.write({"kind": REPEATED_EVAL, "protocol_id": protocol_id, "protocol": protocol, **self.about,
                            "seeds": list(by_seed), "accuracies": values, "accuracy_mean": means[-1],
                            "accuracy_std": deviation, "accuracy_interval": interval, "images": len(self.labels)})
            logger.info("%-10s  %-18s  %-18s  %s", f"{100 * means[-1]:.3f} %",
                        f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f} %", spread, protocol)
        logger.info("Average accuracy: {'Accuracy': %s}", round(means[0], 7))

"""Accuracy over exactly the images given, and how far to trust it."""
import math
from typing import Any, Dict, List, Sequence

import numpy as np

NORMAL_QUANTILE = 1.959963984540054  # 95 % of a normal distribution lie within this many deviations


def wilson_interval(accuracy: float, images: int) -> List[float]:
    """Return the 95 % confidence interval of an accuracy in [0, 1], had other images been drawn for the test.

    Wilson 1927, the score interval: unlike the normal approximation it stays within [0, 1] and holds near its ends.
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

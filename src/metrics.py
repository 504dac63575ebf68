"""Accuracy over exactly the images given."""
from typing import Any, Dict, Sequence

import numpy as np


def classification_metrics(logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> Dict[str, Any]:
    """Return top-1, top-5, per-class accuracy and confusion matrix.

    Args:
        logits: (N, classes); equal ones are ranked by class number.
        labels: (N,) in [0, classes).
        class_names: one per class.

    Returns:
        dict ready for JSON: ``accuracy`` and ``top5_accuracy`` in [0, 1]; ``class_accuracy`` by class
        name, None for a class without images; ``confusion``, rows true class, columns predicted;
        ``images``, N.
    """
    classes = logits.shape[1]
    ranking = np.argsort(-logits, axis=1, kind="stable")
    correct = ranking == labels[:, None]
    confusion = np.bincount(labels * classes + ranking[:, 0], minlength=classes * classes).reshape(classes, classes)
    totals = confusion.sum(1)
    return {
        "accuracy": float(correct[:, 0].mean()),
        "top5_accuracy": float(correct[:, :5].any(1).mean()),
        "class_accuracy": {name: float(hits / total) if total else None
                           for name, hits, total in zip(class_names, confusion.diagonal(), totals)},
        "confusion": confusion.tolist(),
        "images": len(labels),
    }

"""Few of the training images' labels: as many of every class."""
from typing import Sequence

import numpy as np

from src.common.errors import UserError


def balanced_subset(labels: np.ndarray, fraction: float, seed: int, classes: Sequence[str]) -> np.ndarray:
    """Draw the images whose labels are used and return their row numbers, ascending.

    Of every class these are ``fraction`` times the mean number of images of a class, rounded, at least one. With the
    same seed a smaller fraction's images are among a larger one's.

    Args:
        labels: (N,) in [0, len(classes)).
        fraction: in (0, 1]; 1 takes all images, however many each class has.
        seed: of the draw.
        classes: their names.

    Raises:
        UserError: a class has fewer images.
    """
    if fraction == 1:
        return np.arange(len(labels))
    count = max(1, round(fraction * len(labels) / len(classes)))
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen = []
    for number, name in enumerate(classes):
        rows = order[labels[order] == number][:count]
        if len(rows) < count:
            raise UserError(f"--label_fraction: got {fraction:g}, which is {count} images of every class, but {name} "
                            f"has {len(rows)}; take a smaller share, or 1 for all images")
        chosen.append(rows)
    return np.sort(np.concatenate(chosen))

"""A sample of the test images with their representations, small enough to keep: what a run's page shows of them."""
from pathlib import Path
from typing import NamedTuple, Optional, Tuple

import numpy as np

from src.common.files import written_whole


class Sample(NamedTuple):
    """N test images, and for Q of them the K training images whose representations are nearest.

    ``pictures`` (N, side, side, 3) and ``nearest_pictures`` (Q, K, side, side, 3) are uint8, ``features`` (N, d)
    float16; ``labels`` (N,) and ``nearest_labels`` (Q, K) are numbers of ``classes``. ``asked`` (Q,) has the numbers
    of the Q among the N. Without training images, Q is 0.
    """

    pictures: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    classes: Tuple[str, ...]
    asked: np.ndarray
    nearest_pictures: np.ndarray
    nearest_labels: np.ndarray
    places: np.ndarray  # float32 (N, 2), on the page's map


def write(path: Path, sample: Sample) -> None:
    """Write a sample whole."""
    with written_whole(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **{**sample._asdict(), "classes": np.array(sample.classes, str)})


def read(path: Path) -> Optional[Sample]:
    """Return the sample in ``path``, or None where there is none.

    Raises an Exception where the file is damaged, which the checksums of its ZIP archive tell; NumPy raises all kinds.
    """
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as archive:  # a pickle could run code
        arrays = {name: archive[name] for name in Sample._fields}
    return Sample(**{**arrays, "classes": tuple(map(str, arrays["classes"].tolist()))})

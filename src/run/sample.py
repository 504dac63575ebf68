"""A sample of the test images with their representations, small enough to keep: what a run's page shows of them."""
import zipfile
from pathlib import Path
from typing import NamedTuple, Optional, Tuple

import numpy as np

from src.common.files import written_whole

MOST_BYTES = 2**28  # of a sample: some ten times as much as there is of one


class Sample(NamedTuple):
    """N test images, and for Q of them the K training images whose representations are nearest.

    ``pictures`` (N, side, side, 3) and ``nearest_pictures`` (Q, K, side, side, 3) are uint8, ``features`` (N, d)
    float16, ``labels`` (N,) and ``nearest_labels`` (Q, K) numbers of ``classes``. ``asked`` (Q,) are the numbers of
    the Q among the N; where there were no training images Q is 0.
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

    Raises:
        Exception: it is damaged, of which NumPy raises all kinds, or ValueError: its parts do not fit each other.
    """
    if not path.is_file():
        return None
    with np.load(of_size(path), allow_pickle=False) as found:
        parts = {name: found[name] for name in Sample._fields}
    sample = Sample(**{**parts, "classes": tuple(map(str, parts["classes"].tolist()))})
    _check(sample)
    return sample


def of_size(path: Path) -> Path:
    """Return the path of a .npz file, if it has not far more than there is of a sample.

    Raises:
        Exception: it has, or is damaged.
    """
    with zipfile.ZipFile(path) as parts:
        if sum(part.file_size for part in parts.infolist()) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES // 2**20} MB")
    return path


def _check(sample: Sample) -> None:
    count, side, classes = *sample.pictures.shape[:2], len(sample.classes)
    asked, each = sample.nearest_labels.shape
    for name, shape, kind, most in (("pictures", (count, side, side, 3), "u", 256), ("labels", (count,), "i", classes),
                                    ("features", (count, sample.features.shape[-1]), "f", None),
                                    ("asked", (asked,), "i", count), ("nearest_labels", (asked, each), "i", classes),
                                    ("nearest_pictures", (asked, each, side, side, 3), "u", 256)):
        values = getattr(sample, name)
        if values.shape != shape or values.dtype.kind != kind or most is not None and not (
                (values >= 0) & (values < most)).all():
            raise ValueError(f"its {name} do not fit the others")

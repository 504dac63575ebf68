"""Images with their labels, in memory or on disk."""
import hashlib
from typing import Any, Iterator, NamedTuple, Optional, Sequence, Tuple

import numpy as np

BLOCK = 1024  # images that are in memory at a time while all are looked through


class Images(NamedTuple):
    """The images of a split.

    ``pixels`` is uint8 (N, side, side, 3): an array, in memory or mapped from a file, or something that takes
    the same indices and reads what is asked for (``Joined``, ``image_folder.ImageFiles``). ``labels`` is
    int32 (N,), -1 where an image has none; ``classes`` has their names.
    """

    pixels: Any
    labels: np.ndarray
    classes: Tuple[str, ...] = ()

    def first(self, count: Optional[int]) -> "Images":
        """Return the first ``count`` images; None returns all."""
        return self._replace(pixels=self.pixels[:count], labels=self.labels[:count])


class Joined:
    """Arrays of images one after the other, left where they are, in memory or on disk.

    A slice gives the like, a number one image (side, side, 3), and an array of numbers these images.
    """

    def __init__(self, parts: Sequence[np.ndarray], rows: Optional[np.ndarray] = None):
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])
        self.rows = np.arange(self.ends[-1]) if rows is None else rows

    @property
    def shape(self) -> Tuple[int, ...]:
        return (len(self), *self.parts[0].shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Joined(self.parts, self.rows[index])
        if np.ndim(index):
            return np.stack([self._row(row) for row in self.rows[index]])
        return self._row(self.rows[index])

    def _row(self, row: int) -> np.ndarray:
        part = np.searchsorted(self.ends, row, side="right")
        return self.parts[part][row - self.ends[part]]  # counted from the part's end


def identity(pixels: Any) -> Iterator[Any]:
    """Yield bytes, to be hashed, that tell ``pixels`` from other images: where it can be, all their bytes."""
    if hasattr(pixels, "identity"):
        yield pixels.identity()
        return
    for start in range(0, len(pixels), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(pixels)))
        yield np.ascontiguousarray(pixels[rows]).data


def fingerprint(pixels: Any) -> str:
    """Tell one set of images from another: how many, and the beginning of their SHA-256."""
    digest = hashlib.sha256()
    for part in identity(pixels):
        digest.update(part)
    return f"{len(pixels)} images, {digest.hexdigest()[:16]}"

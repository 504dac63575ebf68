"""Images with their labels, in memory or on disk."""
import hashlib
from functools import singledispatch
from typing import Iterator, NamedTuple, Optional, Protocol, Sequence, Tuple, Union, overload

import numpy as np

BLOCK = 1024  # images that are in memory at a time while all are looked through


class PixelSource(Protocol):
    """Images uint8 (N, side, side, 3), wherever they are: an array in memory or mapped from a file, or the like.

    A slice gives some of them without reading any, a number one image (side, side, 3), and an array of numbers these
    images (numbers, side, side, 3).
    """

    @property
    def shape(self) -> Tuple[int, ...]: ...

    def __len__(self) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> "PixelSource": ...

    @overload
    def __getitem__(self, index: Union[int, np.ndarray]) -> np.ndarray: ...


class Images(NamedTuple):
    """The images of a split.

    ``labels`` is int32 (N,), -1 where an image has none; ``classes`` has their names.
    """

    pixels: PixelSource
    labels: np.ndarray
    classes: Tuple[str, ...] = ()

    def first(self, count: Optional[int]) -> "Images":
        """Return the first ``count`` images; None returns all."""
        return self._replace(pixels=self.pixels[:count], labels=self.labels[:count])


class Joined:
    """Images of mapped files one after the other, left where they are: a ``PixelSource``."""

    def __init__(self, parts: Sequence[np.ndarray]):
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])

    @property
    def shape(self) -> Tuple[int, ...]:
        return (len(self), *self.parts[0].shape[1:])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index):
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise IndexError(f"joined images are taken one after the other, not in steps of {step}")
            begins = self.ends - [len(part) for part in self.parts]
            return Joined([part[max(0, start - begin):max(0, stop - begin)]
                           for part, begin in zip(self.parts, begins)])
        if np.ndim(index):
            return np.stack([self._row(row) for row in index])
        return self._row(index)

    def _row(self, row: int) -> np.ndarray:
        row = range(len(self))[row]
        part = np.searchsorted(self.ends, row, side="right")
        return self.parts[part][row - self.ends[part]]  # counted from the part's end


def channels_first(images: np.ndarray) -> np.ndarray:
    """Return images (..., H, W, C), as files and pictures have them, as (..., C, H, W), as networks take them.

    The result is contiguous, as MindSpore's tensors have to be.
    """
    return np.ascontiguousarray(np.moveaxis(images, -1, -3))


def channels_last(planes: np.ndarray) -> np.ndarray:
    """Return images (..., C, H, W) as (..., H, W, C), not copied: a file that is mapped remains so."""
    return np.moveaxis(planes, -3, -1)


@singledispatch
def batches(pixels: PixelSource, batch_size: int, rows: Optional[np.ndarray] = None) -> Iterator[np.ndarray]:
    """Yield images in order, uint8 (batch_size, side, side, 3), at the end fewer.

    Args:
        pixels: where they are; the classes that read images in a way of their own register it here.
        batch_size: how many are in memory at a time.
        rows: the numbers of the images; None takes all.

    Raises:
        UserError: an image cannot be read or decoded.
    """
    rows = np.arange(len(pixels)) if rows is None else rows
    for start in range(0, len(rows), batch_size):
        yield pixels[rows[start:start + batch_size]]


@singledispatch
def identity(pixels: PixelSource) -> Iterator[bytes]:
    """Yield bytes, to be hashed, that tell ``pixels`` from other images: where it can be, all their bytes."""
    for batch in batches(pixels, BLOCK):
        yield np.ascontiguousarray(batch).data


def fingerprint(pixels: PixelSource) -> str:
    """Tell one set of images from another: how many, and the beginning of a SHA-256.

    For images that are mapped from files it is the SHA-256 of the files' bytes: to put these in the order of pixels
    takes several times as long.
    """
    in_files = isinstance(pixels, (Joined, np.memmap))
    digest = hashlib.sha256()
    for data in _as_stored(pixels) if in_files else identity(pixels):
        digest.update(data)
    return f"{len(pixels)} images, {'files ' if in_files else ''}{digest.hexdigest()[:16]}"


def _as_stored(pixels: Union[Joined, np.memmap]) -> Iterator[bytes]:
    """Yield the bytes of mapped images in the order that they have in the files, which needs no copy."""
    for part in pixels.parts if isinstance(pixels, Joined) else [pixels]:
        for start in range(0, len(part), BLOCK):
            yield part[start:start + BLOCK].ravel(order="K").data

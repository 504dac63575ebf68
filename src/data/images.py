"""Images with their labels, in memory or on disk."""
import hashlib
from functools import singledispatch
from pathlib import Path
from typing import Iterator, NamedTuple, Optional, Protocol, Sequence, Tuple, Union, overload

import numpy as np

from src.common.errors import UserError
from src.common.files import to_read

BLOCK = 1024  # images in memory at a time, where all are read once


class PixelSource(Protocol):
    """Images uint8 (N, side, side, 3), in memory or on disk.

    An index gives one image (side, side, 3), an array of indices gives these images (indices, side, side, 3), and the
    slice ``[:count]`` gives a source of the first images, without reading any.
    """

    @property
    def shape(self) -> Tuple[int, ...]: ...

    def __len__(self) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> "PixelSource": ...

    @overload
    def __getitem__(self, index: Union[int, np.ndarray]) -> np.ndarray: ...


class Images(NamedTuple):
    """The images of a split, their labels, int32 (N,) with -1 for "no label", and the names of the classes."""

    pixels: PixelSource
    labels: np.ndarray
    classes: Tuple[str, ...] = ()

    def first(self, count: Optional[int]) -> "Images":
        """Return the first ``count`` images; None returns all."""
        if count is None:
            return self
        return self._replace(pixels=self.pixels[:count], labels=self.labels[:count])


class Joined:
    """Several mapped files as one ``PixelSource``: images are copied only when they are asked for."""

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
            starts = self.ends - [len(part) for part in self.parts]
            return Joined([part[:max(0, index.stop - start)] for part, start in zip(self.parts, starts)])
        if np.ndim(index):
            return np.stack([self[row] for row in index])
        part = np.searchsorted(self.ends, index, side="right")
        return self.parts[part][index - self.ends[part]]  # below 0, so it counts from the end of that part


def read_bytes(file: Path) -> np.ndarray:
    """Return the bytes of ``file``, uint8. Raises a UserError where it cannot be read, or is no file."""
    with to_read(file) as stream:
        return np.fromfile(stream, np.uint8)


def balanced_subset(labels: np.ndarray, fraction: float, seed: int, classes: Sequence[str]) -> np.ndarray:
    """Draw equally many images of every class for training with few labels; return their row numbers, ascending.

    Every class gives ``fraction`` times the mean class size, rounded, but at least one image. With one seed, the images
    of a smaller fraction are among those of a larger one.

    Args:
        labels: (N,), each an index of ``classes``.
        fraction: in (0, 1]; 1 takes all images, also of classes that differ in size.

    Raises a UserError where a class has too few images.
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


def channels_first(images: np.ndarray) -> np.ndarray:
    """Return images (..., H, W, C) as (..., C, H, W), contiguous, as MindSpore's tensors have to be."""
    return np.ascontiguousarray(np.moveaxis(images, -1, -3))


def channels_last(planes: np.ndarray) -> np.ndarray:
    """Return images (..., C, H, W) as (..., H, W, C) without a copy, so that a mapped file stays mapped."""
    return np.moveaxis(planes, -3, -1)


@singledispatch
def batches(pixels: PixelSource, batch_size: int, rows: Optional[np.ndarray] = None) -> Iterator[np.ndarray]:
    """Yield the images ``rows``, by default all, as uint8 (batch_size, side, side, 3); the last batch may be smaller.

    A ``PixelSource`` that can read ahead, such as ``ImageFiles``, registers its own version here. Raises a UserError
    where an image cannot be read or decoded.
    """
    rows = np.arange(len(pixels)) if rows is None else rows
    for start in range(0, len(rows), batch_size):
        yield pixels[rows[start:start + batch_size]]


@singledispatch
def identity(pixels: PixelSource) -> Iterator[bytes]:
    """Yield bytes whose hash identifies ``pixels``: all pixels, where reading them is cheap."""
    for batch in batches(pixels, BLOCK):
        yield np.ascontiguousarray(batch).data


def fingerprint(pixels: PixelSource) -> str:
    """Return a text that differs between sets of images: their number, and 16 digits of a SHA-256.

    For images that are mapped from files it is the SHA-256 of the files' bytes: to put these in the order of pixels
    takes several times as long.
    """
    in_files = isinstance(pixels, (Joined, np.memmap))
    digest = hashlib.sha256()
    for data in _as_stored(pixels) if in_files else identity(pixels):
        digest.update(data)
    return f"{len(pixels)} images, {'files ' if in_files else ''}{digest.hexdigest()[:16]}"


def _as_stored(pixels: Union[Joined, np.memmap]) -> Iterator[bytes]:
    """Yield the bytes of mapped images in the order of the file, which needs no copy."""
    for part in pixels.parts if isinstance(pixels, Joined) else [pixels]:
        for start in range(0, len(part), BLOCK):
            yield part[start:start + BLOCK].ravel(order="K").data

"""Image files in the place of pixels: what is asked for is read and decoded."""
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Iterator, List, Optional, Sequence, Tuple

import numpy as np
from PIL import Image

from src.common.errors import UserError
from src.common.files import to_read
from src.data.formats import read_bytes, shorter_edge_for
from src.data.image_listing import FORMATS
from src.data.images import batches, identity
from src.data.rows import Rows


class ImageFiles:
    """JPEG and PNG files of any size: a ``PixelSource`` of their middles (see ``formats.KEPT``).

    MindSpore's C++ operations decode and resize them. Views are made of the whole images instead, in the pipeline of
    ``views.Views``, which begins with their bytes (``encoded``).
    """

    def __init__(self, files: Sequence[Path], sizes: Sequence[int], side: int, root: Optional[Path] = None):
        self.files = files
        self.sizes = sizes
        self.side = side
        self.root = root  # of images without classes, which are known by their paths from there

    @property
    def names(self) -> List[str]:
        """What the files are known by: class and name, or the path from their root."""
        return ["/".join(file.relative_to(self.root).parts if self.root else file.parts[-2:]) for file in self.files]

    @property
    def shape(self) -> Tuple[int, ...]:
        return (len(self), self.side, self.side, 3)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return ImageFiles(self.files[index], self.sizes[index], self.side, self.root)
        images = np.empty((np.size(index), *self.shape[1:]), np.uint8)
        for place, image in enumerate(self.decoded(np.atleast_1d(index))):
            images[place] = image
        return images if np.ndim(index) else images[0]

    def encoded(self, row: int) -> np.ndarray:
        """Return the bytes of one file, uint8.

        Raises:
            UserError: it cannot be read.
        """
        return read_bytes(self.files[row])

    def decoded(self, rows: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield the images ``rows``, uint8 (side, side, 3), decoded ahead by all cores in one pipeline.

        Raises:
            UserError: one cannot be read or decoded.
        """
        if not len(rows):
            return  # MindSpore has no empty pipelines
        source, workers = Rows(self.encoded, rows), len(os.sched_getaffinity(0))
        try:
            yield from self._decode(source, workers)
        except RuntimeError:
            self.find_damage(source.under_way(workers))
            raise

    def check(self) -> None:
        """Decode every file, by Pillow: MindSpore does not say which it cannot decode, and leaves a copy behind.

        Raises:
            UserError: one cannot be read or decoded.
        """
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for _ in pool.map(check_whole, self.files):
                pass

    def _decode(self, source: Rows, workers: int) -> Iterator[np.ndarray]:
        import mindspore.dataset as ds  # here, so that the data sets can be read where there is no MindSpore
        from mindspore.dataset import vision
        whole = [vision.Decode(), vision.Resize(shorter_edge_for(self.side)), vision.CenterCrop(self.side)]
        images = ds.GeneratorDataset(source, ["image"], shuffle=False, num_parallel_workers=1)
        images = images.map(whole, ["image"], num_parallel_workers=workers)
        return (image for (image,) in images.create_tuple_iterator(num_epochs=1, output_numpy=True))

    def find_damage(self, rows: Sequence[int]) -> None:
        """Name the first of the files ``rows`` that MindSpore cannot read or decode; it does not say which it was.

        Each has a pipeline: a single operation outside of one fails again after its first failure.

        Raises:
            UserError: there is one.
        """
        for row in rows:
            self.encoded(row)
            try:
                list(self._decode(Rows(self.encoded, [row]), workers=1))
            except RuntimeError:
                raise damaged(self.files[row]) from None


def check_whole(file: Path) -> None:
    """Raise UserError where an image cannot be read or decoded."""
    with to_read(file) as stream:
        try:
            Image.open(stream, formats=FORMATS).load()
        except MemoryError:
            raise
        except Exception:  # of damaged files Pillow raises all kinds
            raise damaged(file) from None


def damaged(file: Path) -> UserError:
    """Return the error of a file that is no whole image."""
    return UserError(f"{file}: cannot be decoded; the file is truncated or damaged, so copy it again or remove it")


@batches.register
def _(pixels: ImageFiles, batch_size: int, rows: Optional[np.ndarray] = None) -> Iterator[np.ndarray]:
    images = pixels.decoded(range(len(pixels)) if rows is None else rows)
    for first in images:
        yield np.stack([first, *islice(images, batch_size - 1)])


@identity.register
def _(pixels: ImageFiles) -> Iterator[bytes]:
    """Side, names and sizes of the files, not their contents: to read them takes as long as an epoch of training."""
    names = (f"{name} {size}" for name, size in zip(pixels.names, pixels.sizes))
    yield "\n".join([f"side {pixels.side}", *names]).encode(errors="surrogateescape")

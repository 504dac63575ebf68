"""Image files as a source of pixels: an image is read and decoded when it is asked for."""
import io
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Callable, Iterator, List, Optional, Sequence, Tuple

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin

from src.common.errors import UserError
from src.common.files import to_read
from src.data.formats import shorter_edge_for
from src.data.image_listing import FORMATS, MOST_PIXELS, too_large
from src.data.images import batches, identity, read_bytes

QUEUED = 32  # images; MindSpore queues half as many before each thread (its prefetch size)
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"  # the first bytes, whatever the file's name says
ENDS = (b"\xff\xd9", b"IEND\xaeB`\x82")            # the last bytes of a whole JPEG and PNG file
# JPEG markers (ITU-T T.81, table B.1)
FRAMES = {*range(0xFFC0, 0xFFD0)} - {0xFFC4, 0xFFC8, 0xFFCC}
SCAN, FILLING, FIRST_MARKER = 0xFFDA, 0xFFFF, 0xFFC0
METADATA = {*range(0xFFE0, 0xFFEE), 0xFFFE}  # without Adobe's segment 0xFFEE, which tells the colours


class Rows:
    """The source of a MindSpore pipeline: the images ``order``, each ``times`` in a row but read only once.

    ``read`` takes a number of ``order`` and returns pixels or the bytes of a file.
    """

    def __init__(self, read: Callable[[int], np.ndarray], order: Sequence[int], times: int = 1):
        self.read = read
        self.order = [int(number) for number in order]
        self.times = times
        self.reached = 0  # images read so far

    def __len__(self) -> int:
        return self.times * len(self.order)

    def __iter__(self) -> Iterator[Tuple[np.ndarray]]:
        for number in self.order:
            self.reached += 1
            image = np.ascontiguousarray(self.read(number))
            for _ in range(self.times):
                yield (image,)

    def under_way(self, workers: int) -> Sequence[int]:
        """Return the numbers of the images that may still be in the queues of a pipeline with so many threads."""
        return self.order[:self.reached][-QUEUED * (workers + 2):]


class ImageFiles:
    """JPEG and PNG files of any size: a ``PixelSource`` of their middles, decoded by MindSpore (``formats.KEPT``).

    Training draws its views from the whole images instead: ``views.Views`` begins with ``encoded``. ``sizes`` are
    those of the files in bytes. Without classes, images are known by their paths below ``root``.
    """

    def __init__(self, files: Sequence[Path], sizes: Sequence[int], side: int, root: Optional[Path] = None):
        self.files = files
        self.sizes = sizes
        self.side = side
        self.root = root

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
        """Return the bytes of one file, uint8, or raise UserError."""
        return read_bytes(self.files[row])

    def decoded(self, rows: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield the images ``rows``, uint8 (side, side, 3), decoded ahead by all cores, or raise UserError."""
        if not len(rows):
            return  # MindSpore has no empty pipelines
        source, workers = Rows(self.encoded, rows), len(os.sched_getaffinity(0))
        with self.naming_damage(source, workers):
            yield from self._decode(source, workers)

    def _decode(self, source: Rows, workers: int) -> Iterator[np.ndarray]:
        import mindspore.dataset as ds  # here, so that data sets can be read without MindSpore
        from mindspore.dataset import vision
        middle = [vision.Decode(), vision.Resize(shorter_edge_for(self.side)), vision.CenterCrop(self.side)]
        images = ds.GeneratorDataset(source, ["image"], shuffle=False, num_parallel_workers=1)
        images = images.map(middle, ["image"], num_parallel_workers=workers)
        return (image for (image,) in images.create_tuple_iterator(num_epochs=1, output_numpy=True))

    @contextmanager
    def naming_damage(self, source: Rows, workers: int) -> Iterator[None]:
        """Turn the failure of a pipeline over ``source`` into a UserError: MindSpore does not say which file failed."""
        try:
            yield
        except RuntimeError:
            for row in source.under_way(workers):
                self.encoded(row)
                try:
                    # By MindSpore, which refuses more than Pillow, such as a wrong checksum. One pipeline per file: an
                    # operation outside of a pipeline fails again after its first failure.
                    list(self._decode(Rows(self.encoded, [row]), workers=1))
                except RuntimeError:
                    raise damaged(self.files[row]) from None
            raise

    def check(self) -> None:
        """Decode every file, by Pillow, because MindSpore leaves a copy of a damaged file; raise UserError."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for _ in pool.map(check_whole, self.files):
                pass


def damaged(file: Path) -> UserError:
    """Return the error for a file that is no whole image."""
    return UserError(f"{file}: cannot be decoded; the file is truncated or damaged, so copy it again or remove it")


@contextmanager
def decoding(file: Path) -> Iterator[None]:
    """Turn any error of Pillow, which raises all kinds for damaged files, into a UserError."""
    try:
        yield
    except MemoryError:
        raise
    except Exception:
        raise damaged(file) from None


def check_whole(file: Path) -> None:
    """Decode an image; raise UserError if that fails."""
    with to_read(file) as stream, decoding(file):
        Image.open(stream, formats=FORMATS).load()


def check_ends(file: Path, side: int) -> int:
    """Check the header and the last bytes of an image for networks of ``side`` pixels; return its size in bytes.

    Raises a UserError where it is no JPEG or PNG image, is damaged, or would take too much memory, decoded or resized.
    """
    with to_read(file) as stream:
        start = stream.read(len(PNG))
        size = stream.seek(0, os.SEEK_END)
        if not start.startswith((JPEG, PNG)):
            raise UserError(f"{file}: {size} bytes that are no JPEG or PNG image; convert it, copy it again or remove "
                            "it")
        stream.seek(max(0, size - len(ENDS[1])))
        end = stream.read()
        stream.seek(0)
        with decoding(file):
            if start.startswith(JPEG):
                edges, goes_on = _jpeg_header(stream)
            else:
                edges, goes_on = PngImagePlugin.PngImageFile(stream).size, False
    shorter, longer = sorted(edges)
    if max(shorter * longer, shorter_edge_for(side) ** 2 * longer // shorter) > MOST_PIXELS:
        raise too_large(file)
    if goes_on or not end.endswith(ENDS):  # truncated, or followed by other data, as some cameras write it
        check_whole(file)
    return size


def _jpeg_header(stream: BinaryIO) -> Tuple[Tuple[int, int], bool]:
    """Return width and height, and whether more headers follow between the scans; raise if libjpeg refuses it.

    A header with missing or broken tables ends MindSpore's whole process. Pillow's libjpeg raises an exception
    instead. Here it decodes an image of 8 x 8 pixels with the same header, which is quick.
    """
    stream.seek(2)
    segments, marker, frame, width, height, components = [JPEG[:2]], 0, 0, 0, 0, 0
    while marker != SCAN:
        start = stream.read(4)
        marker, length = struct.unpack(">HH", start)
        if marker == FILLING:
            stream.seek(-3, os.SEEK_CUR)
            continue
        if marker < FIRST_MARKER or length < 2:
            raise ValueError("this is no header")
        body = stream.read(length - 2)
        if marker in FRAMES:
            frame, (height, width, components) = marker, struct.unpack(">HHB", body[1:6])
            body = body[:1] + struct.pack(">HH", 8, 8) + body[5:]
        if marker not in METADATA:  # so that the images of one program have the same header, which is decoded once
            segments += [start, body]
    _decode_header(b"".join([*segments, ENDS[0]]))
    if not width * height:
        raise ValueError("this image has no pixels")
    is_progressive = frame % 4 == 2  # SOF2, 6, 10 and 14
    # A scan with fewer components than the frame is followed by others.
    return (width, height), is_progressive or body[0] < components


@lru_cache(maxsize=64)
def _decode_header(header: bytes) -> None:
    JpegImagePlugin.JpegImageFile(io.BytesIO(header)).load()


@batches.register
def _(pixels: ImageFiles, batch_size: int, rows: Optional[np.ndarray] = None) -> Iterator[np.ndarray]:
    images = pixels.decoded(range(len(pixels)) if rows is None else rows)
    for first in images:
        yield np.stack([first, *islice(images, batch_size - 1)])


@identity.register
def _(pixels: ImageFiles) -> Iterator[bytes]:
    """Names and sizes of the files, not their contents: reading these takes as long as an epoch of training."""
    def name_of(file: Path) -> str:
        return "/".join(file.relative_to(pixels.root).parts if pixels.root else file.parts[-2:])

    lines: List[str] = [f"{name_of(file)} {size}" for file, size in zip(pixels.files, pixels.sizes)]
    yield "\n".join([f"side {pixels.side}", *lines]).encode(errors="surrogateescape")

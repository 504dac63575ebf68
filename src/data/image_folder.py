"""A folder of images per class: finding the files, and reading one when it is asked for.

    DIR/train/<class>/*.jpg    DIR/test/<class>/*.jpg    (or val; .jpg, .jpeg and .png, in folders below too)

Images may have any size, and are too many for the memory as a rule. So they stay files, and MindSpore's C++
operations decode and resize them where they are needed: for views in the pipeline of src/data/augmentation.py, for
evaluation here.
"""
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

import numpy as np
from PIL import Image

from src.common.errors import UserError
from src.common.logs import logger
from src.data.images import Images

SPLITS = {"train": ("train",), "test": ("test", "val")}
SUFFIXES = (".jpg", ".jpeg", ".png")
STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # of JPEG and PNG files, whatever their names say
ENDS = (b"\xff\xd9", b"IEND\xaeB`\x82")
LONGEST_START, LONGEST_END = 8, 8
KEPT = 0.875  # of the shorter edge, in the middle: what an image is evaluated on, as usual
READERS = 16  # threads that look into the files at the start: they wait for the disk, not for a core

expected = "train/<class>/*.jpg and test/<class>/*.jpg (or val; .jpg, .jpeg or .png)"


class ImageFiles:
    """JPEG and PNG files, in the place of uint8 images (N, side, side, 3).

    A slice gives the like, a number the bytes of one file, uint8 (bytes,), for a pipeline that decodes them, and
    an array of numbers the decoded images (their middle, see ``KEPT``), uint8 (numbers, side, side, 3).
    """

    def __init__(self, files: Sequence[Path], sizes: Sequence[int], side: int):
        self.files = files
        self.sizes = sizes
        self.side = side

    @property
    def shape(self) -> Tuple[int, ...]:
        return (len(self.files), self.side, self.side, 3)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return ImageFiles(self.files[index], self.sizes[index], self.side)
        if np.ndim(index):
            return self._decoded(np.asarray(index))
        return np.fromfile(self.files[index], np.uint8)

    def identity(self) -> bytes:
        """Return what tells these images from others: side, names and sizes of the files.

        Not their contents: to read them takes as long as an epoch of training.
        """
        names = (f"{'/'.join(file.parts[-2:])} {size}" for file, size in zip(self.files, self.sizes))
        return "\n".join([f"side {self.side}", *names]).encode()

    def _decoded(self, rows: np.ndarray) -> np.ndarray:
        try:
            return self._decode(rows)
        except (OSError, RuntimeError):
            self.find_damage(rows)
            raise

    def _decode(self, rows: Sequence[int]) -> np.ndarray:
        """Decode in a pipeline: a single operation outside of one fails again after its first failure."""
        import mindspore.dataset as ds  # here, so that the data sets can be read where there is no MindSpore
        from mindspore.dataset import vision
        whole = [vision.Decode(), vision.Resize(round(self.side / KEPT)), vision.CenterCrop(self.side)]
        images = ds.GeneratorDataset([(self[int(row)],) for row in rows], ["image"], shuffle=False,
                                     num_parallel_workers=1).map(whole, ["image"])
        return np.stack([image for (image,) in images.create_tuple_iterator(num_epochs=1, output_numpy=True)])

    def find_damage(self, rows: Sequence[int]) -> None:
        """Name the first of the files ``rows`` that MindSpore cannot decode; it does not say which it was.

        Raises:
            UserError: there is one.
        """
        for row in rows:
            try:
                self._decode([row])
            except OSError as error:
                raise _unreadable(self.files[row], error) from None
            except RuntimeError:
                raise _damaged(self.files[row]) from None


def _unreadable(file: Path, error: OSError) -> UserError:
    return UserError(f"{file}: cannot be read ({error.strerror}); check that it is there and its permissions")


def _damaged(file: Path) -> UserError:
    return UserError(f"{file}: cannot be decoded; the file is truncated or damaged, so copy it again or remove it")


def find_files(folder: Path, split: str) -> List[Path]:
    """Return the folders of the classes of ``split``, by name.

    The split's folder, such as train, lies in ``folder`` or is ``folder`` itself. Its name alone tells the split.
    """
    places = [folder / name for name in SPLITS[split]] + [folder] * (folder.name in SPLITS[split])
    for place in places:
        classes = _folders(place)
        if classes:
            return classes
    return []


def _folders(place: Path) -> List[Path]:
    return sorted(path for path in place.glob("*") if path.is_dir() and not path.name.startswith("."))


def why_nothing(folder: Path, split: str) -> str:
    """Say in a few words why ``find_files`` finds nothing."""
    if not folder.is_dir():
        return f"{folder} is not a folder"
    names = " or ".join(f"{name}/<class>" for name in SPLITS[split])
    return f"no folders {names} in {folder}"


def class_names(files: List[Path]) -> Optional[Tuple[str, ...]]:
    """Return the names of the classes, which are those of their folders."""
    return tuple(file.name for file in files)


def read_files(files: List[Path], side: int) -> Images:
    """List the images of the classes' folders ``files``, the classes in turn; look at the ends of every file.

    The classes take turns so that the first N images are not all of one class.

    Raises:
        UserError: a class has no images, or a file is no whole JPEG or PNG image.
    """
    of_classes = [_images_of(folder) for folder in files]
    rows = sorted((position, label, file) for label, images in enumerate(of_classes)
                  for position, file in enumerate(images))
    images = [file for _, _, file in rows]
    with ThreadPoolExecutor(READERS) as pool:
        sizes = list(pool.map(_size_of_image, images))
    return Images(ImageFiles(images, sizes, side), np.array([label for _, label, _ in rows], np.int32),
                  class_names(files))


def _images_of(folder: Path) -> List[Path]:
    files = sorted(Path(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names
                   if not name.startswith("."))
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    if not images:
        raise UserError(f"{folder}: has no {', '.join(SUFFIXES)} files, and every folder there is a class; put its "
                        "images in, or remove it")
    if len(images) < len(files):
        other = next(file for file in files if file.suffix.lower() not in SUFFIXES)
        logger.warning("warning: %s has %d files that are no %s and are left out, such as %s", folder,
                       len(files) - len(images), ", ".join(SUFFIXES), other.name)
    return images


def _size_of_image(file: Path) -> int:
    """Return the size of ``file`` in bytes; whole images begin and end as ``STARTS`` and ``ENDS`` say."""
    try:
        with file.open("rb") as stream:
            start = stream.read(LONGEST_START)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - LONGEST_END))
            end = stream.read()
    except OSError as error:
        raise _unreadable(file, error) from None
    if not start.startswith(STARTS):
        raise UserError(f"{file}: {size} bytes that are no JPEG or PNG image; convert it, copy it again or remove it")
    if not end.endswith(ENDS):  # truncated, or whole with something behind the image, as some cameras write
        try:
            with Image.open(file) as image:  # MindSpore leaves a copy of what it cannot decode where it was called
                image.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            raise _damaged(file) from None
    return size

"""A folder of images per class: finding the files and looking whether they are whole.

    DIR/train/<class>/*.jpg    DIR/test/<class>/*.jpg    (or val; .jpg, .jpeg and .png, in folders below too)
    DIR/*.jpg                                            for pretraining alone, which takes no labels

Images may have any size, and are too many for the memory as a rule. So they stay files (``ImageFiles``).
"""
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np

from src.common.errors import UserError
from src.common.files import to_read
from src.common.logs import logger
from src.data.formats import DataSet, shorter_edge_for
from src.data.headers import JPEG, PNG, header
from src.data.image_files import ImageFiles, check_whole, damaged
from src.data.image_listing import MOST_PIXELS, SUFFIXES, images_below, too_large
from src.data.images import Images

SPLITS = {"pretrain": ("train",), "train": ("train",), "test": ("test", "val")}
STARTS, ENDS = (JPEG, PNG), (b"\xff\xd9", b"IEND\xaeB`\x82")
LONGEST_START, LONGEST_END = 8, 8
READERS = 16  # threads that look into the files at the start: they wait for the disk, not for a core
AT_ONCE = 64  # files that a thread is given: one by one, giving them takes longer than looking
MANY = 10_000  # files that take long enough to be spoken of


class ImageFolder:
    """Folders of images: a ``Format``. The places of a split are the folders of its classes, by name.

    Where there are none, those of ``pretrain`` are all images of the folder, which then have no labels.
    """

    expected = "train/<class>/*.jpg and test/<class>/*.jpg (or val; .jpg, .jpeg or .png; train.py takes any images)"
    names = "folders"

    def find(self, folder: Path, split: str) -> List[Path]:
        """Return the classes' folders; the split's, such as train, lies in ``folder`` or is ``folder`` itself."""
        places = [folder / name for name in SPLITS[split]] + [folder] * (folder.name in SPLITS[split])
        found = next(filter(None, map(_folders, places)), [])
        return _unlabelled(folder) if split == "pretrain" and not found else found

    def why_nothing(self, folder: Path, split: str) -> str:
        names = " or ".join(f"{name}/<class>" for name in SPLITS[split])
        if split == "pretrain":
            return f"no images, and no folders {names}, in {folder}"
        return f"no folders {names} in {folder}"

    def class_names(self, places: List[Path]) -> Tuple[str, ...]:
        return tuple(place.name for place in places) if places[0].is_dir() else ()

    def read(self, places: List[Path], side: int) -> Images:
        """List the images of the classes' folders, or ``places`` if they are images; look at the ends of every file.

        The classes take turns so that the first N images are not all of one class.

        Raises:
            UserError: a class has no images, or a file is no whole JPEG or PNG image.
        """
        if not places[0].is_dir():
            root = Path(os.path.commonpath([file.parent for file in places]))
            return Images(_looked_at(places, side, root), np.full(len(places), -1, np.int32))
        of_classes = [_images_of(folder) for folder in places]
        beside = [file for file in places[0].parent.glob("*") if file.suffix.lower() in SUFFIXES and file.is_file()]
        if beside:
            logger.warning("warning: %d images lie in no class in %s and are left out, such as %s; put them into the "
                           "folder of a class", len(beside), places[0].parent, beside[0].name)
        rows = sorted((position, label, file) for label, images in enumerate(of_classes)
                      for position, file in enumerate(images))
        return Images(_looked_at([file for _, _, file in rows], side),
                      np.array([label for _, label, _ in rows], np.int32), self.class_names(places))


def _folders(place: Path) -> List[Path]:
    folders = sorted(path for path in place.glob("*") if path.is_dir() and not path.name.startswith("."))
    seen: Dict[Tuple[int, int], Path] = {}
    for folder in folders:
        about = folder.stat()
        other = seen.setdefault((about.st_dev, about.st_ino), folder)
        if other is not folder:
            raise UserError(f"{folder}: is the same folder as {other.name}, and its images would be of two classes; "
                            "remove one of the two")
    return folders


def _unlabelled(folder: Path) -> List[Path]:
    """Return all images in ``folder``, or in its train where there is one, but those in a folder of test images."""
    tests = set(SPLITS["test"])
    if os.path.basename(os.path.realpath(folder)) in tests:
        return []
    root = next((folder / name for name in SPLITS["train"] if (folder / name).is_dir()), folder)
    return sorted(file for file in images_below(root) if not tests.intersection(file.relative_to(root).parts[:-1]))


def _looked_at(images: List[Path], side: int, root: Optional[Path] = None) -> ImageFiles:
    if len(images) >= MANY:
        logger.info("looking at the beginning and the end of %s image files", f"{len(images):,}")
    parts = (images[start:start + AT_ONCE] for start in range(0, len(images), AT_ONCE))
    with ThreadPoolExecutor(READERS) as pool:
        sizes = list(chain.from_iterable(pool.map(partial(_sizes_of_images, side=side), parts)))
    return ImageFiles(images, sizes, side, root)


def _images_of(folder: Path) -> List[Path]:
    images = sorted(images_below(folder))
    if not images:
        raise UserError(f"{folder}: has no {', '.join(SUFFIXES)} files, and every folder there is a class; put its "
                        "images in, or remove it")
    return images


def _sizes_of_images(files: List[Path], side: int) -> List[int]:
    return [_size_of_image(file, side) for file in files]


def _size_of_image(file: Path, side: int) -> int:
    """Return the size of ``file`` in bytes; whole images begin and end as ``STARTS`` and ``ENDS`` say.

    Nor does one take too much memory, decoded or with its shorter edge as it is evaluated.
    """
    with to_read(file) as stream:
        start = stream.read(LONGEST_START)
        size = stream.seek(0, os.SEEK_END)
        if not start.startswith(STARTS):
            raise UserError(f"{file}: {size} bytes that are no JPEG or PNG image; convert it, copy it again or remove "
                            "it")
        stream.seek(max(0, size - LONGEST_END))
        end = stream.read()
        stream.seek(0)
        try:
            *edges, goes_on = header(stream)
        except ValueError:
            raise damaged(file) from None
    shorter, longer = sorted(edges)
    if max(shorter * longer, shorter_edge_for(side) ** 2 * longer // shorter) > MOST_PIXELS:
        raise too_large(file)
    if goes_on or not end.endswith(ENDS):  # truncated, or with something behind the image, as some cameras write
        check_whole(file)
    return size


IMAGE_FOLDER = DataSet(ImageFolder(), (), 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225),  # ImageNet's figures
                       resizable=True, has_unlabelled=True)

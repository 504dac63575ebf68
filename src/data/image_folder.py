"""A folder of images per class: listing the files and checking their headers.

    DIR/train/<class>/*.jpg    DIR/test/<class>/*.jpg    (or val; .jpg, .jpeg and .png, also in folders below)
    DIR/*.jpg                                            for pretraining alone, which takes no labels

Such images have any size, and together rarely fit into the memory. So they stay files (``ImageFiles``).
"""
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import List, Optional

import numpy as np

from src.common.errors import UserError
from src.common.logs import logger
from src.data.formats import DataSet
from src.data.image_files import ImageFiles, check_ends
from src.data.image_listing import SUFFIXES, images_below
from src.data.images import Images

SPLITS = {"pretrain": ("train",), "train": ("train",), "test": ("test", "val")}
READERS = 16  # threads that check files: they wait for the disk more than for a core
MANY = 10_000  # files, from which on checking takes long enough to be announced


class ImageFolder:
    """Folders of images: a ``Format``. The places of a split are the folders of its classes.

    If there are none, the places of ``pretrain`` are all images of the folder. These have no labels.
    """

    expected = "train/<class>/*.jpg and test/<class>/*.jpg (or val; .jpg, .jpeg or .png; train.py takes any images)"
    names_file = None

    def find(self, folder: Path, split: str) -> List[Path]:
        roots = [folder / name for name in SPLITS[split]] + [folder] * (folder.name in SPLITS[split])
        classes = next(filter(None, map(_folders_in, roots)), [])
        return _unlabelled(folder) if split == "pretrain" and not classes else classes

    def read(self, places: List[Path], side: int) -> Images:
        """List the images of ``places`` and check the header of every file.

        The classes take turns, so that the first N images have all classes. Raises a UserError where a class has no
        images, or a file is no whole JPEG or PNG image.
        """
        if not places[0].is_dir():
            root = Path(os.path.commonpath([file.parent for file in places]))
            return Images(_checked(places, side, root), np.full(len(places), -1, np.int32))
        images_of_classes = [_images_of(folder) for folder in places]
        beside = [file for file in places[0].parent.glob("*") if file.suffix.lower() in SUFFIXES and file.is_file()]
        if beside:
            logger.warning("warning: %d images lie in no class in %s and are left out, such as %s; put them into the "
                           "folder of a class", len(beside), places[0].parent, beside[0].name)
        rows = sorted((position, label, file) for label, images in enumerate(images_of_classes)
                      for position, file in enumerate(images))
        labels = np.array([label for _, label, _ in rows], np.int32)
        return Images(_checked([file for _, _, file in rows], side), labels, tuple(folder.name for folder in places))


def _folders_in(root: Path) -> List[Path]:
    return sorted(path for path in root.glob("*") if path.is_dir() and not path.name.startswith("."))


def _unlabelled(folder: Path) -> List[Path]:
    """Return all images in ``folder``, or in its train if that exists, except those in folders of test images."""
    tests = set(SPLITS["test"])
    if os.path.basename(os.path.realpath(folder)) in tests:
        return []
    root = next((folder / name for name in SPLITS["train"] if (folder / name).is_dir()), folder)
    return sorted(file for file in images_below(root) if not tests.intersection(file.relative_to(root).parts[:-1]))


def _images_of(folder: Path) -> List[Path]:
    images = sorted(images_below(folder))
    if not images:
        raise UserError(f"{folder}: has no {', '.join(SUFFIXES)} files, but every folder here is a class; put its "
                        "images in, or remove it")
    return images


def _checked(images: List[Path], side: int, root: Optional[Path] = None) -> ImageFiles:
    if len(images) >= MANY:
        logger.info("checking the headers of %s image files", f"{len(images):,}")
    with ThreadPoolExecutor(READERS) as pool:
        sizes = list(pool.map(partial(check_ends, side=side), images))
    return ImageFiles(images, sizes, side, root)


IMAGE_FOLDER = DataSet(ImageFolder(), (), 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225),  # ImageNet's statistics
                       resizable=True, has_unlabelled=True)

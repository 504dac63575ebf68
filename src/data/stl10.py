"""The STL-10 binary layout: finding, reading and checking its files.

Images are 96 x 96 x 3 bytes, red, green and blue planes, each column by column; labels are a byte from 1
to 10, see https://cs.stanford.edu/~acoates/stl10. The files are mapped, not read: the unlabelled images
alone have 2.8 GB.
"""
from pathlib import Path
from typing import List, Optional, Tuple

import numpy as np

from src.common.errors import UserError
from src.data.cifar import read_bytes
from src.data.images import Images, Joined

SIDE = 96
IMAGE = 3 * SIDE * SIDE
CLASS_NUM = 10
FOLDERS = (".", "stl10_binary")
UNLABELLED = "unlabeled_X.bin"
SPLITS = {"pretrain": (UNLABELLED, "train_X.bin", "train_y.bin"), "train": ("train_X.bin", "train_y.bin"),
          "test": ("test_X.bin", "test_y.bin")}

names = "class_names.txt"
expected = "the STL-10 binary files (train_X.bin and so on), or its parent"


def find_files(folder: Path, split: str) -> List[Path]:
    """Return the files of ``split`` in ``folder`` or in its subfolder, in the order of ``SPLITS``; all or none.

    ``pretrain`` is the unlabelled images and, after them, those of ``train``.
    """
    for name in FOLDERS:
        files = [folder / name / file for file in SPLITS[split]]
        if all(file.is_file() for file in files):
            return files
    return []


def why_nothing(folder: Path, split: str) -> str:
    """Say in a few words why ``find_files`` finds nothing."""
    if not folder.is_dir():
        return f"{folder} is not a folder"
    missing = [file for file in SPLITS[split] if not any((folder / name / file).is_file() for name in FOLDERS)]
    return f"no {', '.join(missing) or ' beside '.join(SPLITS[split])} in {folder}"


def class_names(files: List[Path]) -> Optional[Tuple[str, ...]]:
    """Return the class names that lie beside ``files``, as in the official archive; None if none do."""
    file = files[0].parent / names
    return tuple(file.read_text(encoding="utf-8").split()) if file.is_file() else None


def read_files(files: List[Path], side: int = SIDE) -> Images:
    """Map the images of ``files`` and read their labels.

    Raises:
        UserError: a file is truncated, empty or unreadable, a label is not 1 to 10, or there are not as many
            labels as images.
    """
    *images, last = files
    parts = [_map_images(file, side) for file in images]
    labels = read_bytes(last)
    if len(labels) != len(parts[-1]):
        raise UserError(f"{last}: has {len(labels)} labels for the {len(parts[-1])} images of {images[-1].name}; one "
                        "of the two is truncated or of another split, so copy or download both again")
    wrong = np.flatnonzero((labels < 1) | (labels > CLASS_NUM))
    if wrong.size:
        raise UserError(f"{last}: label {wrong[0]} is {labels[wrong[0]]}, and STL-10 has 1 to {CLASS_NUM}; the file is "
                        "damaged or of another data set, so copy or download it again")
    unlabelled = sum(map(len, parts[:-1]))
    return Images(Joined(parts) if unlabelled else parts[0],
                  np.concatenate([np.full(unlabelled, -1, np.int32), labels.astype(np.int32) - 1]))


def _map_images(file: Path, side: int) -> np.ndarray:
    try:
        size = file.stat().st_size
        if size == 0 or size % IMAGE:
            raise UserError(f"{file}: {size} bytes are not a whole number of STL-10 images of {IMAGE} bytes; the file "
                            "is truncated or of another kind, so copy or download it again")
        planes = np.memmap(file, np.uint8, mode="r").reshape(-1, 3, side, side)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); check its permissions") from None
    return planes.transpose(0, 3, 2, 1)  # columns before rows in the file

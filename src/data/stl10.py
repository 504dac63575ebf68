"""The STL-10 binary layout: finding, reading and checking its files.

An image has 3 x 96 x 96 bytes: red, green and blue planes, each column by column. A label is a byte from 1 to 10. See
https://cs.stanford.edu/~acoates/stl10. The files are mapped, not read: the unlabelled images alone have 2.8 GB.
"""
from pathlib import Path
from typing import List

import numpy as np

from src.common.errors import UserError
from src.common.files import reading
from src.data.download import Archive
from src.data.formats import DataSet
from src.data.images import Images, Joined, channels_last, read_bytes

SIDE = 96
IMAGE = 3 * SIDE * SIDE
CLASS_NUM = 10
FOLDERS = (".", "stl10_binary")
UNLABELLED = "unlabeled_X.bin"
SPLITS = {"pretrain": (UNLABELLED, "train_X.bin", "train_y.bin"), "train": ("train_X.bin", "train_y.bin"),
          "test": ("test_X.bin", "test_y.bin")}


class Stl10:
    """The files of STL-10: a ``Format``.

    The places of a split are its files in the order of ``SPLITS``.
    """

    expected = "the STL-10 binary files (train_X.bin, train_y.bin and so on; unlabeled_X.bin for train.py)"
    names_file = "class_names.txt"

    def find(self, folder: Path, split: str) -> List[Path]:
        for name in FOLDERS:
            files = [folder / name / file for file in SPLITS[split]]
            if all(file.is_file() for file in files):
                return files
        return []

    def read(self, places: List[Path], side: int) -> Images:
        """Map the images of ``places`` and read their labels.

        Raises a UserError where a file is truncated, empty or unreadable, a label is not 1 to 10, or images and labels
        differ in number.
        """
        *image_files, label_file = places
        parts = [_map_images(file, side) for file in image_files]
        labels = read_bytes(label_file)
        if len(labels) != len(parts[-1]):
            raise UserError(f"{label_file}: has {len(labels)} labels for the {len(parts[-1])} images of "
                            f"{image_files[-1].name}; one of the two is truncated or of another split, so copy or "
                            "download both again")
        wrong = np.flatnonzero((labels < 1) | (labels > CLASS_NUM))
        if wrong.size:
            raise UserError(f"{label_file}: label {wrong[0]} is {labels[wrong[0]]}, expected 1 to {CLASS_NUM}; the "
                            "file is damaged or of another data set, so copy or download it again")
        unlabelled = sum(map(len, parts[:-1]))
        return Images(Joined(parts) if unlabelled else parts[0],
                      np.concatenate([np.full(unlabelled, -1, np.int32), labels.astype(np.int32) - 1]))


def _map_images(file: Path, side: int) -> np.ndarray:
    with reading(file):
        size = file.stat().st_size
        if size == 0 or size % IMAGE:
            raise UserError(f"{file}: {size} bytes are not a whole number of STL-10 images of {IMAGE} bytes; the file "
                            "is truncated or of another kind, so copy or download it again")
        planes = np.memmap(file, np.uint8, mode="r").reshape(-1, 3, side, side)
    return channels_last(planes.swapaxes(2, 3))  # the file has columns before rows


STL10 = DataSet(
    Stl10(), ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
    SIDE, (0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713),
    Archive("http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz", "91f7769df0f17e558f3565bffb0c7dfb",
            "stl10_binary"), has_unlabelled=True)

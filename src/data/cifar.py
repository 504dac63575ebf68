"""The CIFAR binary layouts: finding, reading, checking and writing their files.

A record is its label bytes and 3,072 pixel bytes (red, green and blue planes of 32 x 32), see
https://www.cs.toronto.edu/~kriz/cifar.html. `shapes` is written in the layout of CIFAR-10.
"""
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from src.common.errors import UserError
from src.common.files import written_whole
from src.data.images import Images

SIDE = 32
PLANES = 3 * SIDE * SIDE
NAMES = "batches.meta.txt"
OFFICIAL_TRAIN_FILES = 5


class Cifar(NamedTuple):
    """The files of CIFAR-10 or CIFAR-100.

    Args:
        title: the name of the data set.
        expected: what a user has to give.
        folders: where the files may lie in the folder that is given.
        patterns: the file names of every split.
        names: the file with the class names.
        label_bytes: of a record; the last one is the class.
        class_num: how many classes there are.
    """

    title: str
    expected: str
    folders: Tuple[str, ...]
    patterns: Dict[str, str]
    names: str
    label_bytes: int
    class_num: int

    def find_files(self, folder: Path, split: str) -> List[Path]:
        """Return the files of ``split`` (train or test) in ``folder`` or in one of its known subfolders.

        The split is told by the file names alone, so test images never get into training, whatever
        folder is given.
        """
        for name in self.folders:
            files = sorted((folder / name).glob(self.patterns[split]))
            if files:
                return files
        return []

    def why_nothing(self, folder: Path, split: str) -> str:
        """Say in a few words why ``find_files`` finds nothing."""
        if not folder.is_dir():
            return f"{folder} is not a folder"
        missing = f"no {split} files ({self.patterns[split]}) in {folder}"
        stems = {pattern[:-len(".bin")] for pattern in self.patterns.values()}
        there = {file.name for name in self.folders for stem in stems
                 for pattern in (stem, f"{stem}.bin") for file in (folder / name).glob(pattern) if file.is_file()}
        if any(not name.endswith(".bin") for name in there):
            return f"{missing}: it holds the Python version of {self.title}, and the binary version is needed"
        if there:
            return f"{missing}: it holds {', '.join(sorted(there))} only"
        return missing

    def class_names(self, files: List[Path]) -> Optional[Tuple[str, ...]]:
        """Return the class names that lie beside ``files``, as in the official archive; None if none do."""
        names = files[0].parent / self.names
        return tuple(names.read_text(encoding="utf-8").split()) if names.is_file() else None

    def read_files(self, files: List[Path], side: int = SIDE) -> Images:
        """Read every record of ``files``, in order.

        Raises:
            UserError: a file is truncated, empty, unreadable, or has a label that is no class.
        """
        records = np.concatenate([self._read_records(file) for file in files])
        planes = records[:, self.label_bytes:].reshape(-1, 3, side, side)
        return Images(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)),
                      records[:, self.label_bytes - 1].astype(np.int32))

    def _read_records(self, file: Path) -> np.ndarray:
        data, record = read_bytes(file), self.label_bytes + PLANES
        if data.size == 0 or data.size % record:
            raise UserError(f"{file}: {data.size} bytes are not a whole number of {record}-byte {self.title} records; "
                            "the file is truncated or of another kind, so copy or download it again")
        records = data.reshape(-1, record)
        labels = records[:, self.label_bytes - 1]
        wrong = np.flatnonzero(labels >= self.class_num)
        if wrong.size:
            raise UserError(f"{file}: record {wrong[0]} has the label {labels[wrong[0]]}, and {self.title} has 0 to "
                            f"{self.class_num - 1}; the file is damaged or of another data set, so copy or download "
                            "it again")
        return records


CIFAR10 = Cifar("CIFAR-10", "the CIFAR-10 binary files, or the parent of both folders",
                (".", "cifar-10-batches-bin", "cifar-10-verify-bin"),
                {"train": "data_batch_*.bin", "test": "test_batch.bin"}, NAMES, label_bytes=1, class_num=10)
CIFAR100 = Cifar("CIFAR-100", "the CIFAR-100 binary files (train.bin, test.bin), or its parent",
                 (".", "cifar-100-binary"), {"train": "train.bin", "test": "test.bin"}, "fine_label_names.txt",
                 label_bytes=2, class_num=100)  # the coarse label, then the fine one


def read_bytes(file: Path) -> np.ndarray:
    """Return the bytes of ``file``, uint8.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return np.fromfile(file, np.uint8)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); check its permissions") from None


def write_file(file: Path, images: Images) -> None:
    """Write ``images`` as one file of CIFAR-10 records, whole or not at all."""
    planes = images.pixels.transpose(0, 3, 1, 2).reshape(len(images.pixels), -1)
    records = np.concatenate([images.labels.astype(np.uint8)[:, None], planes], axis=1)
    with written_whole(file) as temporary:
        temporary.write_bytes(records.tobytes())

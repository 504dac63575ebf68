"""The CIFAR-10 binary layout: finding, reading, checking and writing its files.

A record is one label byte and 3,072 pixel bytes (red, green and blue planes of 32 x 32), see
https://www.cs.toronto.edu/~kriz/cifar.html. `shapes` is written in the same layout.
"""
from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple

import numpy as np

from src.errors import UserError
from src.files import written_whole

SIDE = 32
CLASS_NUM = 10
RECORD = 1 + 3 * SIDE * SIDE
FOLDERS = (".", "cifar-10-batches-bin", "cifar-10-verify-bin")
PATTERNS = {"train": "data_batch_*.bin", "test": "test_batch.bin"}
NAMES = "batches.meta.txt"
OFFICIAL_TRAIN_FILES = 5


class Images(NamedTuple):
    """Images in memory: ``pixels`` uint8 (N, side, side, 3), ``labels`` int32 (N,)."""

    pixels: np.ndarray
    labels: np.ndarray


def find_files(folder: Path, split: str) -> List[Path]:
    """Return the files of ``split`` (train or test) in ``folder`` or in one of its known subfolders.

    The split is told by the file names alone, so test images never get into training, whatever
    folder is given.
    """
    for name in FOLDERS:
        files = sorted((folder / name).glob(PATTERNS[split]))
        if files:
            return files
    return []


def why_nothing(folder: Path, split: str) -> str:
    """Say in a few words why ``find_files`` finds nothing."""
    if not folder.is_dir():
        return f"{folder} is not a folder"
    missing = f"no {split} files ({PATTERNS[split]}) in {folder}"
    there = {file.name for name in FOLDERS for file in (folder / name).glob("*_batch*")}
    if any(not name.endswith(".bin") for name in there):
        return f"{missing}: it holds the Python version of CIFAR-10, and the binary version is needed"
    if there:
        return f"{missing}: it holds {', '.join(sorted(there))} only"
    return missing


def class_names(files: List[Path]) -> Optional[Tuple[str, ...]]:
    """Return the class names that lie beside ``files``, as in the official archive; None if none do."""
    names = files[0].parent / NAMES
    return tuple(names.read_text(encoding="utf-8").split()) if names.is_file() else None


def read_files(files: List[Path]) -> Images:
    """Read every record of ``files``, in order.

    Raises:
        UserError: a file is truncated, empty, unreadable, or has a label above 9.
    """
    parts = [_read_records(file) for file in files]
    records = np.concatenate(parts)
    planes = records[:, 1:].reshape(-1, 3, SIDE, SIDE)
    return Images(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, 0].astype(np.int32))


def _read_records(file: Path) -> np.ndarray:
    try:
        data = np.fromfile(file, np.uint8)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); check its permissions") from None
    if data.size == 0 or data.size % RECORD:
        raise UserError(f"{file}: {data.size} bytes are not a whole number of {RECORD}-byte CIFAR-10 records; "
                        "the file is truncated or of another kind, so copy or download it again")
    records = data.reshape(-1, RECORD)
    wrong = np.flatnonzero(records[:, 0] >= CLASS_NUM)
    if wrong.size:
        raise UserError(f"{file}: record {wrong[0]} has the label {records[wrong[0], 0]}, and CIFAR-10 has 0 to 9; "
                        "the file is damaged or of another data set, so copy or download it again")
    return records


def write_file(file: Path, images: Images) -> None:
    """Write ``images`` as one file of CIFAR-10 records, whole or not at all."""
    planes = images.pixels.transpose(0, 3, 1, 2).reshape(len(images.pixels), -1)
    records = np.concatenate([images.labels.astype(np.uint8)[:, None], planes], axis=1)
    with written_whole(file) as temporary:
        temporary.write_bytes(records.tobytes())

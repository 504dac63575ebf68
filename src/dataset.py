"""The data sets: files on disk -> images in memory."""
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

from src import cifar10, shapes
from src.cifar10 import Images
from src.download import download_cifar10
from src.errors import UserError
from src.files import one_at_a_time
from src.logs import logger


class DataSet(NamedTuple):
    """What the project knows of a data set. ``mean`` and ``std`` are per channel, of pixels in [0, 1]."""

    classes: Tuple[str, ...]
    side: int
    mean: Tuple[float, float, float]
    std: Tuple[float, float, float]


DATA_SETS: Dict[str, DataSet] = {
    "cifar10": DataSet(("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
                       cifar10.SIDE, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "shapes": DataSet(tuple(shapes.CLASSES), cifar10.SIDE, (0.5, 0.5, 0.5), (0.29, 0.29, 0.29)),
}


def folder_of(name: str, path: Optional[str]) -> Path:
    """Return where the files of a data set are looked for: ``path``, or ``data/<name>`` where it is None."""
    return Path(path or f"data/{name}")


def load(name: str, path: Optional[str], split: str, flag: str = "train_dataset_path",
         num_samples: Optional[int] = None, download: bool = False) -> Images:
    """Load a split of a data set into memory; `shapes` is generated where it is not there yet.

    Args:
        name: key of ``DATA_SETS``.
        path: folder with the files or its parent; None takes ``data/<name>``.
        split: train or test.
        flag: the flag that gave ``path``, for error messages.
        num_samples: keep the first N images; None keeps all.
        download: fetch the files first where they are not there.

    Raises:
        UserError: files are missing or damaged, or there are fewer than ``num_samples`` images.
    """
    files = _provide_files(name, folder_of(name, path), split, flag, download)
    images = cifar10.read_files(files)
    total = len(images.labels)
    if num_samples is not None and num_samples > total:
        raise UserError(f"--num_samples: got {num_samples}, but {files[0].parent} has {total} {split} images; "
                        "leave the flag out to take all")
    share = "" if num_samples is None else f"the first {num_samples} of "
    logger.info("%s, %s: %s%d images from %s (%s)", name, split, share, total, files[0].parent,
                ", ".join(file.name for file in files))
    if name == "cifar10" and split == "train" and len(files) < cifar10.OFFICIAL_TRAIN_FILES:
        logger.warning("warning: %s has %d of CIFAR-10's %d training files", files[0].parent, len(files),
                       cifar10.OFFICIAL_TRAIN_FILES)
    return Images(images.pixels[:num_samples], images.labels[:num_samples])


def _make_files(name: str, folder: Path, split: str, flag: str) -> None:
    if cifar10.find_files(folder, split):
        return
    try:
        if name == "shapes":
            logger.info("generating %s into %s", ", ".join(shapes.CLASSES), folder)
            shapes.write(folder)
        else:
            download_cifar10(folder)
    except OSError as error:
        raise UserError(f"--{flag}: cannot write to {folder} ({error.strerror}); name a folder that can be "
                        "written") from None


def _provide_files(name: str, folder: Path, split: str, flag: str, download: bool) -> List[Path]:
    """Find the files of a split; generate or fetch them where they are missing and can be had."""
    if name == "shapes" or download:
        with one_at_a_time(folder):
            _make_files(name, folder, split, flag)
    files = cifar10.find_files(folder, split)
    if not files:
        raise UserError(f"--{flag}: {cifar10.why_nothing(folder, split)}; give the folder with the CIFAR-10 binary "
                        "files, or the parent of both folders (train.py --download fetches them, --dataset_name shapes "
                        "needs none)")
    names = cifar10.class_names(files)
    if names != DATA_SETS[name].classes and (names or name == "shapes"):  # CIFAR-10 often comes without the names
        raise UserError(f"--{flag}: {files[0].parent} does not hold {name}, by its {cifar10.NAMES}; name another "
                        "folder or another --dataset_name")
    return files

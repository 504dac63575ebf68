"""The data sets by name: files on disk -> images, in memory or read when they are asked for.

A new data set is a module in src/data/ that makes its ``DataSet``, with a ``Format`` of its own where no other reads
its files, and a line in ``DATA_SETS``. The flag --dataset_name and the
launchers take the same names (src/settings/flags.py, scripts/lib/common.sh).
"""
from pathlib import Path
from typing import Dict, List, Optional

from src.common.errors import UserError
from src.common.files import one_at_a_time, reading, writing
from src.common.logs import logger
from src.data.cifar import CIFAR10, CIFAR100
from src.data.download import fetch
from src.data.formats import DataSet
from src.data.image_folder import IMAGE_FOLDER
from src.data.images import Images
from src.data.shapes import SHAPES
from src.data.stl10 import STL10

DATA_SETS: Dict[str, DataSet] = {
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "stl10": STL10,
    "imagefolder": IMAGE_FOLDER,
    "shapes": SHAPES,
}


def check_side(name: str, side: int, source: str) -> None:
    """Raise UserError where the data set ``name`` does not have images of ``side`` pixels, asked for by ``source``."""
    data_set = DATA_SETS[name]
    if side != data_set.side and not data_set.resizable:
        raise UserError(f"--dataset_name: got {name} ({data_set.side} pixels), but {source} {side} pixels")


def folder_of(name: str, path: Optional[str]) -> Path:
    """Return where the files of a data set are looked for: ``path``, or ``data/<name>`` where it is None."""
    return Path(path or f"data/{name}")


def load(name: str, path: Optional[str], split: str, flag: str = "train_dataset_path",
         num_samples: Optional[int] = None, download: bool = False, side: Optional[int] = None) -> Images:
    """Load a split of a data set; one that is generated is made where it is not there yet.

    Args:
        name: key of ``DATA_SETS``.
        path: folder with the files or its parent; None takes ``data/<name>``.
        split: train, test or pretrain. The last is what there is to train on without labels: train, and
            unlabelled images where the data set has such.
        flag: the flag that gave ``path``, for error messages.
        num_samples: keep the first N images; None keeps all.
        download: fetch the files first where they are not there.
        side: of the images in pixels where the data set has them of any size; None takes its default.

    Raises:
        UserError: files are missing or damaged, or there are fewer than ``num_samples`` images.
    """
    data_set = DATA_SETS[name]
    if split == "pretrain" and not data_set.has_unlabelled:
        split = "train"
    places = _provide(data_set, name, folder_of(name, path), split, flag, download)
    images = data_set.format.read(places, side or data_set.side)
    images = images._replace(classes=images.classes or data_set.classes)
    total, folder = len(images.labels), places[0].parent
    if num_samples is not None and num_samples > total:
        raise UserError(f"--num_samples: got {num_samples}, but {folder} has {total} {split} images; leave the flag "
                        "out to take all")
    share = "" if num_samples is None else f"the first {num_samples} of "
    shown = [place.name for place in places[:5]] + ["..."] * (len(places) > 5)
    logger.info("%s, %s: %s%d images from %s (%s)", name, split, share, total, folder, ", ".join(shown))
    return images.first(num_samples)


def _provide(data_set: DataSet, name: str, folder: Path, split: str, flag: str, download: bool) -> List[Path]:
    """Find the places of a split; generate or fetch the files where they are missing and can be had."""
    if (data_set.generate or download) and not _find(data_set, folder, split):
        if not (data_set.generate or data_set.archive):
            raise UserError(f"--download: {name} has no home page to be fetched from; leave the flag out")
        with writing(flag, folder), one_at_a_time(folder / name):
            if not _find(data_set, folder, split):  # another process may have been quicker
                _make(data_set, folder)
    places = _find(data_set, folder, split)
    if not places:
        why = data_set.format.why_nothing(folder, split) if folder.is_dir() else f"{folder} is not a folder"
        fetching = "train.py --download fetches them, " if data_set.archive else ""
        raise UserError(f"--{flag}: {why}; give the folder with {data_set.format.expected} ({fetching}--dataset_name "
                        "shapes needs none)")
    names = data_set.format.class_names(places)
    if data_set.classes and names != data_set.classes and (names or data_set.generate):  # others often have none
        raise UserError(f"--{flag}: {places[0].parent} does not hold {name}, by its {data_set.format.names}; name "
                        "another folder or another --dataset_name")
    return places


def _find(data_set: DataSet, folder: Path, split: str) -> List[Path]:
    with reading(folder):
        return data_set.format.find(folder, split)


def _make(data_set: DataSet, folder: Path) -> None:
    if data_set.generate:
        logger.info("generating %s into %s", ", ".join(data_set.classes), folder)
        data_set.generate(folder)
    else:
        fetch(data_set.archive, folder)

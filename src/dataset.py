"""The data sets by name: files on disk -> images and labels.

To add a data set, write a module in src/data/ that makes a ``DataSet`` (with its own ``Format`` if no existing one
reads its files), and add a line to ``DATA_SETS``. The flag --dataset_name and the launchers take the same names
(src/settings/flags.py, scripts/lib/common.sh).
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
    """Raise UserError if ``source`` asks for a ``side`` that the images of the data set ``name`` do not have."""
    data_set = DATA_SETS[name]
    if side != data_set.side and not data_set.resizable:
        raise UserError(f"--dataset_name: got {name} ({data_set.side} pixels), but {source} {side} pixels")


def folder_of(name: str, path: Optional[str]) -> Path:
    """Return the folder of a data set: ``path``, or ``data/<name>`` if that is None."""
    return Path(path or f"data/{name}")


def load(name: str, path: Optional[str], split: str, flag: str = "train_dataset_path",
         num_samples: Optional[int] = None, download: bool = False, side: Optional[int] = None) -> Images:
    """Load one split of a data set. A generated data set is written to its folder first, if it is missing there.

    Args:
        name: a key of ``DATA_SETS``.
        path: the folder with the files, or its parent; None is ``data/<name>``.
        split: train; test; or pretrain, the images for training without labels: those of train, and the data set's
            unlabelled images if it has any.
        flag: the flag that gave ``path``, for error messages.
        num_samples: keep the first N images; None keeps all.
        download: fetch missing files.
        side: of the images in pixels, if the data set is resizable; None is its default.

    Raises a UserError where files are missing or damaged, or there are fewer than ``num_samples`` images.
    """
    data_set = DATA_SETS[name]
    if split == "pretrain" and not data_set.has_unlabelled:
        split = "train"
    folder = folder_of(name, path)
    if (data_set.generate or download) and not _find(data_set, folder, split):
        _provide(data_set, name, folder, split, flag)
    places = _find(data_set, folder, split)
    if not places:
        why = f"no {split} files of {name} in {folder}" if folder.is_dir() else f"{folder} is not a folder"
        fetching = ", fetch them with train.py --download" if data_set.archive else ""
        raise UserError(f"--{flag}: {why}; give the folder with {data_set.format.expected}{fetching}, or try "
                        "--dataset_name shapes")
    _check_class_names(data_set, name, places, flag)
    images = data_set.format.read(places, side or data_set.side)
    images = images._replace(classes=images.classes or data_set.classes)
    total, parent = len(images.labels), places[0].parent
    if num_samples is not None and num_samples > total:
        raise UserError(f"--num_samples: got {num_samples}, but {parent} has {total} {split} images; leave the flag "
                        "out to take all")
    first_of = "" if num_samples is None else f"the first {num_samples} of "
    shown = [place.name for place in places[:5]] + ["..."] * (len(places) > 5)
    logger.info("%s, %s: %s%d images from %s (%s)", name, split, first_of, total, parent, ", ".join(shown))
    return images.first(num_samples)


def _find(data_set: DataSet, folder: Path, split: str) -> List[Path]:
    with reading(folder):
        return data_set.format.find(folder, split)


def _provide(data_set: DataSet, name: str, folder: Path, split: str, flag: str) -> None:
    if not (data_set.generate or data_set.archive):
        raise UserError(f"--download: {name} has no home page to be fetched from; leave the flag out")
    with writing(flag, folder), one_at_a_time(folder / name):
        if _find(data_set, folder, split):
            return  # another process, such as another rank of this run, has just written them
        if data_set.generate:
            logger.info("generating %s into %s", ", ".join(data_set.classes), folder)
            data_set.generate(folder)
        else:
            fetch(data_set.archive, folder)


def _check_class_names(data_set: DataSet, name: str, places: List[Path], flag: str) -> None:
    """Tell data sets in the same layout apart, such as cifar10 and shapes, by their file of class names."""
    if not data_set.format.names_file:
        return
    file = places[0].parent / data_set.format.names_file
    with reading(file):
        names = file.read_text(encoding="utf-8", errors="replace").split() if file.is_file() else None
    # Copies of the official files often lack the names. A generated data set never does.
    if names != list(data_set.classes) and (names is not None or data_set.generate):
        raise UserError(f"--{flag}: {file.parent} does not hold {name}, by its {file.name}; name another folder or "
                        "another --dataset_name")

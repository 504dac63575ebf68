"""The data sets: files on disk -> images, in memory or read when they are asked for."""
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from src.common.errors import UserError
from src.common.files import one_at_a_time
from src.common.logs import logger
from src.data import cifar, image_folder, shapes, stl10
from src.data.cifar import CIFAR10, CIFAR100
from src.data.download import Archive, fetch
from src.data.images import Images


class DataSet(NamedTuple):
    """What the project knows of a data set.

    Args:
        format: what finds and reads its files: an object with ``find_files``, ``why_nothing``, ``class_names``,
            ``read_files`` and ``expected``, such as ``cifar.CIFAR10`` or the module ``stl10``.
        classes: their names; none where those of folders on disk are taken.
        side: of its images in pixels; the default one where ``resizable``.
        mean, std: per channel, of pixels in [0, 1].
        archive: where it can be fetched.
        resizable: whether its images can be read at any side.
        has_unlabelled: whether there are images for pretraining besides those of the split train.
    """

    format: Any
    classes: Tuple[str, ...]
    side: int
    mean: Tuple[float, float, float]
    std: Tuple[float, float, float]
    archive: Optional[Archive] = None
    resizable: bool = False
    has_unlabelled: bool = False


_CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm"""

DATA_SETS: Dict[str, DataSet] = {
    "cifar10": DataSet(
        CIFAR10, ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        cifar.SIDE, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616),
        Archive("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530",
                "cifar-10-batches-bin")),
    "cifar100": DataSet(
        CIFAR100, tuple(_CIFAR100.split()), cifar.SIDE, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762),
        Archive("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8",
                "cifar-100-binary")),
    "stl10": DataSet(
        stl10, ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
        stl10.SIDE, (0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713),
        Archive("http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz", "91f7769df0f17e558f3565bffb0c7dfb",
                "stl10_binary"), has_unlabelled=True),
    "imagefolder": DataSet(
        image_folder, (), 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), resizable=True),  # ImageNet's figures
    "shapes": DataSet(CIFAR10, tuple(shapes.CLASSES), cifar.SIDE, (0.5, 0.5, 0.5), (0.29, 0.29, 0.29)),
}


def side_of(settings: Dict[str, Any]) -> int:
    """Return the side of the images in pixels that a run's, or a checkpoint's, ``settings`` are for."""
    # Checkpoints of before there were data sets of any size do not say it.
    return settings.get("image_size") or DATA_SETS[settings["dataset_name"]].side


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
    """Load a split of a data set; `shapes` is generated where it is not there yet.

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
    files = _provide_files(name, folder_of(name, path), split, flag, download)
    images = data_set.format.read_files(files, side or data_set.side)
    images = images._replace(classes=images.classes or data_set.classes)
    total = len(images.labels)
    if num_samples is not None and num_samples > total:
        raise UserError(f"--num_samples: got {num_samples}, but {files[0].parent} has {total} {split} images; "
                        "leave the flag out to take all")
    share = "" if num_samples is None else f"the first {num_samples} of "
    shown = [file.name for file in files[:5]] + ["..."] * (len(files) > 5)
    logger.info("%s, %s: %s%d images from %s (%s)", name, split, share, total, files[0].parent, ", ".join(shown))
    if name == "cifar10" and split == "train" and len(files) < cifar.OFFICIAL_TRAIN_FILES:
        logger.warning("warning: %s has %d of CIFAR-10's %d training files", files[0].parent, len(files),
                       cifar.OFFICIAL_TRAIN_FILES)
    return images.first(num_samples)


def _make_files(name: str, folder: Path, split: str, flag: str) -> None:
    data_set = DATA_SETS[name]
    if data_set.format.find_files(folder, split):
        return
    try:
        if name == "shapes":
            logger.info("generating %s into %s", ", ".join(shapes.CLASSES), folder)
            shapes.write(folder)
        elif data_set.archive:
            fetch(data_set.archive, folder)
        else:
            raise UserError(f"--download: {name} has no home page to be fetched from; leave the flag out")
    except OSError as error:
        raise UserError(f"--{flag}: cannot write to {folder} ({error.strerror}); name a folder that can be "
                        "written") from None


def _provide_files(name: str, folder: Path, split: str, flag: str, download: bool) -> List[Path]:
    """Find the files of a split; generate or fetch them where they are missing and can be had."""
    if name == "shapes" or download:
        with one_at_a_time(folder):
            _make_files(name, folder, split, flag)
    data_set = DATA_SETS[name]
    files = data_set.format.find_files(folder, split)
    if not files:
        fetching = "train.py --download fetches them, " if data_set.archive else ""
        raise UserError(f"--{flag}: {data_set.format.why_nothing(folder, split)}; give the folder with "
                        f"{data_set.format.expected} ({fetching}--dataset_name shapes needs none)")
    names = data_set.format.class_names(files)
    if data_set.classes and names != data_set.classes and (names or name == "shapes"):  # often there are none
        raise UserError(f"--{flag}: {files[0].parent} does not hold {name}, by its {data_set.format.names}; name "
                        "another folder or another --dataset_name")
    return files

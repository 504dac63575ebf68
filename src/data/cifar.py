"""The CIFAR binary layouts: finding, reading, checking and writing their files.

A record has one or two label bytes and 3,072 pixel bytes (red, green and blue planes of 32 x 32), see
https://www.cs.toronto.edu/~kriz/cifar.html. The data set `shapes` has the layout of CIFAR-10.
"""
from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple

import numpy as np

from src.common.errors import UserError
from src.common.files import written_whole
from src.common.logs import logger
from src.data.download import Archive
from src.data.formats import DataSet
from src.data.images import Images, channels_first, channels_last, read_bytes

SIDE = 32
PLANES = 3 * SIDE * SIDE
NAMES = "batches.meta.txt"


class Cifar(NamedTuple):
    """The files of CIFAR-10 or CIFAR-100: a ``Format``.

    Args:
        expected: what a user has to give.
        folders: where the files may lie below the given folder.
        patterns: the file names of every split.
        train_files: how many files the split train has.
        names_file: the file with the class names.
        label_bytes: of a record; the last one is the class.
        class_num: how many classes there are.
    """

    expected: str
    folders: Tuple[str, ...]
    patterns: Dict[str, str]
    train_files: int
    names_file: str
    label_bytes: int
    class_num: int

    def find(self, folder: Path, split: str) -> List[Path]:
        matches = (sorted((folder / name).glob(self.patterns[split])) for name in self.folders)
        return next(filter(None, matches), [])

    def read(self, places: List[Path], side: int) -> Images:
        """Read every record of ``places``, in order.

        Raises a UserError where a file is truncated, empty or unreadable, or has a label that is no class.
        """
        if len(places) < self.train_files and places[0].match(self.patterns["train"]):
            logger.warning("warning: %s has %d of %d training files; copy the others there, or go on with fewer images",
                           places[0].parent, len(places), self.train_files)
        records = np.concatenate([self._read_records(file) for file in places])
        planes = records[:, self.label_bytes:].reshape(-1, 3, side, side)
        return Images(np.ascontiguousarray(channels_last(planes)), records[:, self.label_bytes - 1].astype(np.int32))

    def _read_records(self, file: Path) -> np.ndarray:
        data, record = read_bytes(file), self.label_bytes + PLANES
        if data.size == 0 or data.size % record:
            raise UserError(f"{file}: {data.size} bytes are not a whole number of {record}-byte records; the file is "
                            "truncated or of another kind, so copy or download it again")
        records = data.reshape(-1, record)
        labels = records[:, self.label_bytes - 1]
        wrong = np.flatnonzero(labels >= self.class_num)
        if wrong.size:
            raise UserError(f"{file}: record {wrong[0]} has the label {labels[wrong[0]]}, expected 0 to "
                            f"{self.class_num - 1}; the file is damaged or of another data set, so copy or download "
                            "it again")
        return records


def write_file(file: Path, images: Images) -> None:
    """Write ``images`` as one file of CIFAR-10 records, whole or not at all."""
    planes = channels_first(images.pixels).reshape(len(images.pixels), -1)
    records = np.concatenate([images.labels.astype(np.uint8)[:, None], planes], axis=1)
    with written_whole(file) as temporary:
        temporary.write_bytes(records.tobytes())


CIFAR10_FILES = Cifar(
    expected="the CIFAR-10 binary version (data_batch_1.bin to data_batch_5.bin, test_batch.bin), or its parent",
    folders=(".", "cifar-10-batches-bin", "cifar-10-verify-bin"),  # the official folder, and the model zoo's for tests
    patterns={"train": "data_batch_[1-5].bin", "test": "test_batch.bin"},
    train_files=5, names_file=NAMES, label_bytes=1, class_num=10)
CIFAR100_FILES = Cifar(
    expected="the CIFAR-100 binary version (train.bin, test.bin), or its parent",
    folders=(".", "cifar-100-binary"),
    patterns={"train": "train.bin", "test": "test.bin"},
    train_files=1, names_file="fine_label_names.txt", label_bytes=2, class_num=100)  # coarse label, then fine label

CIFAR10 = DataSet(
    CIFAR10_FILES, ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    SIDE, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616),
    Archive("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530",
            "cifar-10-batches-bin"))

_NAMES_OF_100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm"""
CIFAR100 = DataSet(
    CIFAR100_FILES, tuple(_NAMES_OF_100.split()), SIDE, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762),
    Archive("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8",
            "cifar-100-binary"))

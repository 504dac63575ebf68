"""The CIFAR binary layouts: finding, reading, checking and writing their files.

A record is its label bytes and 3,072 pixel bytes (red, green and blue planes of 32 x 32), see
https://www.cs.toronto.edu/~kriz/cifar.html. `shapes` is written in the layout of CIFAR-10.
"""
from itertools import combinations
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from src.common.errors import UserError
from src.common.files import written_whole
from src.common.logs import logger
from src.data.download import Archive
from src.data.formats import DataSet, names_in, read_bytes
from src.data.images import Images, channels_first, channels_last

SIDE = 32
PLANES = 3 * SIDE * SIDE
NAMES = "batches.meta.txt"


class Cifar(NamedTuple):
    """The files of CIFAR-10 or CIFAR-100: a ``Format``.

    Args:
        title: the name of the data set.
        expected: what a user has to give.
        folders: where the files may lie in the folder that is given.
        patterns: the file names of every split.
        train_files: how many there are of the split train.
        names: the file with the class names.
        label_bytes: of a record; the last one is the class.
        class_num: how many classes there are.
    """

    title: str
    expected: str
    folders: Tuple[str, ...]
    patterns: Dict[str, str]
    train_files: int
    names: str
    label_bytes: int
    class_num: int

    def find(self, folder: Path, split: str) -> List[Path]:
        for name in self.folders:
            files = sorted((folder / name).glob(self.patterns[split]))
            if files:
                return files
        return []

    def why_nothing(self, folder: Path, split: str) -> str:
        missing = f"no {split} files ({self.patterns[split]}) in {folder}"
        stems = {pattern[:-len(".bin")] for pattern in self.patterns.values()}
        there = {file.name for name in self.folders for stem in stems
                 for pattern in (stem, f"{stem}.bin") for file in (folder / name).glob(pattern) if file.is_file()}
        if any(not name.endswith(".bin") for name in there):
            return f"{missing}: it holds the Python version of {self.title}, and the binary version is needed"
        if there:
            return f"{missing}: it holds {', '.join(sorted(there))} only"
        return missing

    def class_names(self, places: List[Path]) -> Optional[Tuple[str, ...]]:
        return names_in(places[0].parent / self.names)

    def read(self, places: List[Path], side: int) -> Images:
        """Read every record of ``places``, in order.

        Raises:
            UserError: a file is truncated, empty, unreadable, or has a label that is no class.
        """
        if len(places) < self.train_files and places[0].match(self.patterns["train"]):
            logger.warning("warning: %s has %d of %s's %d training files; copy the others there, or go on with "
                           "fewer images", places[0].parent, len(places), self.title, self.train_files)
        parts = [self._read_records(file) for file in places]
        for one, other in combinations(range(len(parts)), 2):
            if parts[one].data == parts[other].data:  # ends at the first difference, unlike np.array_equal
                raise UserError(f"{places[one]}: has the same images as {places[other].name}, and they would "
                                "count twice; remove one of the two")
        records = np.concatenate(parts)
        planes = records[:, self.label_bytes:].reshape(-1, 3, side, side)
        return Images(np.ascontiguousarray(channels_last(planes)), records[:, self.label_bytes - 1].astype(np.int32))

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


def write_file(file: Path, images: Images) -> None:
    """Write ``images`` as one file of CIFAR-10 records, whole or not at all."""
    planes = channels_first(images.pixels).reshape(len(images.pixels), -1)
    records = np.concatenate([images.labels.astype(np.uint8)[:, None], planes], axis=1)
    with written_whole(file) as temporary:
        temporary.write_bytes(records.tobytes())


CIFAR10_FILES = Cifar("CIFAR-10", "the CIFAR-10 binary files, or the parent of both folders",
                      (".", "cifar-10-batches-bin", "cifar-10-verify-bin"),
                      {"train": "data_batch_*.bin", "test": "test_batch.bin"}, train_files=5, names=NAMES,
                      label_bytes=1, class_num=10)
CIFAR100_FILES = Cifar("CIFAR-100", "the CIFAR-100 binary files (train.bin, test.bin), or its parent",
                       (".", "cifar-100-binary"), {"train": "train.bin", "test": "test.bin"}, train_files=1,
                       names="fine_label_names.txt", label_bytes=2, class_num=100)  # label bytes: coarse, then fine

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

"""What the project knows of a data set, and what reads its files; src/dataset.py has them all by name."""
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Protocol, Tuple

import numpy as np

from src.common.errors import UserError
from src.common.files import reading, to_read
from src.data.download import Archive
from src.data.images import Images


class Format(Protocol):
    """A way to lay images out on a disk: finds them, says what is wrong, reads them.

    The places of a split are the files, or the folders of classes, that hold it. They are told by their names alone,
    so test images never get into training, whatever folder is given.
    """

    @property
    def expected(self) -> str:
        """What a user has to give, to go on after "the folder with"."""

    @property
    def names(self) -> str:
        """Where the names of the classes stand."""

    def find(self, folder: Path, split: str) -> List[Path]:
        """Return the places of ``split`` in ``folder`` or in one of its known subfolders, in order; all or none."""

    def why_nothing(self, folder: Path, split: str) -> str:
        """Say in a few words why ``find`` finds nothing in ``folder``, which is there."""

    def class_names(self, places: List[Path]) -> Optional[Tuple[str, ...]]:
        """Return the names of the classes by what lies at or beside ``places``; None if nothing tells."""

    def read(self, places: List[Path], side: int) -> Images:
        """Read the images of ``places``, in order.

        Args:
            places: what ``find`` has found.
            side: of the images in pixels, one that the data set has (``dataset.check_side``).

        Raises:
            UserError: a file is damaged, empty or cannot be read.
        """


KEPT = 0.875  # of the shorter edge, in the middle: what an image of any size is evaluated on, as usual


def shorter_edge_for(side: int) -> int:
    """Return what the shorter edge of an image is brought to before its middle of ``side`` pixels is cut out."""
    return round(side / KEPT)


class DataSet(NamedTuple):
    """What the project knows of a data set.

    Args:
        format: what finds and reads its files.
        classes: their names; none where those of folders on disk are taken.
        side: of its images in pixels; the default one where ``resizable``.
        mean, std: per channel, of pixels in [0, 1].
        archive: where it can be fetched.
        generate: writes its files into a folder, where they can be computed.
        resizable: whether its images can be read at any side.
        has_unlabelled: whether there are images for pretraining besides those of the split train.
    """

    format: Format
    classes: Tuple[str, ...]
    side: int
    mean: Tuple[float, float, float]
    std: Tuple[float, float, float]
    archive: Optional[Archive] = None
    generate: Optional[Callable[[Path], None]] = None
    resizable: bool = False
    has_unlabelled: bool = False

    def shorter_edge(self, side: int) -> int:
        """Return the same for an image that is to look like those of this data set, which may all have that side."""
        return shorter_edge_for(side) if self.resizable else side


def read_bytes(file: Path) -> np.ndarray:
    """Return the bytes of ``file``, uint8.

    Raises:
        UserError: it cannot be read, is no file, or is larger than the memory.
    """
    with to_read(file) as stream:
        try:
            return np.fromfile(stream, np.uint8)
        except MemoryError:
            raise UserError(f"{file}: is larger than the memory of this machine; copy or download it again, or take a "
                            "larger machine") from None


def names_in(file: Path) -> Optional[Tuple[str, ...]]:
    """Return the class names in ``file``, as in the official archives; None if it is not there.

    Raises:
        UserError: it cannot be read.
    """
    with reading(file):
        return tuple(file.read_text(encoding="utf-8", errors="replace").split()) if file.is_file() else None

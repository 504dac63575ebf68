"""What a data set is, and what a reader of its files has to offer; src/dataset.py lists all data sets by name."""
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Protocol, Tuple

from src.data.download import Archive
from src.data.images import Images

KEPT = 0.875  # share of the shorter edge that evaluation keeps, in the middle, as is usual for ImageNet


class Format(Protocol):
    """A way to lay images out on disk.

    The places of a split are files, or the folders of its classes. A split is recognised by its names alone, so that
    test images never get into training, whatever folder the user gives.
    """

    @property
    def expected(self) -> str:
        """The files that a user has to give, to follow "give the folder with"."""

    @property
    def names_file(self) -> Optional[str]:
        """The file with the names of the classes, which may lie beside the places."""

    def find(self, folder: Path, split: str) -> List[Path]:
        """Return the places of ``split`` in ``folder`` or in a known subfolder of it; none if there is no such split.

        A format decides whether a part is enough: for CIFAR it is, with a warning of ``read``.
        """

    def read(self, places: List[Path], side: int) -> Images:
        """Read the images of ``places``, in this order, ``side`` pixels wide.

        Raises a UserError where a file is damaged, empty or cannot be read.
        """


class DataSet(NamedTuple):
    """A data set.

    Args:
        format: finds and reads its files.
        classes: their names; empty if the folders on disk name them.
        side: of its images in pixels; for a ``resizable`` data set the default.
        mean, std: per channel, of pixels in [0, 1].
        archive: where it can be downloaded.
        generate: writes its files into a folder, if they can be computed.
        resizable: whether its images can be read at any side.
        has_unlabelled: whether it has images for pretraining besides the split train.
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
        """Return the length to which any image's shorter edge is resized before its middle of ``side`` pixels is cut.

        Images of a data set with a fixed side show the whole object, so their margin is kept.
        """
        return shorter_edge_for(side) if self.resizable else side


def shorter_edge_for(side: int) -> int:
    """Return the length of the shorter edge of which ``side`` pixels are the share ``KEPT``."""
    return round(side / KEPT)

"""Which files are images, and how large they may be: for folders of a data set, and for what predict.py is given."""
import os
from pathlib import Path
from typing import List, NoReturn

from PIL import Image

from src.common.errors import UserError
from src.common.files import reading
from src.common.logs import logger

FORMATS = ("JPEG", "PNG")
SUFFIXES = (".jpg", ".jpeg", ".png")
MOST_PIXELS = 100_000_000  # of one image: 300 MB when it is decoded
Image.MAX_IMAGE_PIXELS = MOST_PIXELS  # Pillow warns above this number, and refuses images of twice as many


def too_large(file: Path) -> UserError:
    """Return the error of an image that would take too much memory."""
    return UserError(f"{file}: has more than {MOST_PIXELS // 10**6} million pixels; make it smaller, or leave it out")


def images_below(folder: Path) -> List[Path]:
    """Return the images in ``folder`` and its subfolders, in the order of their names.

    A warning counts files with other suffixes. Names that begin with a dot are skipped without one. Raises a UserError
    where a folder cannot be read.
    """
    visited, images, others = set(), [], []
    with reading(folder):
        for place, folders, names in os.walk(folder, onerror=_fail, followlinks=True):
            about = os.stat(place)
            if (about.st_dev, about.st_ino) in visited:  # links may lead in a circle
                folders.clear()
                continue
            visited.add((about.st_dev, about.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(name for name in names if not name.startswith(".")):
                (images if name.lower().endswith(SUFFIXES) else others).append(Path(place, name))
    if images and others:
        logger.warning("warning: %s has %d files that are not %s and are left out, such as %s; convert them if they "
                       "are images", folder, len(others), ", ".join(SUFFIXES), others[0].name)
    return images


def _fail(error: OSError) -> NoReturn:
    raise error  # os.walk would skip the folder

"""Images of any kind that people have, brought to the side that a network takes: what predict.py reads.

Training reads the images of its data set by MindSpore, quickly; here they are read by Pillow alone, one at a time, and
whatever a camera, a scanner or a drawing program writes is understood. The pixels are the same, but for rounding.
"""
import os
from pathlib import Path
from typing import List, NoReturn

import numpy as np
from PIL import Image

from src.common.errors import UserError
from src.common.files import reading, reason_of, to_read
from src.common.logs import logger

FORMATS = ("JPEG", "PNG")
SUFFIXES = (".jpg", ".jpeg", ".png")
MOST_PIXELS = 100_000_000  # of an image: 300 MB when it is decoded
Image.MAX_IMAGE_PIXELS = MOST_PIXELS  # above which Pillow itself warns, and stops at twice as many
ORIENTATION = 0x0112  # the EXIF tag, and what sets an image upright
UPRIGHT = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
           5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
           8: Image.Transpose.ROTATE_90}
PAPER = "white"  # behind what is transparent


def read_image(file: Path, shorter_edge: int, side: int) -> np.ndarray:
    """Return the middle of an image, uint8 (side, side, 3).

    An image that lies on its side by its EXIF data is set upright; what is transparent is laid on white. Its shorter
    edge is brought to ``shorter_edge`` by linear interpolation between neighbouring pixels, as MindSpore's
    ``vision.Resize`` does it, also where it is made smaller.

    Raises:
        UserError: it cannot be read, is no JPEG or PNG image, is damaged, or has more than ``MOST_PIXELS``.
    """
    with to_read(file) as stream:
        try:
            image = Image.open(stream, formats=FORMATS)
        except Image.DecompressionBombError:
            raise too_large(file) from None
        except Exception:  # of damaged files Pillow raises all kinds
            raise UserError(f"{file}: is no JPEG or PNG image; convert it, or leave it out") from None
        if image.width * image.height > MOST_PIXELS:
            raise too_large(file)
        try:
            image.load()
            turn = UPRIGHT.get(_orientation(image))
            upright = in_colour(image if turn is None else image.transpose(turn))
        except Exception as error:
            raise UserError(f"{file}: cannot be decoded ({reason_of(error)}); the file is truncated or damaged, so "
                            "copy it again or leave it out") from None
    return np.asarray(_middle(upright, shorter_edge, side))


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # the picture is whole, whatever else is in the file
        return 1


def too_large(file: Path) -> UserError:
    """Return the error of an image that would take too much memory."""
    return UserError(f"{file}: has more than {MOST_PIXELS // 10**6} million pixels; make it smaller, or leave it out")


def in_colour(image: Image.Image) -> Image.Image:
    """Return an image of any mode in red, green and blue of 8 bits."""
    if image.mode.startswith(("I", "F")):  # 16 bits of grey, which Pillow would cut off at 255
        grey = np.asarray(image, np.float64) / 257
        return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, PAPER)
        return Image.alpha_composite(paper, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _middle(image: Image.Image, shorter_edge: int, side: int) -> Image.Image:
    width, height = image.size
    shorter = min(width, height)
    if width == height == shorter_edge == side:
        return image
    new = shorter_edge * width // shorter, shorter_edge * height // shorter
    across, down = width / new[0], height / new[1]
    left, top = ((edge - side) // 2 for edge in new)
    # Pillow's resize would smooth what it makes smaller, which the network has not seen. And of a long thin image only
    # the middle is ever made.
    return image.transform((side, side), Image.Transform.AFFINE, (across, 0, left * across, 0, down, top * down),
                           Image.Resampling.BILINEAR)


def images_below(folder: Path) -> List[Path]:
    """Return the images in ``folder`` and below it, by their names, in order; others are left out with a warning.

    Links are followed, but into no folder twice. Names that begin with a dot are left out without a word.

    Raises:
        UserError: a folder cannot be read.
    """
    seen, images, others = set(), [], []
    with reading(folder):
        for place, folders, names in os.walk(folder, onerror=_fail, followlinks=True):
            about = os.stat(place)
            if (about.st_dev, about.st_ino) in seen:
                folders.clear()
                continue
            seen.add((about.st_dev, about.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(name for name in names if not name.startswith(".")):
                (images if name.lower().endswith(SUFFIXES) else others).append(Path(place, name))
    if images and others:
        logger.warning("warning: %s has %d files that are no %s and are left out, such as %s; convert them if they are "
                       "images", folder, len(others), ", ".join(SUFFIXES), others[0].name)
    return images


def _fail(error: OSError) -> NoReturn:
    raise error

"""Reading one image of any kind, as predict.py does, and bringing it to the side that a network takes.

Training reads the images of a data set with MindSpore, which is faster. Here Pillow reads them, one at a time: whatever
a camera, a scanner or a drawing program writes. The pixels are the same except for rounding.
"""
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from src.common.errors import UserError
from src.common.files import reason_of, to_read
from src.data.image_listing import FORMATS, MOST_PIXELS, too_large

PAPER = "white"  # behind transparent pixels


def read_image(file: Path, shorter_edge: int, side: int) -> np.ndarray:
    """Return the middle of an image, uint8 (side, side, 3).

    An image is set upright by its EXIF data; transparent pixels are laid on white. The shorter edge is resized to
    ``shorter_edge`` by linear interpolation between neighbouring pixels, as MindSpore's ``vision.Resize`` does, also if
    that makes the image smaller. Raises a UserError where it cannot be read, is not a JPEG or PNG image, is damaged, or
    has more than ``MOST_PIXELS``.
    """
    with to_read(file) as stream:
        try:
            image = Image.open(stream, formats=FORMATS)
        except Image.DecompressionBombError:
            raise too_large(file) from None
        except Exception:  # for damaged files Pillow raises errors of all kinds
            raise UserError(f"{file}: is not a JPEG or PNG image; convert it, or leave it out") from None
        if image.width * image.height > MOST_PIXELS:
            raise too_large(file)
        try:
            image.load()
            with suppress(Exception):  # of damaged EXIF data: the picture may be whole
                ImageOps.exif_transpose(image, in_place=True)
            upright = in_colour(image)
        except Exception as error:
            raise UserError(f"{file}: cannot be decoded ({reason_of(error)}); the file is truncated or damaged, so "
                            "copy it again or leave it out") from None
    return np.asarray(_middle(upright, shorter_edge, side))


def in_colour(image: Image.Image) -> Image.Image:
    """Return an image of any mode in red, green and blue with 8 bits each."""
    if image.mode.startswith(("I", "F")):  # 16 bits of grey, which Pillow's `convert` would clip at 255
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
    # Pillow's resize would smooth an image that it makes smaller, as the network's training images were not. And a
    # long thin image would be resized as a whole, of which only the middle is needed.
    return image.transform((side, side), Image.Transform.AFFINE, (across, 0, left * across, 0, down, top * down),
                           Image.Resampling.BILINEAR)

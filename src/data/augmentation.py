"""The random operations that make a view of an image: MindSpore's, in C++."""
from typing import List

from mindspore.dataset import transforms, vision

from src.settings.augmentation import Augmentation

JITTER_PROBABILITY = 0.8
# The paper draws the deviation from [0.1, 2], and MindSpore's blur takes a given one: these are the middles of as
# many equal parts of that range, one of which is chosen for every view.
BLUR_SIGMAS = tuple(0.1 + 1.9 * (part + 0.5) / 64 for part in range(64))


def operations(augmentation: Augmentation, side: int, encoded: bool = False) -> List:
    """Return the operations for views of ``side`` pixels, uint8 HWC in and out.

    Where the images are ``encoded``, what goes in is the bytes of a JPEG or PNG file.
    """
    s = augmentation.jitter_strength
    to_gray = vision.ConvertColor(vision.ConvertMode.COLOR_RGB2GRAY)
    to_rgb = vision.ConvertColor(vision.ConvertMode.COLOR_GRAY2RGB)
    choices = [
        (vision.HorizontalFlip(), augmentation.flip_probability),
        (vision.RandomColorAdjust(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s), JITTER_PROBABILITY if s else 0),
        (transforms.Compose([to_gray, to_rgb]), augmentation.grayscale_probability)]
    if augmentation.blur_probability:
        kernel = max(3, side // 10 | 1)
        blurs = [vision.GaussianBlur(kernel, sigma) for sigma in BLUR_SIGMAS]
        choices.append((transforms.RandomChoice(blurs), augmentation.blur_probability))
    crop = vision.RandomCropDecodeResize if encoded else vision.RandomResizedCrop
    chosen = [(operation, probability) for operation, probability in choices if probability]
    # One operation that draws for all. On their own, seeded operations that draw once per image all draw
    # the same number: every view without colour would be a flipped one.
    return [crop(side, scale=(augmentation.crop_min_scale, 1.0)),
            *([vision.RandomSelectSubpolicy([chosen])] if chosen else [])]

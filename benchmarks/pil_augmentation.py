"""The augmentation of ``src/`` with PIL in Python: the other side of input_pipeline.py."""
from typing import List

import numpy as np
from mindspore.dataset import transforms, vision

from src.data.views import JITTER_PROBABILITY
from src.settings.augmentation import Augmentation


class PilAugmentation(Augmentation):
    """The same random transformations of an image in memory, but for the blur, which is off by default there.

    MindSpore runs an operation in Python where the one before it in the ``map`` does and there is a
    choice (``Dataset.map``), so ``ToPIL`` in front takes all of them out of C++.
    """

    def operations(self, side: int) -> List:
        """Return the operations for views of ``side`` pixels, uint8 HWC in and out."""
        s = self.jitter_strength
        return [
            vision.ToPIL(),
            vision.RandomResizedCrop(side, scale=(self.crop_min_scale, 1.0)),
            vision.RandomHorizontalFlip(self.flip_probability),
            transforms.RandomApply([vision.RandomColorAdjust(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s)], JITTER_PROBABILITY),
            vision.RandomGrayscale(self.grayscale_probability),
            np.array,
        ]

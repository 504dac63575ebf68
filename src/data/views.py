"""Images -> batches of several random views each, or of one view and its label.

The augmentation is that of the paper (appendices A and B.9) and runs in MindSpore's C++ operations. Two traps
shape this file. Two seeded ``map`` calls draw the same random numbers, so they would make two equal
views; here the image goes through one ``map`` several times in a row. And a seeded pipeline that is iterated
again repeats its epoch; here every epoch is a pipeline of its own, seeded with (seed, epoch, rank), which
is also what lets a resumed run see the same views as one that was never interrupted.
"""
import itertools
from typing import Any, Iterator, List, Optional, Tuple

import mindspore.dataset as ds
import numpy as np
from mindspore.dataset import transforms, vision

from src.common.errors import UserError
from src.data.image_files import ImageFiles
from src.data.images import PixelSource, channels_first
from src.data.rows import Rows
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


class Views:
    """Several ``views`` of every image, new ones in every epoch.

    An epoch yields uint8 (views * batch_size, 3, side, side): the first views of a batch, then the second
    views in the same order, and so on. The order of the images is new in every epoch and common to all ranks, and every
    step takes the next ``world_size * batch_size`` of them, each rank its own. Images that do not fill
    such a global batch are left out of that epoch. ``rows`` are the numbers of the images that take part, by
    default all.

    An image that cannot be read or decoded ends an epoch with a UserError. It is kept in ``error`` too, for
    MindSpore makes another of every error in a data set.
    """

    columns = ["views"]

    def __init__(self, pixels: PixelSource, batch_size: int, augmentation: Augmentation, seed: int, workers: int,
                 rank: int = 0, world_size: int = 1, rows: Optional[np.ndarray] = None, views: int = 2):
        self.pixels = pixels
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.seed = seed
        self.workers = workers
        self.rank = rank
        self.world_size = world_size
        self.views = views
        self.error: Optional[UserError] = None
        self.rows = np.arange(len(pixels)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows) // (self.batch_size * self.world_size)

    def order_of(self, epoch: int) -> np.ndarray:
        """Return the row numbers (len(self) * batch_size,) of this rank's images in an epoch, in their order."""
        order = self.rows[np.random.default_rng((self.seed, epoch)).permutation(len(self.rows))]
        return order[self.rank::self.world_size][:len(self) * self.batch_size]

    def of_epoch(self, epoch: int) -> Iterator[Tuple[np.ndarray, ...]]:
        """Yield the batches of one epoch; the same epoch gives the same batches."""
        side, count = self.pixels.shape[1], self.views
        files = self.pixels if isinstance(self.pixels, ImageFiles) else None
        ds.config.set_seed(int(np.random.SeedSequence((self.seed, epoch, self.rank)).generate_state(1)[0]))
        source = Rows(files.encoded if files else self.pixels.__getitem__, self.order_of(epoch), count)
        rows = ds.GeneratorDataset(source, ["view"], shuffle=False, num_parallel_workers=1)
        rows = rows.map(operations(self.augmentation, side, encoded=files is not None), ["view"],
                        num_parallel_workers=self.workers)
        batches = rows.batch(count * self.batch_size, drop_remainder=True, num_parallel_workers=1)
        try:
            for (batch,) in batches.create_tuple_iterator(num_epochs=1, output_numpy=True):
                by_view = batch.reshape(self.batch_size, count, side, side, 3).swapaxes(0, 1)
                yield (channels_first(by_view).reshape(-1, 3, side, side),)
        except RuntimeError:  # MindSpore does not say which file it could not decode
            if files:
                self._find_damage(files, source)
            raise

    def _find_damage(self, files: ImageFiles, source: Rows) -> None:
        try:
            files.find_damage(source.under_way(self.workers))
        except UserError as error:
            self.error = error
            raise


class LabelledViews(Views):
    """One view of every image, with its label, for training with labels; the rest is as for ``Views``.

    An epoch yields uint8 (batch_size, 3, side, side) and int32 (batch_size,). ``labels`` (N,) are those of ``pixels``.
    """

    columns = ["images", "labels"]

    def __init__(self, pixels: PixelSource, labels: np.ndarray, **settings: Any):
        super().__init__(pixels, **settings, views=1)
        self.labels = labels

    def of_epoch(self, epoch: int) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
        labels = self.labels[self.order_of(epoch)].astype(np.int32).reshape(len(self), self.batch_size)
        for (images,), of_images in zip(super().of_epoch(epoch), labels):
            yield images, of_images


class _Epochs:
    """``views`` as MindSpore iterates them: once an epoch, and before training to look at them.

    Until ``begin`` every iteration is the first epoch of training, after it the next one.
    """

    def __init__(self, views: Views, first_epoch: int):
        self.views = views
        self.first_epoch = first_epoch
        self.numbers: Iterator[int] = itertools.repeat(first_epoch)

    def begin(self) -> None:
        self.numbers = itertools.count(self.first_epoch)

    def __len__(self) -> int:
        return len(self.views)

    def __iter__(self) -> Iterator[Tuple[np.ndarray, ...]]:
        return self.views.of_epoch(next(self.numbers))


def to_dataset(views: Views, first_epoch: int, sinking: bool) -> ds.Dataset:
    """Return ``views`` as a MindSpore data set whose epochs begin with ``first_epoch``.

    MindSpore iterates a source when the data set is made, and data ``sinking`` does so again for types and
    shapes, which the data set then remembers. All that is done here, before the epochs begin to count.
    """
    source = _Epochs(views, first_epoch)
    batches = ds.GeneratorDataset(source, views.columns, shuffle=False, num_parallel_workers=1)
    if sinking:
        batches.output_types()
        batches.output_shapes()
    source.begin()
    return batches

"""Images -> batches of two random views each.

The augmentation is that of the paper (appendices A and B.9) and runs in MindSpore's C++ operations. Two traps
shape this file. Two seeded ``map`` calls draw the same random numbers, so they would make two equal
views; here the image goes through one ``map`` twice in a row. And a seeded pipeline that is iterated
again repeats its epoch; here every epoch is a pipeline of its own, seeded with (seed, epoch, rank), which
is also what lets a resumed run see the same views as one that was never interrupted.
"""
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

import mindspore.dataset as ds
import numpy as np
from mindspore.dataset import transforms, vision

from src.common.errors import UserError
from src.data.image_folder import ImageFiles

JITTER_PROBABILITY = 0.8
IN_FLIGHT = 512  # images: more than there are between the source of a pipeline and its operations
# The paper draws the deviation from [0.1, 2], and MindSpore's blur takes a given one: these are the middles of as
# many equal parts of that range, one of which is chosen for every view.
BLUR_SIGMAS = tuple(0.1 + 1.9 * (part + 0.5) / 64 for part in range(64))


class Augmentation(NamedTuple):
    """The random transformations of a view; 0 switches one off."""

    crop_min_scale: float = 0.08
    flip_probability: float = 0.5
    jitter_strength: float = 0.5
    grayscale_probability: float = 0.2
    blur_probability: float = 0.0

    def operations(self, side: int, encoded: bool = False) -> List:
        """Return the operations for views of ``side`` pixels, uint8 HWC in and out.

        Where the images are ``encoded``, what goes in is the bytes of a JPEG or PNG file.
        """
        s = self.jitter_strength
        to_gray = vision.ConvertColor(vision.ConvertMode.COLOR_RGB2GRAY)
        to_rgb = vision.ConvertColor(vision.ConvertMode.COLOR_GRAY2RGB)
        choices = [
            (vision.HorizontalFlip(), self.flip_probability),
            (vision.RandomColorAdjust(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s), JITTER_PROBABILITY if s else 0),
            (transforms.Compose([to_gray, to_rgb]), self.grayscale_probability)]
        if self.blur_probability:
            kernel = max(3, side // 10 | 1)
            blurs = [vision.GaussianBlur(kernel, sigma) for sigma in BLUR_SIGMAS]
            choices.append((transforms.RandomChoice(blurs), self.blur_probability))
        crop = vision.RandomCropDecodeResize if encoded else vision.RandomResizedCrop
        operations = [crop(side, scale=(self.crop_min_scale, 1.0))]
        chosen = [(operation, probability) for operation, probability in choices if probability]
        # One operation that draws for all. On their own, seeded operations that draw once per image all draw
        # the same number: every view without colour would be a flipped one.
        return operations + ([vision.RandomSelectSubpolicy([chosen])] if chosen else [])


# What the paper has for CIFAR-10, and for larger images: the flags that are not given take these.
PAPER_SMALL = Augmentation()
PAPER_LARGE = Augmentation(jitter_strength=1.0, blur_probability=0.5)


class _Rows:
    """Every image of ``order`` as many times in a row as it has views: with two, rows 2i and 2i + 1 are the same."""

    def __init__(self, pixels: Any, order: np.ndarray, views: int):
        self.pixels = pixels
        self.order = order.tolist()
        self.views = views
        self.reached = 0  # images that were asked for

    def __len__(self) -> int:
        return self.views * len(self.order)

    def __getitem__(self, row: int) -> Tuple[np.ndarray]:
        self.reached = row // self.views + 1
        return (np.ascontiguousarray(self.pixels[self.order[self.reached - 1]]),)


class Views:
    """The views of every epoch, each time it is iterated the next one.

    Yields uint8 (2 * batch_size, 3, side, side): the first views of a batch, then the second views
    in the same order. The order of the images is new in every epoch and common to all ranks, and every
    step takes the next ``world_size * batch_size`` of them, each rank its own. Images that do not fill
    such a global batch are left out of that epoch. ``pixels`` is as in ``Images``; ``rows`` are the numbers of the
    images that take part, by default all.

    An image that cannot be read or decoded ends an epoch with a UserError. It is kept in ``error`` too, for
    MindSpore makes another of every error in a data set.
    """

    columns = ["views"]
    views_per_image = 2

    def __init__(self, pixels: Any, batch_size: int, augmentation: Augmentation, seed: int,
                 workers: int, first_epoch: int = 0, rank: int = 0, world_size: int = 1,
                 rows: Optional[np.ndarray] = None):
        self.pixels = pixels
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.seed = seed
        self.workers = workers
        self.next_epoch = first_epoch
        self.rank = rank
        self.world_size = world_size
        self.error: Optional[UserError] = None
        self.rows = np.arange(len(pixels)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows) // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[Tuple[np.ndarray, ...]]:
        epoch = self.next_epoch
        self.next_epoch += 1
        return self.of_epoch(epoch)

    def order_of(self, epoch: int) -> np.ndarray:
        """Return the row numbers (len(self) * batch_size,) of this rank's images in an epoch, in their order."""
        order = self.rows[np.random.default_rng((self.seed, epoch)).permutation(len(self.rows))]
        return order[self.rank::self.world_size][:len(self) * self.batch_size]

    def of_epoch(self, epoch: int) -> Iterator[Tuple[np.ndarray, ...]]:
        """Yield the batches of one epoch; the same epoch gives the same batches."""
        order, side, count = self.order_of(epoch), self.pixels.shape[1], self.views_per_image
        ds.config.set_seed(int(np.random.SeedSequence((self.seed, epoch, self.rank)).generate_state(1)[0]))
        source = _Rows(self.pixels, order, count)
        rows = ds.GeneratorDataset(source, ["view"], shuffle=False, num_parallel_workers=1)
        encoded = isinstance(self.pixels, ImageFiles)
        rows = rows.map(self.augmentation.operations(side, encoded), ["view"], num_parallel_workers=self.workers)
        batches = rows.batch(count * self.batch_size, drop_remainder=True, num_parallel_workers=1)
        try:
            for (batch,) in batches.create_tuple_iterator(num_epochs=1, output_numpy=True):
                by_image = batch.reshape(self.batch_size, count, side, side, 3)
                yield (np.ascontiguousarray(by_image.transpose(1, 0, 4, 2, 3)).reshape(-1, 3, side, side),)
        except RuntimeError:  # MindSpore does not say which file it could not decode
            if encoded:
                self._find_damage(order[:source.reached][-IN_FLIGHT:])
            raise

    def _find_damage(self, rows: np.ndarray) -> None:
        try:
            self.pixels.find_damage(rows)
        except UserError as error:
            self.error = error
            raise


class LabelledViews(Views):
    """One view of every image, with its label, for training with labels; the rest is as for ``Views``.

    Yields uint8 (batch_size, 3, side, side) and int32 (batch_size,). ``labels`` (N,) are those of ``pixels``.
    """

    columns = ["images", "labels"]
    views_per_image = 1

    def __init__(self, pixels: Any, labels: np.ndarray, **settings: Any):
        super().__init__(pixels, **settings)
        self.labels = labels

    def of_epoch(self, epoch: int) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
        labels = self.labels[self.order_of(epoch)].astype(np.int32).reshape(len(self), self.batch_size)
        for (images,), of_images in zip(super().of_epoch(epoch), labels):
            yield images, of_images


def to_dataset(views: Views, sinking: bool) -> ds.Dataset:
    """Return ``views`` as a MindSpore data set.

    MindSpore iterates the views when the data set is made, and data ``sinking`` does so again for
    their types and shapes. All that is done here, where the epochs that it takes up are given back.
    """
    first_epoch = views.next_epoch
    batches = ds.GeneratorDataset(views, views.columns, shuffle=False, num_parallel_workers=1)
    if sinking:
        batches.output_types()
        batches.output_shapes()
    views.next_epoch = first_epoch
    return batches

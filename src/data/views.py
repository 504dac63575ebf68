"""Images -> batches of several random views of each image, or of one view and its label.

The augmentation is the paper's (appendices A and B.9) and runs in MindSpore's C++ operations. Two traps shape this:

- Two seeded ``map`` calls draw the same random numbers, and would make two equal views. So one ``map`` gets every image
  several times in a row.
- A seeded pipeline that is iterated again repeats its epoch. So every epoch is a new pipeline, seeded with
  (seed, epoch, rank). This also gives a resumed run the views of an uninterrupted one.
"""
import itertools
from contextlib import nullcontext
from typing import Any, Iterator, List, Optional, Tuple

import mindspore.dataset as ds
import numpy as np
from mindspore.dataset import transforms, vision
from PIL import Image

from src.common.errors import UserError
from src.data.image_files import ImageFiles, Rows
from src.data.images import PixelSource, channels_first
from src.settings.augmentation import Augmentation

JITTER_PROBABILITY = 0.8
# The paper draws sigma evenly from [0.1, 2], but a blur of MindSpore has one sigma. So a view gets one of 64 blurs,
# with the middles of 64 equal parts of that range.
BLUR_SIGMAS = tuple(0.1 + 1.9 * (part + 0.5) / 64 for part in range(64))

SHEET_IMAGES, SHEET_VIEWS = 8, 8  # rows of a sheet, and views in each
SHEET_SIDE = 64                   # largest side of a view on a sheet, in pixels
SHEET_GAP = 4                     # pixels between an image and its views


def operations(augmentation: Augmentation, side: int, encoded: bool = False) -> List:
    """Return the operations that make a view of ``side`` pixels, uint8 (H, W, 3) in and out.

    ``encoded`` images come in as the bytes of a JPEG or PNG file.
    """
    s = augmentation.jitter_strength
    to_gray = vision.ConvertColor(vision.ConvertMode.COLOR_RGB2GRAY)
    to_rgb = vision.ConvertColor(vision.ConvertMode.COLOR_GRAY2RGB)
    choices = [
        (vision.HorizontalFlip(), augmentation.flip_probability),
        (vision.RandomColorAdjust(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s), JITTER_PROBABILITY if s else 0),
        (transforms.Compose([to_gray, to_rgb]), augmentation.grayscale_probability)]
    if augmentation.blur_probability:
        kernel = max(3, side // 10 | 1)  # the paper's tenth of the side, made odd
        blurs = [vision.GaussianBlur(kernel, sigma) for sigma in BLUR_SIGMAS]
        choices.append((transforms.RandomChoice(blurs), augmentation.blur_probability))
    crop = vision.RandomCropDecodeResize if encoded else vision.RandomResizedCrop
    chosen = [(operation, probability) for operation, probability in choices if probability]
    # One operation draws for all. Separate seeded operations would all draw the same number: every gray view would be
    # a flipped one.
    return [crop(side, scale=(augmentation.crop_min_scale, 1.0)),
            *([vision.RandomSelectSubpolicy([chosen])] if chosen else [])]


class Views:
    """``views_per_image`` random views of every image, new ones in every epoch.

    An epoch yields uint8 (views_per_image * batch_size, 3, side, side): the first views of a batch, then its second
    views in the same order, and so on. Every epoch has its own order of the images, the same on all ranks. Each step
    takes the next ``world_size * batch_size`` images, and each rank takes its share of them. The last images, which do
    not fill such a global batch, are left out of that epoch. ``rows`` are the numbers of the images that take part, by
    default all.

    An image that cannot be read or decoded ends the epoch with a UserError. ``error`` keeps it, because MindSpore turns
    every error in a data set into a RuntimeError.
    """

    columns = ["images"]

    def __init__(self, pixels: PixelSource, batch_size: int, augmentation: Augmentation, seed: int, workers: int,
                 rank: int = 0, world_size: int = 1, rows: Optional[np.ndarray] = None, views_per_image: int = 2):
        self.pixels = pixels
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.seed = seed
        self.workers = workers
        self.rank = rank
        self.world_size = world_size
        self.views_per_image = views_per_image
        self.error: Optional[UserError] = None
        self.rows = np.arange(len(pixels)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows) // (self.batch_size * self.world_size)

    def order_of(self, epoch: int) -> np.ndarray:
        """Return the row numbers (len(self) * batch_size,) of this rank's images in an epoch, in their order."""
        order = self.rows[np.random.default_rng((self.seed, epoch)).permutation(len(self.rows))]
        # Every world_size-th image, so that a step of all ranks takes consecutive ones.
        return order[self.rank::self.world_size][:len(self) * self.batch_size]

    def of_epoch(self, epoch: int) -> Iterator[Tuple[np.ndarray, ...]]:
        """Yield the batches of one epoch; the same epoch gives the same batches."""
        side, times = self.pixels.shape[1], self.views_per_image
        files = self.pixels if isinstance(self.pixels, ImageFiles) else None
        # MindSpore takes the seed from its global configuration when a pipeline is made.
        ds.config.set_seed(int(np.random.SeedSequence((self.seed, epoch, self.rank)).generate_state(1)[0]))
        source = Rows(files.encoded if files else self.pixels.__getitem__, self.order_of(epoch), times)
        views = ds.GeneratorDataset(source, ["view"], shuffle=False, num_parallel_workers=1)
        views = views.map(operations(self.augmentation, side, encoded=files is not None), ["view"],
                          num_parallel_workers=self.workers)
        batches = views.batch(times * self.batch_size, drop_remainder=True, num_parallel_workers=1)
        try:
            with files.naming_damage(source, self.workers) if files else nullcontext():
                for (batch,) in batches.create_tuple_iterator(num_epochs=1, output_numpy=True):
                    # The views of an image come in a row, but the loss wants the first views of all images first.
                    by_view = batch.reshape(self.batch_size, times, side, side, 3).swapaxes(0, 1)
                    yield (channels_first(by_view).reshape(-1, 3, side, side),)
        except UserError as error:
            self.error = error
            raise


class LabelledViews(Views):
    """One view of every image and its label, for training with labels.

    An epoch yields uint8 (batch_size, 3, side, side) and int32 (batch_size,). ``labels`` (N,) belong to ``pixels``.
    """

    columns = ["images", "labels"]

    def __init__(self, pixels: PixelSource, labels: np.ndarray, **settings: Any):
        super().__init__(pixels, **settings, views_per_image=1)
        self.labels = labels

    def of_epoch(self, epoch: int) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
        labels = self.labels[self.order_of(epoch)].astype(np.int32).reshape(len(self), self.batch_size)
        for (images,), batch_labels in zip(super().of_epoch(epoch), labels):
            yield images, batch_labels


class _Epochs:
    """``views`` as MindSpore iterates them. Until ``begin``, every iteration is the first epoch; then they count up."""

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
    """Return ``views`` as a MindSpore data set whose first epoch is ``first_epoch``.

    MindSpore iterates a source when it makes the data set, and data ``sinking`` iterates it once more for types and
    shapes. Both happen here, before the epochs begin to count.
    """
    source = _Epochs(views, first_epoch)
    batches = ds.GeneratorDataset(source, views.columns, shuffle=False, num_parallel_workers=1)
    if sinking:  # MindSpore keeps both answers, and does not iterate the source for them again
        batches.output_types()
        batches.output_shapes()
    source.begin()
    return batches


def sheet(views: Views) -> Image.Image:
    """Return a sheet of some images, one per row, each beside views of it: a preview of the training data."""
    few = Views(views.pixels, min(SHEET_IMAGES, len(views.rows)), views.augmentation, views.seed, views.workers,
                rows=np.random.default_rng(views.seed).permutation(views.rows)[:SHEET_IMAGES],
                views_per_image=SHEET_VIEWS)
    ((drawn,),) = few.of_epoch(0)
    drawn = drawn.reshape(SHEET_VIEWS, -1, *drawn.shape[1:]).transpose(1, 0, 3, 4, 2)  # image, view, H, W, C
    images = few.pixels[few.order_of(0)]
    side = min(SHEET_SIDE, images.shape[1])
    picture = Image.new("RGB", ((1 + SHEET_VIEWS) * side + SHEET_GAP, len(images) * side), "white")
    for row, (image, views_of_image) in enumerate(zip(images, drawn)):
        for column, tile in enumerate((image, *views_of_image)):
            small = Image.fromarray(tile).resize((side, side), Image.Resampling.LANCZOS)
            picture.paste(small, (column * side + SHEET_GAP * bool(column), row * side))
    return picture

"""The sheet of images with views of them."""
import numpy as np
import pytest

from src.data.sheet import GAP, IMAGES, LARGEST_SIDE, VIEWS, sheet
from src.data.views import Views
from src.settings.augmentation import PAPER_SMALL, Augmentation

NOTHING = Augmentation(1.0, 0.0, 0.0, 0.0, 0.0)  # but for the crop's aspect ratio


def tiles(image, side):
    """Return the sheet's tiles, (rows, 1 + VIEWS, side, side, 3)."""
    pixels = np.asarray(image)
    rows = pixels.reshape(-1, side, *pixels.shape[1:])
    starts = [column * side + GAP * bool(column) for column in range(1 + VIEWS)]
    return np.stack([rows[:, :, start:start + side] for start in starts], 1)


def images(count, side=16):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def test_each_row_has_an_image_and_views_of_it():
    colours = np.arange(10, 250, 24, dtype=np.uint8)  # every image is of one colour, and so are its crops
    pixels = np.broadcast_to(colours[:, None, None, None], (10, 16, 16, 3)).copy()
    found = tiles(sheet(Views(pixels, 4, NOTHING, seed=3, workers=1)), 16)
    assert found.shape[:2] == (IMAGES, 1 + VIEWS)
    shown = found[:, 0, 0, 0, 0]
    assert len(set(shown.tolist())) == IMAGES and set(shown.tolist()) <= set(colours.tolist())
    assert np.abs(found.astype(int) - shown[:, None, None, None, None]).max() <= 1


def test_a_seed_draws_the_same_and_views_differ():
    def drawn(seed):
        return tiles(sheet(Views(images(30), 8, PAPER_SMALL, seed, workers=1)), 16)
    first = drawn(0)
    assert np.array_equal(first, drawn(0)) and not np.array_equal(first[:, 0], drawn(1)[:, 0])
    assert all(np.abs(first[:, one].astype(int) - first[:, other]).mean() > 5
               for one in range(1, 1 + VIEWS) for other in range(one))


@pytest.mark.parametrize("count", [1, 3])
def test_few_images(count):
    assert tiles(sheet(Views(images(count), 64, PAPER_SMALL, 0, workers=1)), 16).shape[0] == count


def test_rows_that_take_part_and_large_images():
    pixels = images(6, side=100)
    found = tiles(sheet(Views(pixels, 2, PAPER_SMALL, 0, workers=1, rows=np.array([4, 5]))), LARGEST_SIDE)
    assert len(found) == 2

"""Views: different, new in every epoch, reproducible, complete; and the sheet that shows them."""
import mindspore.dataset as ds
import numpy as np
import pytest
import scipy.stats

from src.data.views import SHEET_GAP, SHEET_IMAGES, SHEET_VIEWS, LabelledViews, Views, operations, sheet, to_dataset
from src.settings.augmentation import PAPER_LARGE, PAPER_SMALL, Augmentation

BATCH, WORKERS = 64, 2
STILL = PAPER_SMALL._replace(crop_min_scale=1.0, flip_probability=0, jitter_strength=0, grayscale_probability=0)


def epoch(views, number=0):
    return np.concatenate([batch for (batch,) in views.of_epoch(number)])


def pairs(batches):
    """Return the first and the second views of all batches (batches, batch, ...)."""
    both = batches.reshape(-1, 2, BATCH, *batches.shape[1:])
    return both[:, 0].reshape(-1, *batches.shape[1:]), both[:, 1].reshape(-1, *batches.shape[1:])


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (640, 32, 32, 3), dtype=np.uint8)


@pytest.mark.long
def test_views_differ_epochs_differ_and_seeds_repeat(images):
    views = Views(images, BATCH, PAPER_SMALL, seed=3, workers=WORKERS)
    epochs = [epoch(views, number) for number in range(2)]
    for batches in epochs:
        assert batches.shape == (2 * 640, 3, 32, 32)
        assert batches.dtype == np.uint8
        first, second = pairs(batches)
        assert not (first == second).all((1, 2, 3)).any()
    distinct = {view.tobytes() for batches in epochs for view in batches}
    assert len(distinct) == 4 * 640  # no view comes twice, in the other epoch neither
    again = Views(images, BATCH, PAPER_SMALL, seed=3, workers=WORKERS)
    assert np.array_equal(epoch(again, 1), epochs[1])  # whichever came before, as when a run is resumed
    assert np.array_equal(epoch(again, 0), epochs[0])
    other = epoch(Views(images, BATCH, PAPER_SMALL, seed=4, workers=WORKERS))
    assert not {view.tobytes() for view in other} & distinct


def plain_images(count):
    """Images of one colour each, which no crop can change."""
    colours = np.stack(np.unravel_index(np.arange(count), (16, 16, 16)), 1).astype(np.uint8) * 16
    return np.ascontiguousarray(np.broadcast_to(colours[:, None, None], (count, 32, 32, 3))), colours


def test_both_views_show_the_same_image_and_every_image_comes_once():
    pixels, colours = plain_images(200)
    views = Views(pixels, BATCH, STILL, seed=0, workers=WORKERS)
    assert len(views) == 3
    orders = []
    for number in range(2):
        first, second = pairs(epoch(views, number))
        assert np.array_equal(first, second)
        order = [np.flatnonzero((colours == view[:, 0, 0]).all(1))[0] for view in first]
        assert len(set(order)) == 3 * BATCH  # nothing twice; 200 - 192 images wait for the next epoch
        orders.append(order)
    assert orders[0] != orders[1]


def test_an_image_may_have_several_views(images):
    """Those of a batch lie view by view; no two are equal, and every image has as many."""
    pixels, colours = plain_images(130)
    still = epoch(Views(pixels, BATCH, STILL, seed=0, workers=WORKERS, views_per_image=4))
    still = still.reshape(2, 4, BATCH, 3, 32, 32)
    for other in range(1, 4):
        assert np.array_equal(still[:, other], still[:, 0])
    assert len({tuple(view[:, 0, 0]) for view in still[:, 0].reshape(-1, 3, 32, 32)}) == 2 * BATCH
    views = epoch(Views(images[:130], BATCH, PAPER_SMALL, seed=0, workers=WORKERS, views_per_image=3))
    assert len(views) == len({view.tobytes() for view in views}) == 2 * 3 * BATCH


@pytest.mark.parametrize("sinking, first_epoch", [(False, 0), (True, 5)])
def test_a_dataset_begins_where_it_is_told(images, sinking, first_epoch):
    """MindSpore looks at the views before training; the epochs of training are those asked for all the same."""
    views = Views(images[:256], BATCH, PAPER_SMALL, seed=1, workers=WORKERS)
    expected = [epoch(views, number) for number in range(first_epoch, first_epoch + 2)]
    batches = to_dataset(views, first_epoch, sinking)
    if sinking:
        assert batches.output_shapes() == [[2 * BATCH, 3, 32, 32]]
    assert batches.get_dataset_size() == 4
    iterator = batches.create_tuple_iterator(num_epochs=2, output_numpy=True)
    for of_epoch in expected:
        assert np.array_equal(np.concatenate([batch for (batch,) in iterator]), of_epoch)


def test_a_dataset_of_labelled_views(images):
    labels = np.arange(256)
    views = LabelledViews(images[:256], labels, batch_size=BATCH, augmentation=PAPER_SMALL, seed=1, workers=WORKERS)
    expected = list(views.of_epoch(3))
    found = list(to_dataset(views, 3, sinking=True).create_tuple_iterator(num_epochs=1, output_numpy=True))
    assert len(found) == len(expected) == 4
    for batch, of_epoch in zip(found, expected):
        assert all(map(np.array_equal, batch, of_epoch)) and batch[1].dtype == np.int32


def first_views(pixels, **changes):
    return pairs(epoch(Views(pixels, BATCH, STILL._replace(**changes), seed=0, workers=WORKERS)))[0].astype(int)


def share_within(share, probability, count):
    """Whether a share of ``count`` draws fits ``probability``, with a bound of five deviations."""
    return abs(share - probability) <= 5 * np.sqrt(probability * (1 - probability) / count)


def test_crop_scale():
    """Of a ramp from 0 to 248, a crop of at least half the area keeps well over a third of the range."""
    ramp = np.broadcast_to((np.arange(32) * 8).astype(np.uint8)[None, None, :, None], (1280, 32, 32, 3)).copy()
    small, large = (np.ptp(first_views(ramp, crop_min_scale=scale)[:, 0, 0], axis=1) for scale in (0.08, 0.5))
    assert small.min() < 80 < large.min()


def test_jitter_strength_and_probability():
    pixels = np.full((1280, 32, 32, 3), 100, np.uint8)
    views = first_views(pixels, jitter_strength=0.5)[:, 0, 0, 0]
    changed = views != 100
    assert share_within(changed.mean(), 0.8 * 80 / 81, 1280)  # brightness within 40 %: 81 values, one of them 100
    assert 58 <= views.min() < 65 and 135 < views.max() <= 142


LUMA = np.array([0.299, 0.587, 0.114])
FACTORS = ("brightness", "contrast", "saturation", "hue")


def to_hsv(rgb):
    high, low = rgb.max(-1), rgb.min(-1)
    red, green, blue = np.moveaxis(rgb, -1, 0)
    span = np.where(high == low, 1, high - low)
    hue = np.where(high == red, (green - blue) / span % 6,
                   np.where(high == green, (blue - red) / span + 2, (red - green) / span + 4)) / 6
    return hue, (high - low) / np.maximum(high, 1), high


def to_rgb(hue, saturation, value):
    sector = (np.array([5, 3, 1]) + 6 * hue[..., None]) % 6
    return value[..., None] * (1 - saturation[..., None] * np.clip(np.minimum(sector, 4 - sector), 0, 1))


def jittered(image, strength, count, without=None):
    """The paper's colour jitter of ``image`` (H, W, 3) in NumPy, its factors in any order: views (count, H, W, 3)."""
    rng = np.random.default_rng(0)
    views = np.repeat(image[None].astype(float), count, 0)
    for number in np.flatnonzero(rng.random(count) < 0.8):
        view = views[number]
        for name in rng.permutation(FACTORS):
            factor = rng.uniform(max(0, 1 - 0.8 * strength), 1 + 0.8 * strength)
            if name == without:
                continue
            if name == "hue":
                hue, saturation, value = to_hsv(view)
                view = to_rgb((hue + rng.uniform(-0.2, 0.2) * strength) % 1, saturation, value)
            else:
                gray = (view @ LUMA)[..., None]
                other = {"brightness": 0, "contrast": gray.mean(), "saturation": gray}[name]
                view = np.clip(factor * view + (1 - factor) * other, 0, 255)
        views[number] = view
    return views


def measured(views):
    """What each factor changes in views (N, H, W, 3), and the others hardly."""
    gray, colour = views @ LUMA, views.mean((1, 2))
    return {"brightness": gray.mean((1, 2)), "contrast": gray.std((1, 2)) / gray.mean((1, 2)),
            "saturation": np.ptp(colour, axis=1) / gray.std((1, 2)), "hue": to_hsv(colour)[0]}


@pytest.mark.long
def test_jitter_changes_every_factor():
    """Every one of the four, as in the paper: the views are spread like those that NumPy makes, and not without it."""
    image = np.repeat(np.repeat(np.array([[(130, 100, 75), (90, 95, 60)], [(110, 80, 50), (70, 60, 40)]], np.uint8),
                                8, 0), 8, 1)
    views = np.moveaxis(first_views(np.repeat(image[None], 2560, 0), jitter_strength=1.0), 1, -1)
    found, expected = measured(views), measured(jittered(image, 1.0, 2560))
    for factor in FACTORS:
        others = measured(jittered(image, 1.0, 2560, without=factor))
        distances = [scipy.stats.ks_2samp(found[factor], drawn[factor]).statistic for drawn in (expected, others)]
        assert distances[0] < 0.12 < 0.2 < distances[1], factor


def blur_of_an_edge(sigma, taps=9):
    """The value beside an edge from 0 to 255 under a Gaussian blur, from the formula."""
    weights = np.exp(-0.5 * (np.arange(taps) - taps // 2) ** 2 / sigma[:, None] ** 2)
    return 255 * (weights[:, taps // 2:].sum(1) / weights.sum(1))


def test_blur_of_large_images_is_the_papers():
    """Kernel of a tenth of the side, deviation even between 0.1 and 2, probability 0.5."""
    edge = np.zeros((96, 96, 3), np.uint8)
    edge[:, 48:] = 255
    alone = PAPER_LARGE._replace(flip_probability=0, jitter_strength=0, grayscale_probability=0)
    blur = operations(alone, 96)[-1]  # without the crop: even one of the whole area may shift the edge
    rows = ds.GeneratorDataset([(edge,)] * 2560, ["view"], shuffle=False, num_parallel_workers=1)
    views = np.stack([view[50, :, 0] for (view,) in rows.map([blur], ["view"], num_parallel_workers=WORKERS)
                      .create_tuple_iterator(num_epochs=1, output_numpy=True)]).astype(float)
    assert (views[:, :48 - 4] == 0).all() and (views[:, 48 + 4:] == 255).all()  # 9 taps reach 4 pixels
    sigma = np.linspace(0.1, 2, 4001)
    beside = blur_of_an_edge(sigma)
    for bound in (0.5, 0.8, 1.1, 1.4, 1.7, 1.9):
        share = (views[:, 48] < np.interp(bound, sigma, beside) - 0.5).mean()
        assert share_within(share, 0.5 * (2 - bound) / 1.9, len(views)), bound


def test_the_ranks_share_the_images(world_size=3):
    """Every step takes the images of one process with the whole batch; nothing twice; equal shards."""
    pixels, colours = plain_images(200)

    def steps(batch_size, rank, ranks):
        views = Views(pixels, batch_size, STILL, seed=1, workers=WORKERS, rank=rank, world_size=ranks)
        return [{tuple(view[:, 0, 0]) for view in batch} for (batch,) in views.of_epoch(4)]

    whole = steps(24, 0, 1)
    parts = [steps(24 // world_size, rank, world_size) for rank in range(world_size)]
    assert [len(part) for part in parts] == [200 // 24] * world_size
    for step, images_of_step in enumerate(whole):
        assert sum(len(part[step]) for part in parts) == 24  # no image on two ranks
        assert set.union(*(part[step] for part in parts)) == images_of_step


def test_the_ranks_draw_different_augmentations(images):
    same = np.repeat(images[:1], 2 * BATCH, 0)
    first, second = (epoch(Views(same, BATCH, PAPER_SMALL, seed=1, workers=WORKERS, rank=rank, world_size=2))
                     for rank in (0, 1))
    assert not (first == second).all((1, 2, 3)).any()


def test_the_transformations_are_drawn_independently():
    """Light left halves and dark right ones: a view tells whether it was flipped, jittered and made gray."""
    image = np.empty((32, 32, 3), np.uint8)
    image[:, :16], image[:, 16:] = (220, 100, 100), (100, 40, 40)
    augmentation = PAPER_SMALL._replace(crop_min_scale=1.0, flip_probability=0.3, jitter_strength=0.1,
                                        grayscale_probability=0.4)
    views = epoch(Views(np.repeat(image[None], 2048, 0), BATCH, augmentation, seed=0, workers=WORKERS)).astype(int)
    left, right = views[:, :, 16, 2], views[:, :, 16, -3]
    flipped = left.sum(1) < right.sum(1)
    gray = (left == left[:, :1]).all(1)
    jittered = (np.minimum(left, right) != (100, 40, 40)).any(1) | (np.maximum(left, right) != (220, 100, 100)).any(1)
    for event, given, probability in ((flipped, gray, 0.3), (flipped, ~gray, 0.3), (gray, flipped, 0.4),
                                      (gray, ~flipped, 0.4), (jittered, flipped & ~gray, 0.8),
                                      (jittered, ~flipped & ~gray, 0.8)):
        drawn = event[given]
        assert abs(drawn.mean() - probability) < 4 * (0.25 / len(drawn)) ** 0.5


def tiles(picture, side):
    """Return the tiles of a sheet (rows, 1 + views, side, side, 3)."""
    pixels = np.asarray(picture)
    rows = pixels.reshape(-1, side, *pixels.shape[1:])
    starts = [column * side + SHEET_GAP * bool(column) for column in range(1 + SHEET_VIEWS)]
    return np.stack([rows[:, :, start:start + side] for start in starts], 1)


def test_a_sheet_has_an_image_and_its_views_in_each_row():
    colours = np.arange(10, 250, 24, dtype=np.uint8)  # every image has one colour, and so have its crops
    pixels = np.broadcast_to(colours[:, None, None, None], (10, 16, 16, 3)).copy()
    drawn = tiles(sheet(Views(pixels, 4, Augmentation(1.0, 0.0, 0.0, 0.0, 0.0), seed=3, workers=1)), 16)
    assert drawn.shape[:2] == (SHEET_IMAGES, 1 + SHEET_VIEWS)
    shown = drawn[:, 0, 0, 0, 0]
    assert len(set(shown.tolist())) == SHEET_IMAGES and set(shown.tolist()) <= set(colours.tolist())
    assert np.abs(drawn.astype(int) - shown[:, None, None, None, None]).max() <= 1

"""The two views: different, new in every epoch, reproducible, complete."""
import mindspore.dataset as ds
import numpy as np
import pytest

from src.data.augmentation import PAPER_LARGE, PAPER_SMALL, Augmentation, Views, to_dataset

BATCH, WORKERS = 64, 2
STILL = Augmentation(crop_min_scale=1.0, flip_probability=0, jitter_strength=0, grayscale_probability=0)


def epoch(views):
    return np.concatenate([batch for (batch,) in views])


def pairs(batches):
    """Return the first and the second views of all batches (batches, batch, ...)."""
    both = batches.reshape(-1, 2, BATCH, *batches.shape[1:])
    return both[:, 0].reshape(-1, *batches.shape[1:]), both[:, 1].reshape(-1, *batches.shape[1:])


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3200, 32, 32, 3), dtype=np.uint8)


def test_views_differ_epochs_differ_and_seeds_repeat(images):
    views = Views(images, BATCH, Augmentation(), seed=3, workers=WORKERS)
    epochs = [epoch(views), epoch(views)]
    for batches in epochs:
        assert batches.shape == (2 * 3200, 3, 32, 32)
        assert batches.dtype == np.uint8
        first, second = pairs(batches)
        assert not (first == second).all((1, 2, 3)).any()
    distinct = {view.tobytes() for batches in epochs for view in batches}
    assert len(distinct) == 4 * 3200  # no view comes twice, in the other epoch neither
    again = Views(images, BATCH, Augmentation(), seed=3, workers=WORKERS)
    assert np.array_equal(epoch(again), epochs[0])
    assert np.array_equal(epoch(again), epochs[1])
    resumed = Views(images, BATCH, Augmentation(), seed=3, workers=WORKERS, first_epoch=1)
    assert np.array_equal(epoch(resumed), epochs[1])
    other = epoch(Views(images, BATCH, Augmentation(), seed=4, workers=WORKERS))
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
    for _ in range(2):
        first, second = pairs(epoch(views))
        assert np.array_equal(first, second)
        order = [np.flatnonzero((colours == view[:, 0, 0]).all(1))[0] for view in first]
        assert len(set(order)) == 3 * BATCH  # nothing twice; 200 - 192 images wait for the next epoch
        orders.append(order)
    assert orders[0] != orders[1]


@pytest.mark.parametrize("sinking", [False, True])
def test_a_dataset_misses_no_epoch(images, sinking):
    """MindSpore looks at the views before training; the views of training begin at epoch 0 all the same."""
    views = Views(images[:256], BATCH, Augmentation(), seed=1, workers=WORKERS)
    expected = [np.concatenate([batch for (batch,) in views.of_epoch(number)]) for number in range(2)]
    batches = to_dataset(views, sinking)
    if sinking:
        assert batches.output_shapes() == [[2 * BATCH, 3, 32, 32]]
    assert batches.get_dataset_size() == 4
    iterator = batches.create_tuple_iterator(num_epochs=2, output_numpy=True)
    for number in range(2):
        assert np.array_equal(np.concatenate([batch for (batch,) in iterator]), expected[number])


def first_views(pixels, **changes):
    return pairs(epoch(Views(pixels, BATCH, STILL._replace(**changes), seed=0, workers=WORKERS)))[0].astype(int)


def share_within(share, probability, count):
    """Whether a share of ``count`` draws fits ``probability``, with a bound of five deviations."""
    return abs(share - probability) <= 5 * np.sqrt(probability * (1 - probability) / count)


def test_grayscale_probability():
    pixels = np.full((1280, 32, 32, 3), (200, 30, 90), np.uint8)
    views = first_views(pixels, grayscale_probability=0.2)
    gray = (np.ptp(views, axis=1) == 0).all((1, 2))
    assert share_within(gray.mean(), 0.2, 1280)
    assert (np.ptp(first_views(pixels, grayscale_probability=1.0), axis=1) == 0).all()


def test_flip_probability():
    ramp = np.broadcast_to((np.arange(32) * 8).astype(np.uint8)[None, None, :, None], (1280, 32, 32, 3))
    views = first_views(np.ascontiguousarray(ramp), flip_probability=0.3)
    assert share_within((views[:, 0, 0, 0] > views[:, 0, 0, -1]).mean(), 0.3, 1280)


def test_crop_scale(images):
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


def test_blur_smoothes(images):
    sharp, blurred = (first_views(images[:640], blur_probability=probability) for probability in (0, 1))
    assert np.abs(np.diff(blurred, axis=-1)).mean() < 0.9 * np.abs(np.diff(sharp, axis=-1)).mean()


def blur_of_an_edge(sigma, taps=9):
    """The value beside an edge from 0 to 255 under a Gaussian blur, from the formula."""
    weights = np.exp(-0.5 * (np.arange(taps) - taps // 2) ** 2 / sigma[:, None] ** 2)
    return 255 * (weights[:, taps // 2:].sum(1) / weights.sum(1))


def test_blur_of_large_images_is_the_papers():
    """Kernel of a tenth of the side, deviation even between 0.1 and 2, probability 0.5."""
    edge = np.zeros((96, 96, 3), np.uint8)
    edge[:, 48:] = 255
    alone = PAPER_LARGE._replace(flip_probability=0, jitter_strength=0, grayscale_probability=0)
    blur = alone.operations(96)[-1]  # without the crop: even one of the whole area may shift the edge
    rows = ds.GeneratorDataset([(edge,)] * 2560, ["view"], shuffle=False, num_parallel_workers=1)
    views = np.stack([view[50, :, 0] for (view,) in rows.map([blur], ["view"], num_parallel_workers=WORKERS)
                      .create_tuple_iterator(num_epochs=1, output_numpy=True)]).astype(float)
    assert (views[:, :48 - 4] == 0).all() and (views[:, 48 + 4:] == 255).all()  # 9 taps reach 4 pixels
    sigma = np.linspace(0.1, 2, 4001)
    beside = blur_of_an_edge(sigma)
    for bound in (0.5, 0.8, 1.1, 1.4, 1.7, 1.9):
        share = (views[:, 48] < np.interp(bound, sigma, beside) - 0.5).mean()
        assert share_within(share, 0.5 * (2 - bound) / 1.9, len(views)), bound


def test_what_the_paper_has_for_small_and_for_large_images():
    assert (PAPER_SMALL.jitter_strength, PAPER_SMALL.blur_probability) == (0.5, 0)
    assert (PAPER_LARGE.jitter_strength, PAPER_LARGE.blur_probability) == (1.0, 0.5)
    for paper in (PAPER_SMALL, PAPER_LARGE):
        assert (paper.crop_min_scale, paper.flip_probability, paper.grayscale_probability) == (0.08, 0.5, 0.2)


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_ranks_share_the_images(world_size):
    """Every step takes the images of one process with the whole batch; nothing twice; equal shards."""
    pixels, colours = plain_images(200)

    def steps(batch_size, rank, ranks):
        views = Views(pixels, batch_size, STILL, seed=1, workers=WORKERS, first_epoch=4, rank=rank, world_size=ranks)
        return [{tuple(view[:, 0, 0]) for view in batch} for (batch,) in views]

    whole = steps(24, 0, 1)
    parts = [steps(24 // world_size, rank, world_size) for rank in range(world_size)]
    assert [len(part) for part in parts] == [200 // 24] * world_size
    for step, images_of_step in enumerate(whole):
        assert sum(len(part[step]) for part in parts) == 24  # no image on two ranks
        assert set.union(*(part[step] for part in parts)) == images_of_step


def test_the_ranks_draw_different_augmentations(images):
    same = np.repeat(images[:1], 2 * BATCH, 0)
    first, second = (epoch(Views(same, BATCH, Augmentation(), seed=1, workers=WORKERS, rank=rank, world_size=2))
                     for rank in (0, 1))
    assert not (first == second).all((1, 2, 3)).any()


def test_the_transformations_are_drawn_independently():
    """Light left halves and dark right ones: a view tells whether it was flipped, jittered and made gray."""
    image = np.empty((32, 32, 3), np.uint8)
    image[:, :16], image[:, 16:] = (220, 100, 100), (100, 40, 40)
    augmentation = Augmentation(crop_min_scale=1.0, jitter_strength=0.1, grayscale_probability=0.4)
    views = epoch(Views(np.repeat(image[None], 2048, 0), BATCH, augmentation, seed=0, workers=WORKERS)).astype(int)
    left, right = views[:, :, 16, 2], views[:, :, 16, -3]
    flipped = left.sum(1) < right.sum(1)
    gray = (left == left[:, :1]).all(1)
    jittered = (np.minimum(left, right) != (100, 40, 40)).any(1) | (np.maximum(left, right) != (220, 100, 100)).any(1)
    for event, given, probability in ((flipped, gray, 0.5), (flipped, ~gray, 0.5), (gray, flipped, 0.4),
                                      (gray, ~flipped, 0.4), (jittered, flipped & ~gray, 0.8),
                                      (jittered, ~flipped & ~gray, 0.8)):
        drawn = event[given]
        assert abs(drawn.mean() - probability) < 4 * (0.25 / len(drawn)) ** 0.5

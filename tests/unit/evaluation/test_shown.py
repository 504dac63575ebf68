"""The test images that a run's page shows, against a slow search."""
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.images import Images
from src.evaluation.features import Split
from src.evaluation.shown import ASKED, LARGEST_SIDE, NEAREST, places_of, sample_of, thumbnails
from src.run import sample

CLASSES = ("a", "b", "c", "d")


def images(count, side=4):
    """Image n is all of the number n."""
    pixels = np.repeat(np.arange(count), side * side * 3).reshape(count, side, side, 3)
    return Images(pixels.astype(np.uint8), np.arange(count) % len(CLASSES), CLASSES)


def split(rng, found):
    return Split(rng.normal(size=(len(found.labels), 5)).astype(np.float32), found.labels, CLASSES)


@patch("src.evaluation.shown.places_of", lambda features: features[:, :2])  # t-SNE would take most of the time
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.integers(NEAREST, 200), st.integers(1, 200))
def test_nearest_are_the_nearest(seed, count, test_count):
    rng, train_images, test_images = np.random.default_rng(seed), images(count), images(test_count)
    train, test = split(rng, train_images), split(rng, test_images)
    found = sample_of(train, train_images, test, test_images)
    assert np.array_equal(found.pictures[:, 0, 0, 0], np.arange(test_count))  # all, as there are few
    assert np.array_equal(found.labels, test.labels) and found.classes == CLASSES
    assert np.array_equal(found.features, test.features.astype(np.float16))
    assert len(found.asked) == min(ASKED, test_count) == len(set(found.asked.tolist()))
    for row, asked in enumerate(found.asked):
        query = test.features[asked]
        cosines = [query @ other / np.linalg.norm(query) / np.linalg.norm(other) for other in train.features]
        numbers = found.nearest_pictures[row, :, 0, 0, 0]
        assert np.allclose(np.array(cosines)[numbers], sorted(cosines)[:-NEAREST - 1:-1])
        assert np.array_equal(found.nearest_labels[row], numbers % len(CLASSES))


@pytest.mark.parametrize("count, shown", [(3, 3), (600, 500), (20_000, 2_500)])
def test_how_many_are_shown(count, shown):
    test_images = images(count, side=1)
    test = Split(np.ones((count, 2), np.float32), test_images.labels, CLASSES)
    found = sample_of(None, None, test, test_images)
    assert len(found.pictures) == len(found.features) == len(found.labels) == shown
    assert found.asked.shape == (0,) and found.nearest_pictures.shape == (0, NEAREST, 1, 1, 3)
    again = sample_of(None, None, test._replace(features=2 * test.features), test_images)
    assert np.array_equal(found.labels, again.labels)  # the same for another encoder


def test_similar_images_lie_together_on_the_map():
    rng, labels = np.random.default_rng(0), np.arange(90) % 3
    features = (10 * np.eye(4)[labels] + rng.normal(size=(90, 4))).astype(np.float16)
    places = places_of(features)
    assert np.array_equal(places, places_of(features)) and places.dtype == np.float32
    distances = np.linalg.norm(places[:, None] - places, axis=2) + 1e9 * np.eye(len(places))
    assert (labels[distances.argmin(1)] == labels).mean() > 0.95
    assert np.ptp(places_of(features[:4])) > 0


@pytest.mark.parametrize("rows", [np.zeros((9, 4)), np.ones((9, 4)), np.full((9, 4), np.nan), np.eye(4)[:3]])
def test_a_map_of_nothing_to_tell_apart(rows):
    assert np.array_equal(places_of(rows.astype(np.float16)), np.zeros((len(rows), 2)))


def test_large_images_are_shown_small():
    pixels = np.zeros((2, 100, 100, 3), np.uint8)
    pixels[1, :, 50:] = 255
    small = thumbnails(pixels, np.array([1, 0]))
    assert small.shape == (2, LARGEST_SIDE, LARGEST_SIDE, 3)
    assert small[0, :, :20].max() < 10 and small[0, :, 28:].min() > 245 and not small[1].any()


def test_a_sample_comes_back_as_it_was(tmp_path):
    rng, found = np.random.default_rng(0), images(30)
    kept = sample_of(split(rng, found), found, split(rng, found), found)
    sample.write(tmp_path / "sample.npz", kept)
    back = sample.read(tmp_path / "sample.npz")
    assert back.classes == kept.classes
    for one, other in zip(back, kept):
        assert np.array_equal(one, other) and np.asarray(one).dtype == np.asarray(other).dtype
    assert sample.read(tmp_path / "another.npz") is None

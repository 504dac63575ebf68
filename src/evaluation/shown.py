"""Chooses the test images that a run's page shows, and finds their nearest training images and places on a map."""
from typing import Optional

import numpy as np
from PIL import Image

from src.data.images import BLOCK, Images, PixelSource
from src.evaluation.features import Split
from src.evaluation.knn import unit_rows
from src.run.sample import Sample

FEWEST, MOST = 500, 2_500  # test images that are shown: a quarter of all, between these
ASKED, NEAREST = 12, 8     # how many of them with their nearest training images, and with how many
LARGEST_SIDE = 48          # pixels
PERPLEXITY = 30.0          # of t-SNE


def sample_of(train: Optional[Split], train_images: Optional[Images], test: Split, test_images: Images) -> Sample:
    """Draw test images, the same ones for every encoder, and find the nearest training images for some of them.

    The distance is the cosine of the representations, as in ``knn.py``. ``train`` may be None.
    """
    count = len(test.labels)
    rows = np.sort(np.random.default_rng(0).permutation(count)[:min(count, max(FEWEST, min(MOST, count // 4)))])
    chosen = np.random.default_rng(1).permutation(len(rows))[:ASKED if train else 0]
    pictures = thumbnails(test_images.pixels, rows)
    nearest = np.zeros((0, NEAREST), np.int64)
    if train:
        lengths = np.sqrt(np.einsum("nd,nd->n", train.features, train.features))  # without a copy of all rows
        similarity = unit_rows(test.features[rows[chosen]]) @ train.features.T / np.maximum(lengths, 1e-12)
        nearest = np.argsort(-similarity, axis=1)[:, :NEAREST]
    nearest_pictures = thumbnails(train_images.pixels, nearest.ravel()) if train else pictures[:0]
    features = test.features[rows].astype(np.float16)
    return Sample(
        pictures, features, test.labels[rows].astype(np.int32), test.classes, chosen,
        nearest_pictures.reshape(*nearest.shape, *pictures.shape[1:]),
        (train.labels if train else test.labels)[nearest].astype(np.int32),
        places_of(features))


def places_of(features: np.ndarray) -> np.ndarray:
    """Return a place on a plane for each of the representations (N, d), float32 (N, 2), by t-SNE.

    Van der Maaten and Hinton 2008, on unit vectors. Where there is nothing to tell apart, all places are 0.
    """
    from sklearn.manifold import TSNE  # here: the import takes a second
    rows = features.astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    # scikit-learn crashes or never ends for fewer than four images, and for a collapsed encoder.
    if len(rows) < 4 or not np.isfinite(rows).all() or np.ptp(rows, axis=0).max() < 1e-4:
        return np.zeros((len(rows), 2), np.float32)
    perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(rows)


def thumbnails(pixels: PixelSource, rows: np.ndarray) -> np.ndarray:
    """Return the images ``rows`` with sides of at most ``LARGEST_SIDE`` pixels, uint8 (rows, side, side, 3)."""
    side = min(LARGEST_SIDE, pixels.shape[1])
    small = np.empty((len(rows), side, side, 3), np.uint8)
    for begin in range(0, len(rows), BLOCK):  # no more large images are in memory at a time
        for place, image in enumerate(pixels[rows[begin:begin + BLOCK]], begin):
            small[place] = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))
    return small

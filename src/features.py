"""Representations of every image by a frozen encoder, computed once and kept on disk."""
import hashlib
from pathlib import Path

import numpy as np
from mindspore import Tensor
from tqdm import tqdm

from src.files import written_whole
from src.logs import logger
from src.resnet import ResNet


def extract(encoder: ResNet, pixels: np.ndarray, batch_size: int, title: str = "features") -> np.ndarray:
    """Return the representations (N, features), float32, of uint8 images (N, side, side, 3).

    Every image is encoded once, in order, in inference mode. The last batch is filled up, so that
    one graph serves all, and its surplus is cut off.
    """
    encoder.set_train(False)
    count = len(pixels)
    features = np.empty((count, encoder.features), np.float32)
    for start in tqdm(range(0, count, batch_size), desc=title, unit="batch", leave=False, disable=None):
        batch = pixels[np.arange(start, start + batch_size) % count]  # wraps round: the surplus is cut off below
        h = encoder(Tensor(np.ascontiguousarray(batch.transpose(0, 3, 1, 2)))).asnumpy()
        features[start:start + batch_size] = h[:count - start]
    return features


def cached(folder: Path, encoder: ResNet, encoder_digest: str, pixels: np.ndarray, batch_size: int,
           split: str) -> np.ndarray:
    """Return ``extract``'s result from ``folder``, where it lies under a key of checkpoint and images.

    ``encoder_digest`` is the checkpoint's (``checkpoint.digest``). What is not there yet is computed
    and written whole.
    """
    key = hashlib.sha256(f"{encoder_digest} {pixels.shape}".encode())
    key.update(np.ascontiguousarray(pixels).data)
    file = folder / f"{split}-{key.hexdigest()[:20]}.npy"
    if file.exists():
        logger.info("features of %d %s images: %s", len(pixels), split, file)
        return np.load(file)
    features = extract(encoder, pixels, batch_size, f"features, {split}")
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(file) as temporary, temporary.open("wb") as stream:
        np.save(stream, features)
    logger.info("features of %d %s images computed and kept in %s", len(pixels), split, file)
    return features

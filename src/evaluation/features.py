"""Representations of every image by a frozen encoder, computed once and kept on disk."""
import hashlib
from pathlib import Path
from typing import Any, NamedTuple, Tuple

import numpy as np
from mindspore import Tensor
from tqdm import tqdm

from src.common.errors import UserError
from src.common.files import written_whole
from src.common.logs import logger
from src.data.images import identity
from src.distributed.collectives import share, sum_over_ranks, together
from src.distributed.process_group import Process
from src.resnet import ResNet


class Split(NamedTuple):
    """Representations (N, features), float32, labels (N,) and class names of a split."""

    rows: np.ndarray
    labels: np.ndarray
    classes: Tuple[str, ...] = ()


def extract(encoder: ResNet, pixels: Any, batch_size: int, process: Process,
            title: str = "features") -> np.ndarray:
    """Return the representations (N, features), float32, of ``pixels`` as in ``Images``.

    Every image is encoded once, by one of the ranks, in inference mode, and all ranks get all
    representations in order. The last batch is filled up, so that one graph serves all, and its surplus is
    cut off.
    """
    encoder.set_train(False)
    features = np.zeros((len(pixels), encoder.features), np.float32)
    first, end = (len(pixels) * border // process.world_size for border in (process.rank, process.rank + 1))
    for start in tqdm(range(first, end, batch_size), desc=title, unit="batch", leave=False, disable=None):
        count = min(batch_size, end - start)
        batch = pixels[np.resize(np.arange(start, start + count), batch_size)]
        h = encoder(Tensor(np.ascontiguousarray(batch.transpose(0, 3, 1, 2)))).asnumpy()
        features[start:start + count] = h[:count]
    return sum_over_ranks(features, process)


def cached(folder: Path, encoder: ResNet, encoder_digest: str, pixels: Any, batch_size: int,
           split: str, process: Process) -> np.ndarray:
    """Return ``extract``'s result from ``folder``, where it lies under a key of checkpoint and images.

    ``encoder_digest`` is the checkpoint's (``checkpoint.digest``). What is not there yet is computed
    and written whole. The folder is rank 0's: where it has the features, the other ranks get none.

    Raises:
        UserError: this rank has other images than rank 0.
    """
    key = hashlib.sha256(f"{encoder_digest} {pixels.shape}".encode())
    for part in identity(pixels):
        key.update(part)
    file = folder / f"{split}-{key.hexdigest()[:20]}.npy"
    name_of_first, is_there = share((file.name, file.exists()), process)
    with together(process):
        if file.name != name_of_first:
            raise UserError(f"the {split} images of rank {process.rank} are not those of rank 0; give every machine "
                            "the same data")
    if is_there:
        logger.info("features of %d %s images: %s", len(pixels), split, file)
        return np.load(file) if process.is_first else np.empty((0, encoder.features), np.float32)
    features = extract(encoder, pixels, batch_size, process, f"features, {split}")
    if process.is_first:
        folder.mkdir(parents=True, exist_ok=True)
        with written_whole(file) as temporary, temporary.open("wb") as stream:
            np.save(stream, features)
        logger.info("features of %d %s images computed and kept in %s", len(pixels), split, file)
    return features

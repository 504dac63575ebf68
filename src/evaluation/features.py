"""Representations of every image by a frozen encoder, computed once and kept on disk."""
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Iterator, NamedTuple, Optional, Tuple

import numpy as np
from mindspore import Tensor, ops

from src.common.errors import UserError
from src.common.files import reason_of, writing, written_whole
from src.common.logs import bar, logger
from src.data.images import PixelSource, batches, channels_first, fingerprint
from src.device.dry_run import is_dry_run
from src.distributed.collectives import share, together
from src.distributed.process_group import Process
from src.resnet import ResNet


class Split(NamedTuple):
    """Representations (N, features), float32, labels (N,) and class names of a split."""

    features: np.ndarray
    labels: np.ndarray
    classes: Tuple[str, ...] = ()


def extract(encoder: ResNet, pixels: PixelSource, batch_size: int, process: Process,
            title: str = "features") -> np.ndarray:
    """Return the representations (N, features), float32, of N images on rank 0, and (0, features) elsewhere.

    The encoder is in inference mode. Of every world_size * batch_size images each rank encodes its part, and rank 0
    gathers the results. While a batch is computed, a thread fetches the next one. Raises a UserError where one of the
    ranks cannot read an image.
    """
    encoder.set_train(False)
    count, world = len(pixels), process.world_size
    steps = -(-count // (batch_size * world))
    # The first images fill up the last batch, because another shape would need another graph; their rows are cut off.
    rows = np.resize(np.arange(count), (steps, world, batch_size))
    mine = rows[:, process.rank].ravel()
    gather = ops.AllGather() if world > 1 else None
    features = np.empty((steps * world * batch_size if process.is_first else 0, encoder.features), np.float32)
    error: Optional[Exception] = None
    source = _fetched_ahead(batches(pixels, batch_size, mine))
    for step in bar(iterable=range(steps), desc=title, unit="batch"):
        if not error:
            try:
                batch = next(source)
            except Exception as caught:
                error = caught  # but this rank goes on, with zeros, because the others wait for its part
                batch = np.zeros((batch_size, *pixels.shape[1:]), np.uint8)
                if world == 1:
                    break
        h = encoder(Tensor(channels_first(batch)))
        h = (gather(h) if gather else h).asnumpy()
        if process.is_first:
            features[step * len(h):][:len(h)] = h
    with together(process):
        if error:
            raise error
    return features[:count]


def _fetched_ahead(source: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the batches of ``source``; a thread fetches the next one in the meantime."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, source, None)
        while True:
            batch = coming.result()
            if batch is None:
                return
            coming = thread.submit(next, source, None)
            yield batch


def cached(folder: Path, encoder: ResNet, encoder_digest: str, pixels: PixelSource, batch_size: int,
           split: str, process: Process) -> np.ndarray:
    """Return ``extract``'s result from a file in rank 0's ``folder``, or compute it and write that file.

    The file's name is a key of the images and of ``encoder_digest``, the SHA-256 of the encoder's checkpoint. Raises a
    UserError where this rank has other images than rank 0, one cannot be read, or the folder cannot be written.
    """
    key = hashlib.sha256(f"{encoder_digest} {pixels.shape} {fingerprint(pixels)}".encode()).hexdigest()
    file = folder / f"{split}-{key[:20]}.npz"  # .npz, because it has a checksum and .npy has none
    cached_rows = _read(file, (len(pixels), encoder.features)) if process.is_first else None
    name_of_first, is_cached = share((file.name, cached_rows is not None), process)
    with together(process):
        if file.name != name_of_first:
            raise UserError(f"the {split} images of rank {process.rank} are not those of rank 0; give every machine "
                            "the same data")
    if is_cached:
        logger.info("features of %d %s images: %s", len(pixels), split, file)
        return cached_rows if process.is_first else np.empty((0, encoder.features), np.float32)
    features = extract(encoder, pixels, batch_size, process, f"features, {split}")
    with together(process):
        if process.is_first:
            if not np.isfinite(features).all() and not is_dry_run():
                raise UserError(f"--encoder_checkpoint_path: its features of some {split} images are not finite: its "
                                "training has diverged; take an earlier checkpoint")
            with writing("train_output_path", folder):
                folder.mkdir(parents=True, exist_ok=True)
                with written_whole(file) as temporary, temporary.open("wb") as stream:
                    np.savez(stream, features=features)
            logger.info("features of %d %s images computed and kept in %s", len(pixels), split, file)
    return features


def _read(file: Path, shape: Tuple[int, int]) -> Optional[np.ndarray]:
    """Return the features of a file, or None where it is missing or damaged."""
    if not file.exists():
        return None
    try:
        with np.load(file) as arrays:
            return arrays["features"].reshape(shape)
    except Exception as error:  # of damaged files NumPy raises all kinds
        logger.warning("warning: %s is damaged (%s); the features are computed again", file, reason_of(error))
        return None

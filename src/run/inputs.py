"""The images that a script trains on or evaluates with: staged, enough, and the same on every rank."""
import os
from pathlib import Path
from typing import Optional, Tuple

from src import dataset
from src.common.errors import UserError
from src.common.logs import logger
from src.data.images import Images, PixelSource, fingerprint
from src.distributed.collectives import share
from src.run import staging
from src.run.folder import Run
from src.settings.given import Given
from src.settings.network import Colour, default_stem

WORKERS = 2  # threads of the input pipeline for images in memory: the augmentations depend on it, on every machine


def stage(url: Optional[str], dataset_name: str, path: Optional[str]) -> None:
    """Copy the data from their place in the cloud, ``url``, once per machine; without one nothing happens."""
    if url:
        staging.stage_in(url, dataset.folder_of(dataset_name, path))


def fit_workers(given: Given) -> Given:
    """Fill in the threads of the input pipeline. MindSpore takes no more of them than there are cores.

    Raises:
        UserError: the user asks for more.
    """
    cores = os.cpu_count() or 1
    is_of_files = dataset.DATA_SETS[given["dataset_name"]].resizable
    wanted = given["num_parallel_workers"] or (cores if is_of_files else WORKERS)
    if wanted > cores:
        if "num_parallel_workers" in given.chosen:
            raise UserError(f"--num_parallel_workers: got {wanted}, takes at most the {cores} cores of this machine")
        logger.warning("warning: %d input threads instead of %d, on %d cores: the augmentations are others than on a "
                       "larger machine; to have the same there, give it --num_parallel_workers %d", cores, wanted,
                       cores, cores)
    return given.fill(num_parallel_workers=min(wanted, cores))


def check_apart(images: Images, run_folder: Path) -> None:
    """Raise UserError where a run would leave its own pictures among images that are all that a folder has."""
    root = getattr(images.pixels, "root", None)
    folder = Path(os.path.realpath(run_folder))  # not resolve(), which raises errors of its own for links in a circle
    if root and Path(os.path.realpath(root)) in (folder, *folder.parents):
        raise UserError(f"--train_output_path: {run_folder} lies in {root}, all of whose images are trained on, and "
                        "would add its own pictures to them; name a folder outside")


def check_batch(count: int, batch_size: int, world_size: int, what: str = "images") -> None:
    """Raise UserError where ``count`` images do not fill a step on ``world_size`` devices."""
    if count < batch_size * world_size:
        devices = f" on {world_size} devices" if world_size > 1 else ""
        raise UserError(f"--batch_size: got {batch_size}{devices}, takes at most the {count // world_size} {what} that "
                        "each device has to train on")


def check_same(pixels: PixelSource, run: Run, flag: str, split: str, like: Optional[str] = None) -> str:
    """Return the fingerprint of images; ``like`` as for ``fingerprint``.

    Raises:
        UserError: this rank has other images than rank 0.
    """
    with run.together():
        data = fingerprint(pixels, like)
    of_first = share(data, run.process)
    with run.together():
        if data != of_first:
            raise UserError(f"--{flag}: its {split} images ({data}) are not those of rank 0 ({of_first}); give every "
                            "machine the same data")
    return data


def normalisation(dataset_name: str, wanted: bool) -> Tuple[Optional[Colour], Optional[Colour]]:
    """Return what pixels are normalised by, mean and deviation of the data set, or None twice."""
    data_set = dataset.DATA_SETS[dataset_name]
    return (data_set.mean, data_set.std) if wanted else (None, None)


def follow_images(given: Given) -> Given:
    """Fill in side and stem.

    Raises:
        UserError: the data set does not have images of the side that the user wants.
    """
    side = given["image_size"] or dataset.DATA_SETS[given["dataset_name"]].side
    dataset.check_side(given["dataset_name"], side, "--image_size asks for")
    return given.fill(image_size=side, stem=given["stem"] or default_stem(side))

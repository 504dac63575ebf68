"""What a script checks and fills in: its images, enough of them and the same on every rank, threads and precision."""
import os
from pathlib import Path
from typing import Optional, Tuple

from src import dataset
from src.common.errors import UserError
from src.common.logs import logger
from src.data.images import Images, PixelSource, fingerprint
from src.distributed.collectives import share
from src.distributed.process_group import Process
from src.run import staging
from src.run.folder import Run
from src.settings.given import Given
from src.settings.network import Colour, default_stem

# Threads of the input pipeline for images in memory: the same everywhere, because the augmentations depend on it.
WORKERS = 2


def stage(url: Optional[str], dataset_name: str, path: Optional[str]) -> None:
    """Copy the data from the cloud's storage, once per machine; nothing happens without a ``url``."""
    if url:
        staging.stage_in(url, dataset.folder_of(dataset_name, path))


def fit_workers(given: Given) -> Given:
    """Fill in the number of threads of the input pipeline, at most one per core.

    A larger number of the user's is an error; a larger default is lowered with a warning.
    """
    cores = os.cpu_count() or 1
    is_of_files = dataset.DATA_SETS[given["dataset_name"]].resizable
    wanted = given["num_parallel_workers"] or (cores if is_of_files else WORKERS)
    if wanted > cores:
        if "num_parallel_workers" in given.chosen:
            raise UserError(f"--num_parallel_workers: got {wanted}, takes at most the {cores} cores of this machine")
        logger.warning("warning: this machine has cores for %d input threads alone, not for %d, which changes the "
                       "augmentations; for the same ones on a larger machine, give --num_parallel_workers %d there",
                       cores, wanted, cores)
    return given.fill(num_parallel_workers=min(wanted, cores))


def choose_precision(given: Given, process: Process) -> Given:
    """Fill in --amp_level: O2 where that is bfloat16, which is faster (docs/cpu.md). Rank 0 decides for all."""
    has_bfloat16 = process.cpu_library is not None and process.cpu_library.has_bfloat16
    level = share("O2" if has_bfloat16 else "O0", process)
    if given["amp_level"] is None:
        logger.info("--amp_level auto: %s", "O2, because this CPU has bfloat16" if level == "O2" else "O0, float32")
    return given.fill(amp_level=level)


def check_apart(images: Images, run_folder: Path) -> None:
    """Raise UserError where the run's own pictures would lie in the folder whose images are all trained on."""
    root = getattr(images.pixels, "root", None)
    folder = Path(os.path.realpath(run_folder))  # not resolve(), which raises other errors for links in a circle
    if root and Path(os.path.realpath(root)) in (folder, *folder.parents):
        raise UserError(f"--train_output_path: {run_folder} lies in {root}, all of whose images are trained on, and "
                        "would add its own pictures to them; name a folder outside")


def check_batch(count: int, batch_size: int, world_size: int, what: str = "images") -> None:
    """Raise UserError where ``count`` images do not fill a step on ``world_size`` devices."""
    if count < batch_size * world_size:
        devices = f" on {world_size} devices" if world_size > 1 else ""
        raise UserError(f"--batch_size: got {batch_size}{devices}, takes at most the {count // world_size} {what} that "
                        "each device has to train on")


def check_same(pixels: PixelSource, run: Run, flag: str, split: str) -> str:
    """Return the fingerprint of images; raise UserError where this rank has others than rank 0."""
    with run.together():
        mine = fingerprint(pixels)
    of_first = share(mine, run.process)  # outside of both: a rank that failed there would not come to this exchange
    with run.together():
        if mine != of_first:
            raise UserError(f"--{flag}: its {split} images ({mine}) are not those of rank 0 ({of_first}); give every "
                            "machine the same data")
    return mine


def normalisation(dataset_name: str, wanted: bool) -> Tuple[Optional[Colour], Optional[Colour]]:
    """Return the mean and deviation of the data set if pixels are to be normalised, else None twice."""
    data_set = dataset.DATA_SETS[dataset_name]
    return (data_set.mean, data_set.std) if wanted else (None, None)


def follow_images(given: Given) -> Given:
    """Fill in the side of the images and the stem; raise UserError where the data set has no images of that side."""
    side = given["image_size"] or dataset.DATA_SETS[given["dataset_name"]].side
    dataset.check_side(given["dataset_name"], side, "--image_size asks for")
    return given.fill(image_size=side, stem=given["stem"] or default_stem(side))

"""Draw what a training run will see, before it begins: some images, and views of them by its flags.

    python scripts/show_views.py --config configs/cifar10_resnet18_cpu.yaml --train_dataset_path /data/cifar10

The flags are the same as for train.py. The sheet is views.png in --train_output_path.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from src.common.errors import UserError
from src.common.files import writing
from src.common.logs import logger
from src.common.script import status_of
from src.run.preparing import prepare
from src.settings.parsing import parse
from src.settings.scripts import TrainSettings


def main() -> None:
    given = parse(TrainSettings, description=__doc__)
    process = prepare(given)

    # MindSpore reads the environment when it is imported, so these imports come after ``prepare``.
    from src import dataset
    from src.data.views import Views
    from src.run import inputs
    from src.run.folder import open_run
    from src.training import beginning, following

    with open_run(given["train_output_path"], process) as run:
        if run.layout.holds_run:
            raise UserError(f"--train_output_path: {run.layout.path} holds a run already; "
                            "name another folder")
        settings, _ = beginning.resolve(given, beginning.Start(), process.world_size)
        images = dataset.load(settings.dataset_name, settings.train_dataset_path, "pretrain",
                              num_samples=settings.num_samples, download=settings.download, side=settings.image_size)
        inputs.check_batch(len(images.pixels), settings.batch_size, process.world_size)
        views = Views(images.pixels, settings.batch_size, settings.augmentation, settings.seed,
                      settings.num_parallel_workers)
        with writing("train_output_path", run.layout.views):
            run.layout.path.mkdir(parents=True, exist_ok=True)
            following.draw_views(run.layout.views, views)
    logger.info("written: %s", run.layout.views)


if __name__ == "__main__":
    sys.exit(status_of(main))

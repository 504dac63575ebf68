"""What follows a run's records, besides the file that they are in: its page with images, events for TensorBoard."""
from typing import Optional

from src.common.files import writing, written_whole
from src.common.logs import logger
from src.data.images import Images
from src.data.sheet import sheet
from src.data.views import Views
from src.distributed.dry_run import is_dry_run
from src.evaluation.features import Split
from src.evaluation.shown import sample_of
from src.report.events import Events
from src.report.page import Keeper, try_to_write
from src.run import sample
from src.run.opened import Run


def follow(run: Run, report: bool, tensorboard: bool) -> None:
    """Let what was asked for follow the run that has begun; rank 0 alone does, and a dry run has nothing to show."""
    if not run.process.is_first or is_dry_run():
        return
    if report:
        run.records.also(Keeper(run.layout.path))
    if tensorboard:
        run.records.also(Events(run.layout.events))


def show_views(run: Run, report: bool, views: Views) -> None:
    """Draw a sheet of images with views of them, on rank 0.

    Raises:
        UserError: it cannot be written, or an image cannot be read.
    """
    if report and run.process.is_first and not is_dry_run():
        drawn = sheet(views)
        with writing("train_output_path", run.layout.views):
            run.layout.path.mkdir(parents=True, exist_ok=True)
            with written_whole(run.layout.views) as place:
                drawn.save(place, "PNG", optimize=True)


def show(run: Run, report: bool, train: Optional[Split], train_images: Optional[Images], test: Split,
         test_images: Images) -> None:
    """Keep what the page shows of the test images, on rank 0.

    Raises:
        UserError: it cannot be written.
    """
    if report and not is_dry_run():
        with writing("train_output_path", run.layout.sample):
            sample.write(run.layout.sample, sample_of(train, train_images, test, test_images))


def finish(run: Run, report: bool) -> None:
    """Write the page with all that takes seconds, on rank 0."""
    if report and not is_dry_run():
        failed = try_to_write(run.layout.path, compute=True)
        if failed:
            logger.warning("warning: the run's page could not be written (%s)", failed)

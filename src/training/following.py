"""What follows a run's records, besides the file that they are in: its page with images, events for TensorBoard.

Nothing of it may end a training or an evaluation: what fails is a warning.
"""
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator, Optional

from src.common.files import reason_of, written_whole
from src.common.logs import logger
from src.data.images import Images
from src.data.sheet import sheet
from src.data.views import Views
from src.device.dry_run import is_dry_run
from src.evaluation.features import Split
from src.evaluation.shown import sample_of
from src.run import sample
from src.run.folder import Run
from src.run.records import Record, Sink


def follow(run: Run, report: bool, tensorboard: bool) -> None:
    """Let what was asked for follow the run that has begun; rank 0 alone does, and a dry run has nothing to show."""
    if not run.process.is_first or is_dry_run():
        return
    if report:
        from src.report.page import PageWriter  # here: without a page nobody needs what draws it
        run.records.also(PageWriter(run.layout.path))
    if tensorboard:
        from src.report.events import Events
        run.records.also(_harmless(lambda: Events(run.layout), "events for TensorBoard"))


def draw_views(path: Path, views: Views) -> None:
    """Draw a sheet of images with views of them to the file ``path``, whole."""
    with written_whole(path) as place:
        sheet(views).save(place, "PNG", optimize=True)


def show_views(run: Run, wanted: bool, views: Views) -> None:
    """Keep the sheet of views for the page and for TensorBoard, on rank 0."""
    if wanted and run.process.is_first and not is_dry_run():
        with _tried("views of some images"):
            draw_views(run.layout.views, views)


def show(run: Run, report: bool, train: Optional[Split], train_images: Optional[Images], test: Split,
         test_images: Images) -> None:
    """Keep what the page shows of the test images, on rank 0."""
    if report and not is_dry_run():
        with _tried("a sample of the test images"):
            sample.write(run.layout.sample, sample_of(train, train_images, test, test_images))


def _harmless(make: Callable[[], Sink], what: str) -> Sink:
    """Return a sink that is made for the first record, and does nothing more after its first failure, a warning."""
    sink, failed = None, False

    def write(record: Record) -> None:
        nonlocal sink, failed
        if failed:
            return
        try:
            sink = sink or make()
            sink(record)
        except Exception as error:
            failed = True
            logger.warning("warning: no more %s are written (%s); the run goes on, and metrics.jsonl has everything",
                           what, reason_of(error))

    return write


@contextmanager
def _tried(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        logger.warning("warning: %s could not be kept for the run's page (%s), which goes without; look at the space "
                       "and the permissions of the run's folder", what, reason_of(error))

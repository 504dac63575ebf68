"""The page of a run and its events for TensorBoard, which follow the records while a script writes them.

A failure in here is a warning and never ends a training or an evaluation.
"""
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional

from src.common.files import reason_of, written_whole
from src.common.logs import logger
from src.data.images import Images
from src.data.views import Views, sheet
from src.device.dry_run import is_dry_run
from src.evaluation.features import Split
from src.evaluation.shown import sample_of
from src.run import sample
from src.run.folder import Run
from src.run.records import Record, Sink


def follow(run: Run, report: bool, tensorboard: bool, views: Optional[Views] = None) -> None:
    """Add the wanted page and events to the sinks of the run's records, on rank 0; keep a sheet of ``views`` for both.

    A dry run has nothing to show.
    """
    if not run.process.is_first or is_dry_run():
        return
    if views is not None and (report or tensorboard):
        with _harmless("views of some images"):
            draw_views(run.layout.views, views)
    if report:
        from src.report.page import PageWriter  # here, because without a page nobody needs its drawing libraries
        run.records.also(_expendable(PageWriter(run.layout.path), "the run's page"))
    if tensorboard:
        from src.report.events import Events
        run.records.also(_expendable(Events(run.layout), "events for TensorBoard"))


def draw_views(path: Path, views: Views) -> None:
    """Draw some images with views of them into the file ``path``."""
    with written_whole(path) as place:
        sheet(views).save(place, "PNG", optimize=True)


def show(run: Run, report: bool, train: Optional[Split], train_images: Optional[Images], test: Split,
         test_images: Images) -> None:
    """Keep a sample of the test images, with their places on a map, and write the page with it, on rank 0."""
    if report and not is_dry_run():
        with _harmless("a sample of the test images"):
            from src.report import page, runs
            sample.write(run.layout.sample, sample_of(train, train_images, test, test_images))
            page.write([runs.read(run.layout.path, quiet=True)], run.layout.report)


def _expendable(sink: Sink, what: str) -> Sink:
    """Return the same sink, whose failures are one warning: the run is worth more than what it writes."""
    has_failed = False

    def write(record: Record) -> None:
        nonlocal has_failed
        try:
            sink(record)
        except Exception as error:  # of any kind
            if not has_failed:
                logger.warning("warning: %s could not be written (%s); the run goes on, and metrics.jsonl has "
                               "everything", what, reason_of(error))
            has_failed = True

    return write


@contextmanager
def _harmless(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        logger.warning("warning: %s could not be kept for the run's page (%s), which does without; check the space and "
                       "the permissions of the run's folder", what, reason_of(error))

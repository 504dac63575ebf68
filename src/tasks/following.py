"""What follows a run's records, besides the file that they are in: the run's page."""
from src.distributed.dry_run import is_dry_run
from src.report.page import Keeper
from src.run.opened import Run


def follow(run: Run, report: bool) -> None:
    """Let what was asked for follow the run that has begun; rank 0 alone does, and a dry run has nothing to show."""
    if report and run.process.is_first and not is_dry_run():
        run.records.also(Keeper(run.layout.path))

"""A table of runs for the console, one line each."""
from pathlib import Path
from typing import List, Optional, Sequence

from src.report.runs import RunSummary

TITLES = ("linear", "kNN", "fine-tuned", "epochs", "data", "encoder", "run")


def percent(accuracy: Optional[float]) -> str:
    return "" if accuracy is None else f"{100 * accuracy:.2f} %"


def encoder_of(run: RunSummary) -> str:
    """Return a run's encoder in words, such as ``resnet18 x 0.5``; empty where no config.yaml says it."""
    encoder, width = run.setting("encoder"), run.setting("width_multiplier")
    return encoder or "" if width in (None, 1) else f"{encoder} x {width}"


def table(runs: Sequence[RunSummary], folder: Path) -> List[str]:
    """Return the lines of a table of ``runs``, which are named by their paths below ``folder``."""
    rows = [TITLES] + [(*map(percent, run.accuracies), run.state, run.setting("dataset_name") or "", encoder_of(run),
                        str(run.path.relative_to(folder))) for run in runs]
    widths = [max(len(row[column]) for row in rows) for column in range(len(TITLES))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]

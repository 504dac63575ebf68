"""Runs as a table on the console, a line each."""
from pathlib import Path
from typing import List, Optional, Sequence

from src.report.runs import Story

TITLES = ("linear", "kNN", "fine-tuned", "epochs", "data", "encoder", "run")


def percent(accuracy: Optional[float]) -> str:
    return "" if accuracy is None else f"{100 * accuracy:.2f} %"


def encoder_of(run: Story) -> str:
    """Say which encoder a run has, such as ``resnet18 x 0.5``."""
    encoder, width = run.setting("encoder"), run.setting("width_multiplier")
    return "" if encoder is None else encoder if width in (None, 1) else f"{encoder} x {width:g}"


def table(runs: Sequence[Story], folder: Path) -> List[str]:
    """Return the lines of a table of ``runs``, which are named by their places in ``folder``."""
    rows = [TITLES] + [(*map(percent, run.accuracies), run.state, run.setting("dataset_name") or "", encoder_of(run),
                        str(run.path.relative_to(folder))) for run in runs]
    widths = [max(len(row[column]) for row in rows) for column in range(len(TITLES))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]

"""The names and paths of a run on disk. They are all here; docs/training.md shows them as a tree."""
import os
import re
from pathlib import Path
from typing import List, NamedTuple, Optional, Union

LATEST = "latest"  # beside checkpoints: a link to the newest
PRETRAINED, CLASSIFIERS = "checkpoint_simclr", "linear_classifier"  # how the names of checkpoints begin
# The names of a script's own config.yaml and log begin with this.
PRETRAINING, EVALUATION, FINE_TUNING = "", "eval_", "finetune_"


class Series(NamedTuple):
    """The checkpoints of one training by epoch, ``<prefix>-<epoch>.ckpt``, and `latest`, a link to the newest."""

    folder: Path
    prefix: str

    @property
    def latest(self) -> Path:
        return self.folder / LATEST

    def of_epoch(self, epoch: int) -> Path:
        """Return the path of an epoch's checkpoint, which need not exist."""
        return self.folder / f"{self.prefix}-{epoch}.ckpt"

    def epoch_of(self, file: Path) -> int:
        """Return the epoch in a file's name; 0 for epoch 0 and for files of other names."""
        match = re.fullmatch(re.escape(self.prefix) + r"-([1-9]\d*)\.ckpt", file.name)
        return int(match[1]) if match else 0

    def files(self) -> List[Path]:
        """Return the checkpoints on disk from epoch 1 on, by epoch (9 before 10)."""
        return sorted(filter(self.epoch_of, self.folder.glob("*")), key=self.epoch_of)


class FineTuned:
    """What finetune.py writes for one kind of initial weights and one share of the labels."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.encoder = folder / "encoder.ckpt"
        self.classifier = folder / "linear_classifier.ckpt"


class Layout:
    """The paths of a run in the folder ``path``."""

    def __init__(self, path: Union[str, Path]):
        self.path = Path(path)
        self.checkpoints = Series(self.path / "checkpoint", PRETRAINED)
        self.classifiers = Series(self.path / "linear_classifier", CLASSIFIERS)
        self.records = self.path / "metrics.jsonl"
        self.report = self.path / "report.html"
        self.views = self.path / "views.png"     # some training images and views of them
        self.sample = self.path / "sample.npz"   # the test images that the page shows
        self.events = self.path / "tensorboard"
        self.features = self.path / "features"
        self.graphs = self.path / "graphs"
        self.lock = self.path / ".lock"          # exists while a script writes to the folder
        self.dry_run = self.path / "dry_run"     # marks the folder of a dry run, whose files mean nothing

    def config(self, prefix: str) -> Path:
        """Return the file of a script's resolved settings; ``prefix`` is the script's, such as ``EVALUATION``."""
        return self.path / f"{prefix}config.yaml"

    def log(self, prefix: str) -> Path:
        return self.path / f"{prefix}log"

    def fine_tuned(self, initial_weights: str, label_fraction: float) -> FineTuned:
        return FineTuned(self.path / "finetune" / f"{initial_weights}-{label_fraction:g}")

    @property
    def folders(self) -> List[Path]:
        """The existing folders that scripts write to, where a killed one may have left an unfinished file."""
        return [folder for folder in (self.path, self.checkpoints.folder, self.classifiers.folder, self.features,
                                      *(self.path / "finetune").glob("*")) if folder.is_dir()]

    @property
    def holds_run(self) -> bool:
        """Whether a script has begun here."""
        return self.records.is_file() or any(
            self.config(prefix).is_file() for prefix in (PRETRAINING, EVALUATION, FINE_TUNING))


def series_at(path: Path, prefix: str) -> Optional[Series]:
    """Return the checkpoints that a user means by ``path``, or None.

    It may be a run's folder, the folder of its checkpoints, or `latest` in that one.
    """
    if path.name == LATEST and not path.is_dir():
        return Series(path.parent, prefix)
    folders = (path, Layout(path).checkpoints.folder) if path.is_dir() else ()
    candidates = (Series(folder, prefix) for folder in folders)
    return next((series for series in candidates if os.path.lexists(series.latest) or series.files()), None)

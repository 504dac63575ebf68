"""The names and paths of a run on disk. They are all here; docs/training.md shows them as a tree."""
import os
import re
from pathlib import Path
from typing import List, NamedTuple, Optional

LATEST = "latest"  # beside checkpoints: a link to the newest
PRETRAINED, CLASSIFIERS = "checkpoint_simclr", "linear_classifier"  # how the names of checkpoints begin
# A script's own config.yaml and log begin with this.
PRETRAINING, EVALUATION, FINE_TUNING = "", "eval_", "finetune_"


class Series(NamedTuple):
    """The checkpoints of epochs, ``<prefix>-<epoch>.ckpt``, and `latest`, a link to the newest."""

    folder: Path
    prefix: str

    @property
    def latest(self) -> Path:
        return self.folder / LATEST

    def of_epoch(self, epoch: int) -> Path:
        """Return the file of an epoch, whether it is there or not."""
        return self.folder / f"{self.prefix}-{epoch}.ckpt"

    def epoch_of(self, file: Path) -> int:
        """Return the epoch of a file, 0 where it is none of the series from epoch 1 on."""
        match = re.fullmatch(re.escape(self.prefix) + r"-([1-9]\d*)\.ckpt", file.name)
        return int(match[1]) if match else 0

    def files(self) -> List[Path]:
        """Return the files that are there from epoch 1 on, by epoch (9 before 10)."""
        return sorted(filter(self.epoch_of, self.folder.glob("*")), key=self.epoch_of)


class FineTuned(NamedTuple):
    """The folder of one kind of first weights and share of labels, in a run's folder."""

    folder: Path

    @property
    def encoder(self) -> Path:
        return self.folder / "encoder.ckpt"

    @property
    def classifier(self) -> Path:
        return self.folder / "linear_classifier.ckpt"

    @property
    def begun(self) -> Path:
        """What the training there was begun with, so that it can be taken up."""
        return self.folder / "begun.json"

    def labels(self, seed: int) -> Path:
        """Return the file with the numbers of the images whose labels are used."""
        return self.folder / f"labels-seed-{seed}.json"


class Layout(NamedTuple):
    """The paths of a run in ``path``."""

    path: Path

    @classmethod
    def of(cls, path: str) -> "Layout":
        return cls(Path(path))

    @property
    def checkpoints(self) -> Series:
        return Series(self.path / "checkpoint", PRETRAINED)

    @property
    def classifiers(self) -> Series:
        return Series(self.path / "linear_classifier", CLASSIFIERS)

    @property
    def dry_run(self) -> Path:
        """What marks the folder of a dry run, whose files mean nothing."""
        return self.path / "dry_run"

    @property
    def records(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def report(self) -> Path:
        """The run as a page."""
        return self.path / "report.html"

    @property
    def views(self) -> Path:
        """Some training images with views of them, as a picture."""
        return self.path / "views.png"

    @property
    def events(self) -> Path:
        """The records once more, for TensorBoard."""
        return self.path / "tensorboard"

    @property
    def sample(self) -> Path:
        """What the page shows of the test images."""
        return self.path / "sample.npz"

    @property
    def features(self) -> Path:
        return self.path / "features"

    @property
    def graphs(self) -> Path:
        return self.path / "graphs"

    @property
    def folders(self) -> List[Path]:
        """What the scripts write to, and so may leave something unfinished in."""
        return [folder for folder in (self.path, self.checkpoints.folder, self.classifiers.folder, self.features,
                                      *(self.path / "finetune").glob("*")) if folder.is_dir()]

    @property
    def holds_run(self) -> bool:
        """Whether a script has begun here."""
        return self.records.is_file() or any(
            self.config(script).is_file() for script in (PRETRAINING, EVALUATION, FINE_TUNING))

    @property
    def lock(self) -> Path:
        """What says that a script writes here, as long as it does."""
        return self.path / ".lock"

    def config(self, script: str) -> Path:
        """Return the file of the resolved settings of ``script``, such as ``EVALUATION``."""
        return self.path / f"{script}config.yaml"

    def log(self, script: str) -> Path:
        return self.path / f"{script}log"

    def fine_tuned(self, initial_weights: str, label_fraction: float) -> FineTuned:
        return FineTuned(self.path / "finetune" / f"{initial_weights}-{label_fraction:g}")


def series_at(path: Path, prefix: str) -> Optional[Series]:
    """Return the checkpoints that ``path`` stands for: a run's folder, theirs, or `latest` in it, else None."""
    if path.name == LATEST and not path.is_dir():
        return Series(path.parent, prefix)
    folders = (path, Layout(path).checkpoints.folder) if path.is_dir() else ()
    known = (Series(folder, prefix) for folder in folders)
    return next((series for series in known if os.path.lexists(series.latest) or series.files()), None)

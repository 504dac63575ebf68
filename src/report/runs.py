"""Reads the folder of a run: settings, records and pictures, of a finished run or of one in progress."""
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import yaml

from src.common.errors import UserError
from src.common.files import read_text, reading, reason_of
from src.common.logs import logger
from src.run import records, sample
from src.run.layout import EVALUATION, FINE_TUNING, PRETRAINING, Layout
from src.run.records import Record
from src.run.sample import Sample

LARGEST_CONFIG = 2**16  # bytes; a config.yaml has some 4,000, and YAML is slow to read
SCRIPT_OF_CONFIG = {PRETRAINING: "train.py", EVALUATION: "linear_eval.py", FINE_TUNING: "finetune.py"}
RESULT_KINDS = (records.LINEAR_EVAL, records.KNN_EVAL, records.FINETUNE_EVAL, records.REPEATED_EVAL)
# Results are shown in this order, those of other protocols after them.
PROTOCOL_ORDER = (records.LINEAR_SGD, records.LINEAR_LBFGS, records.KNN, records.FINE_TUNED, records.SUPERVISED)


class Result(NamedTuple):
    """The latest accuracy by one protocol.

    A repeated evaluation has the mean over its ``seeds``, and their ``deviation``. ``last`` is the record of the last
    seed.
    """

    protocol_id: str
    protocol: str
    mean: float
    interval: Optional[Sequence[float]]
    deviation: Optional[float]
    seeds: int
    last: Record


class RunSummary(NamedTuple):
    """What the folder of a run holds. ``configs`` has the contents of config.yaml by script."""

    path: Path
    name: str
    configs: Dict[str, Dict[str, Any]]
    records: List[Record]
    sample: Optional[Sample] = None
    views: Optional[bytes] = None  # PNG

    def of_kind(self, *kinds: str) -> List[Record]:
        return [record for record in self.records if record["kind"] in kinds]

    def setting(self, name: str) -> Any:
        """Return a setting's value from the first script that has one, or None."""
        values = (config["settings"].get(name) for config in self.configs.values())
        return next((value for value in values if value is not None), None)

    @property
    def state(self) -> str:
        """The progress of the run in words."""
        done = max((record["epoch"] for record in self.of_kind(records.PRETRAIN)), default=0)
        wanted = self.configs.get("train.py", {}).get("settings", {}).get("epoch_size")
        if wanted is None and not done:
            return "evaluated" if self.results else "in progress" if self.records else "not begun"
        return f"{done} epochs" if wanted is None or done >= wanted else f"{done} of {wanted} epochs"

    @property
    def results(self) -> List[Result]:
        """The results, one for each protocol: an evaluation replaces earlier ones by the same protocol."""
        latest: Dict[Tuple[str, str], Result] = {}
        for record in self.of_kind(*RESULT_KINDS):
            protocol = record["protocol_id"], record["protocol"]
            if record["kind"] != records.REPEATED_EVAL:
                interval = record.get("accuracy_interval")
                latest[protocol] = Result(*protocol, record["accuracy"], interval, None, 1, record)
            elif protocol in latest:  # the summary follows the records of its seeds
                latest[protocol] = latest[protocol]._replace(
                    mean=record["accuracy_mean"], interval=record["accuracy_interval"],
                    deviation=record["accuracy_std"], seeds=len(record["seeds"]))
        return sorted(latest.values(),
                      key=lambda result: (*PROTOCOL_ORDER, result.protocol_id).index(result.protocol_id))

    def accuracy(self, *protocol_ids: str) -> Optional[float]:
        """Return the best accuracy by the first of these protocols that has results, or None."""
        for protocol_id in protocol_ids:
            means = [result.mean for result in self.results if result.protocol_id == protocol_id]
            if means:
                return max(means)
        return None

    @property
    def accuracies(self) -> Tuple[Optional[float], Optional[float], Optional[float]]:
        """The accuracies of a linear classifier, of kNN and of the fine-tuned network."""
        knn = self.accuracy(records.KNN)
        if knn is None:  # the monitor's are of fewer images
            knn = next((record.get("knn_accuracy") for record in reversed(self.of_kind(records.MONITOR))), None)
        return self.accuracy(records.LINEAR_SGD, records.LINEAR_LBFGS), knn, self.accuracy(records.FINE_TUNED)


def read(folder: Path, pictures: bool = True, quiet: bool = False) -> RunSummary:
    """Read the run in ``folder``, with or without its pictures; ``quiet`` is that of ``records.read``.

    Raises a UserError where the folder holds no run, or a file cannot be read or is damaged.
    """
    layout = Layout(folder)
    with reading(folder):
        holds_run = layout.holds_run
    if not holds_run:
        raise UserError(f"{folder}: holds no run (neither {layout.records.name} nor config.yaml); name the "
                        "--train_output_path of train.py, linear_eval.py or finetune.py")
    if layout.dry_run.exists():
        raise UserError(f"{folder}: holds the files of a dry run, which mean nothing; name the folder of a real run")
    configs = {script: _config(layout.config(prefix)) for prefix, script in SCRIPT_OF_CONFIG.items()
               if layout.config(prefix).is_file()}
    with reading(folder):
        lines = records.read(layout.records, quiet) if layout.records.is_file() else []
        views = layout.views.read_bytes() if pictures and layout.views.is_file() else None
    with _whole(layout.sample, "remove it, and linear_eval.py makes another"):
        images = sample.read(layout.sample) if pictures else None
    return RunSummary(folder, folder.resolve().name, configs, lines, images, views)


def _config(file: Path) -> Dict[str, Any]:
    remedy = "restore the file, or remove it"
    text = read_text(file, str(file), remedy, LARGEST_CONFIG)
    with _whole(file, remedy):
        # With aliases a small file can stand for a text that no memory holds.
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ValueError("it has an alias")
        config = yaml.safe_load(text)
        return {**config, "settings": dict(config["settings"])}


@contextmanager
def _whole(file: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # PyYAML and NumPy raise all kinds for damaged files
        raise UserError(f"{file}: is damaged or cannot be read ({reason_of(error)}); {remedy}") from None


def with_distinct_names(runs: Sequence[RunSummary]) -> List[RunSummary]:
    """Return the runs, named by their whole paths where their folders do not tell them apart."""
    if len({run.name for run in runs}) == len(runs):
        return list(runs)
    return [run._replace(name=str(run.path)) for run in runs]


def below(folder: Path) -> List[RunSummary]:
    """Return the runs in ``folder`` and below it without their pictures, the most accurate first.

    Links are not followed. A run that cannot be read is left out with a warning. Raises a UserError where there is no
    such folder, or no run in it.
    """
    if not folder.is_dir():
        raise UserError(f"--list: got {folder}, takes a folder with runs in it")
    summaries = []
    for path, _, _ in sorted(os.walk(folder)):
        try:
            with reading(path):
                holds_run = Layout(Path(path)).holds_run
            if holds_run:
                summaries.append(read(Path(path), pictures=False))
        except UserError as error:
            logger.warning("warning: left out: %s", error)
    if not summaries:
        raise UserError(f"--list: there is no run in {folder} or below it; name the folder that holds the "
                        "--train_output_path of your runs")
    return sorted(summaries, key=lambda run: [-1 if accuracy is None else accuracy for accuracy in run.accuracies],
                  reverse=True)

"""What the folder of a run tells: its settings and records, of a finished run or one in progress, without MindSpore."""
import os
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import yaml

from src.common.errors import UserError
from src.common.files import reading
from src.run import records, sample
from src.run.layout import EVALUATION, FINE_TUNING, PRETRAINING, Layout
from src.run.records import Record
from src.run.sample import Sample

SCRIPTS = {PRETRAINING: "train.py", EVALUATION: "linear_eval.py", FINE_TUNING: "finetune.py"}
RESULTS = (records.LINEAR_EVAL, records.KNN_EVAL, records.FINETUNE_EVAL)
ORDER = (records.LINEAR_SGD, records.LINEAR_LBFGS, records.KNN, records.FINE_TUNED, records.SUPERVISED)  # of results


class Story(NamedTuple):
    """A run in words, numbers and pictures: ``configs`` are the contents of its config.yaml's, by script."""

    path: Path
    configs: Dict[str, Dict[str, Any]]
    records: List[Record]
    sample: Optional[Sample] = None
    views: Optional[bytes] = None  # a picture, PNG

    @property
    def name(self) -> str:
        return self.path.name or str(self.path)

    def of_kind(self, *kinds: str) -> List[Record]:
        return [record for record in self.records if record["kind"] in kinds]

    def setting(self, name: str) -> Any:
        """Return the value of a setting in the first script that has it, or None."""
        return next((config["settings"][name] for config in self.configs.values()
                     if config.get("settings", {}).get(name) is not None), None)

    @property
    def epochs(self) -> Tuple[int, Optional[int]]:
        """How many epochs of pretraining are done, and how many there were to be, if that is known."""
        done = max((record["epoch"] for record in self.of_kind(records.PRETRAIN)), default=0)
        return done, self.configs.get("train.py", {}).get("settings", {}).get("epoch_size")

    @property
    def state(self) -> str:
        done, wanted = self.epochs
        if wanted is None:
            return "evaluated" if self.results else "not begun"
        if done < wanted:
            return f"{done} of {wanted} epochs"
        return f"{done} epochs"

    @property
    def results(self) -> List[Record]:
        """The evaluations, of those with the same protocol and seed the last."""
        found = {(record["protocol_id"], record["protocol"], record["seed"], record.get("initial_weights")): record
                 for record in self.of_kind(*RESULTS)}
        return sorted(found.values(), key=lambda record: (*ORDER, record["protocol_id"]).index(record["protocol_id"]))

    def accuracy(self, *protocol_ids: str) -> Optional[float]:
        """Return the accuracy by the first of these protocols that the run has, and the best where it has several."""
        of_protocol = ([result["accuracy"] for result in self.results if result["protocol_id"] == protocol_id]
                       for protocol_id in protocol_ids)
        return next((max(accuracies) for accuracies in of_protocol if accuracies), None)

    @property
    def knn_accuracy(self) -> Optional[float]:
        """That of linear_eval.py, else the monitor's last, which is of fewer images."""
        monitored = [record["knn_accuracy"] for record in self.of_kind(records.MONITOR)]
        evaluated = self.accuracy(records.KNN)
        return evaluated if evaluated is not None else monitored[-1] if monitored else None

    @property
    def accuracies(self) -> Tuple[Optional[float], Optional[float], Optional[float]]:
        """By a linear classifier, by kNN, and of the fine-tuned network."""
        return (self.accuracy(records.LINEAR_SGD, records.LINEAR_LBFGS), self.knn_accuracy,
                self.accuracy(records.FINE_TUNED))


def is_run(folder: Path) -> bool:
    """Say whether ``folder`` has what a run leaves from its first moment on."""
    return any(Layout(folder).config(script).is_file() for script in SCRIPTS) or Layout(folder).records.is_file()


def read(folder: Path) -> Story:
    """Read the run in ``folder``.

    Raises:
        UserError: there is none, or its files cannot be read.
    """
    if not is_run(folder):
        raise UserError(f"{folder}: holds no run (neither {Layout(folder).records.name} nor config.yaml); name the "
                        "--train_output_path of train.py, linear_eval.py or finetune.py")
    layout, configs = Layout(folder), {}
    for prefix, script in SCRIPTS.items():
        file = layout.config(prefix)
        if file.is_file():
            with reading(file):
                configs[script] = _config(file)
    found: List[Record] = []
    if layout.records.is_file():
        with reading(layout.records):
            found = records.read(layout.records)
    with reading(folder):
        views = layout.views.read_bytes() if layout.views.is_file() else None
        return Story(folder, configs, found, sample.read(layout.sample), views)


def _config(file: Path) -> Dict[str, Any]:
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: is not YAML ({' '.join(str(error).split())}); remove it, or write what a script has "
                        "written there") from None
    if not isinstance(config, dict) or not isinstance(config.get("settings"), dict):
        raise UserError(f"{file}: holds no settings; remove it, or write what a script has written there")
    return config


def below(folder: Path) -> List[Story]:
    """Return the runs in ``folder`` and below it, the most accurate first; links are not followed.

    Raises:
        UserError: there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise UserError(f"--list: got {folder}, takes a folder with runs in it")
    found = [read(Path(place)) for place, _, _ in sorted(os.walk(folder)) if is_run(Path(place))]
    if not found:
        raise UserError(f"--list: there is no run in {folder} or below it; name the folder that holds the "
                        "--train_output_path of your runs")
    return sorted(found, key=lambda run: [-1 if accuracy is None else accuracy for accuracy in run.accuracies],
                  reverse=True)

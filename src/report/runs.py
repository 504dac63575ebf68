"""What the folder of a run tells: its settings and records, of a finished run or one in progress, without MindSpore."""
import os
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import yaml

from src.common.errors import UserError
from src.common.files import read_text, reading, reason_of
from src.common.logs import logger
from src.run import records, sample
from src.run.layout import EVALUATION, FINE_TUNING, PRETRAINING, Layout
from src.run.records import Record
from src.run.sample import Sample

LARGEST_CONFIG = 2**16  # bytes; one is some 4,000, and to read YAML takes long
SCRIPTS = {PRETRAINING: "train.py", EVALUATION: "linear_eval.py", FINE_TUNING: "finetune.py"}
RESULTS = (records.LINEAR_EVAL, records.KNN_EVAL, records.FINETUNE_EVAL, records.REPEATED_EVAL)
ORDER = (records.LINEAR_SGD, records.LINEAR_LBFGS, records.KNN, records.FINE_TUNED, records.SUPERVISED)  # of results


class Result(NamedTuple):
    """What an evaluation has found: the mean over its ``seeds``, with an interval and a deviation where they are known.

    ``last`` is the record of its last seed.
    """

    protocol_id: str
    protocol: str
    mean: float
    interval: Optional[Sequence[float]]
    deviation: Optional[float]
    seeds: int
    last: Record


class Story(NamedTuple):
    """A run in words, numbers and pictures: ``configs`` are the contents of its config.yaml's, by script."""

    path: Path
    name: str
    configs: Dict[str, Dict[str, Any]]
    records: List[Record]
    sample: Optional[Sample] = None
    views: Optional[bytes] = None  # a picture, PNG

    def of_kind(self, *kinds: str) -> List[Record]:
        return [record for record in self.records if record["kind"] in kinds]

    def setting(self, name: str) -> Any:
        """Return the value of a setting in the first script that has it, or None."""
        return next((config["settings"][name] for config in self.configs.values()
                     if config["settings"].get(name) is not None), None)

    @property
    def state(self) -> str:
        """How far the run has come, in words."""
        done = max((record["epoch"] for record in self.of_kind(records.PRETRAIN)), default=0)
        wanted = self.configs.get("train.py", {}).get("settings", {}).get("epoch_size")
        if wanted is None and not done:
            return "evaluated" if self.results else "in progress" if self.records else "not begun"
        return f"{done} epochs" if wanted is None or done >= wanted else f"{done} of {wanted} epochs"

    @property
    def results(self) -> List[Result]:
        """The evaluations, in a fixed order of their protocols; of those with the same protocol the last counts."""
        found: Dict[Tuple[str, str], Dict[int, Record]] = {}  # by protocol and seed
        repeated: Dict[Tuple[str, str], Record] = {}
        for record in self.of_kind(*RESULTS):
            protocol = record["protocol_id"], record["protocol"]
            if record["kind"] == records.REPEATED_EVAL:
                repeated[protocol] = record
                continue
            if protocol in repeated or record["seed"] in found.get(protocol, {}):  # it was evaluated again
                repeated.pop(protocol, None)
                found[protocol] = {}
            found.setdefault(protocol, {})[record["seed"]] = record
        results = [_result(list(by_seed.values()), repeated.get(protocol)) for protocol, by_seed in found.items()]
        return sorted(results, key=lambda result: (*ORDER, result.protocol_id).index(result.protocol_id))

    def accuracy(self, *protocol_ids: str) -> Optional[float]:
        """Return the accuracy by the first of these protocols that the run has: of several results the best."""
        of_protocol = ([result.mean for result in self.results if result.protocol_id == protocol_id]
                       for protocol_id in protocol_ids)
        return next((max(means) for means in of_protocol if means), None)

    @property
    def knn_accuracy(self) -> Optional[float]:
        """That of linear_eval.py, else the monitor's last, which is of fewer images."""
        monitored = [record.get("knn_accuracy") for record in self.of_kind(records.MONITOR)]
        evaluated = self.accuracy(records.KNN)
        return evaluated if evaluated is not None else monitored[-1] if monitored else None

    @property
    def accuracies(self) -> Tuple[Optional[float], Optional[float], Optional[float]]:
        """By a linear classifier, by kNN, and of the fine-tuned network."""
        return (self.accuracy(records.LINEAR_SGD, records.LINEAR_LBFGS), self.knn_accuracy,
                self.accuracy(records.FINE_TUNED))


def _result(by_seed: List[Record], repeated: Optional[Record]) -> Result:
    last = by_seed[-1]
    mean, interval, deviation, seeds = last["accuracy"], last.get("accuracy_interval"), None, by_seed
    if repeated:
        mean, interval, deviation = (repeated.get(f"accuracy_{what}") for what in ("mean", "interval", "std"))
        if isinstance(repeated.get("seeds"), list):  # with those that had the same result before, and no record since
            seeds = repeated["seeds"]
    return Result(last["protocol_id"], last["protocol"], mean, interval, deviation, len(seeds), last)


def read(folder: Path, pictures: bool = True, quiet: bool = False) -> Story:
    """Read the run in ``folder``, with the pictures that it has kept or without; ``quiet`` as for ``records.read``.

    Raises:
        UserError: there is none, or its files cannot be read.
    """
    layout = Layout(folder)
    with reading(folder):
        is_there = layout.holds_run
    if not is_there:
        raise UserError(f"{folder}: holds no run (neither {layout.records.name} nor config.yaml); name the "
                        "--train_output_path of train.py, linear_eval.py or finetune.py")
    if layout.dry_run.exists():
        raise UserError(f"{folder}: holds the files of a dry run, which mean nothing; name the folder of a real one")
    configs = {script: _config(layout.config(prefix)) for prefix, script in SCRIPTS.items()
               if layout.config(prefix).is_file()}
    return Story(folder, folder.resolve().name, configs, _records(layout.records, quiet),
                 *(_pictures(layout) if pictures else ()))


class _Plain(yaml.SafeLoader):
    """YAML without aliases, by which a small file can stand for one that no memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias")
        return super().compose_node(parent, index)


def _config(file: Path) -> Dict[str, Any]:
    remedy = "bring back what was written there, or take it away"
    text = read_text(file, str(file), remedy, LARGEST_CONFIG)
    try:
        config = yaml.load(text, _Plain)  # noqa: S506 - it is a safe loader
        is_config = _is_plain(config) and _is_config(config)
    except Exception as error:  # of what is no YAML PyYAML raises all kinds
        raise UserError(f"{file}: is not YAML ({reason_of(error)}); {remedy}") from None
    if not is_config:
        raise UserError(f"{file}: holds no settings of a run; {remedy}")
    return config


def _is_plain(value: Any) -> bool:
    """Return whether a value is what settings are made of, and can be shown."""
    if isinstance(value, (list, dict)):
        keys, inner = (value, value.values()) if isinstance(value, dict) else ((), value)
        return all(isinstance(key, str) for key in keys) and all(map(_is_plain, inner))
    return value is None or isinstance(value, (str, float)) or isinstance(value, int) and abs(value) < 2**63


def _is_config(config: Any) -> bool:
    """Return whether it is a run's, with settings that can be put into words."""
    if not isinstance(config, dict) or not isinstance(config.get("settings"), dict):
        return False
    return isinstance(config.get("command_line", []), list) and all(
        isinstance(config["settings"].get(name), (type(None), *kinds)) for name, kinds in (
            ("dataset_name", (str,)), ("encoder", (str,)), ("width_multiplier", (int, float)), ("epoch_size", (int,))))


def _records(file: Path, quiet: bool) -> List[Record]:
    if not file.is_file():
        return []
    with reading(file):
        return records.read(file, quiet)


def _pictures(layout: Layout) -> Tuple[Optional[Sample], Optional[bytes]]:
    try:
        with reading(layout.sample):
            kept = sample.read(layout.sample)
    except UserError:
        raise
    except Exception as error:  # of damaged files NumPy raises all kinds
        raise UserError(f"{layout.sample}: is damaged ({reason_of(error)}); remove it, and linear_eval.py makes another"
                        ) from None
    with reading(layout.views):
        return kept, layout.views.read_bytes() if layout.views.is_file() else None


def told_apart(runs: Sequence[Story]) -> List[Story]:
    """Return the runs with names that are different: as many of their last folders as that takes, else a number too."""
    parts = [run.path.resolve().parts for run in runs]
    deepest = max(map(len, parts))
    names = next((tails for tails in ([os.path.join(*of_run[-count:]) for of_run in parts]
                                      for count in range(1, deepest + 1)) if len(set(tails)) == len(tails)),
                 [f"{run.name} ({number})" for number, run in enumerate(runs, 1)])
    return [run._replace(name=name) for run, name in zip(runs, names)]


def below(folder: Path) -> List[Story]:
    """Return the runs in ``folder`` and below it, the most accurate first; links are not followed.

    Those that cannot be read are left out with a warning.

    Raises:
        UserError: there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise UserError(f"--list: got {folder}, takes a folder with runs in it")
    found = []
    for place, _, _ in sorted(os.walk(folder)):
        if Layout(Path(place)).holds_run:
            try:
                found.append(read(Path(place), pictures=False))
            except UserError as error:
                logger.warning("warning: left out: %s", error)
    if not found:
        raise UserError(f"--list: there is no run in {folder} or below it; name the folder that holds the "
                        "--train_output_path of your runs")
    return sorted(found, key=lambda run: [-1 if accuracy is None else accuracy for accuracy in run.accuracies],
                  reverse=True)

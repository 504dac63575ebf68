"""The records of a run: what kinds there are, and how they are written and read. Everything shown is made of them.

A record is a JSON object with its ``kind``. Those of evaluations have the ``protocol`` in words, and as an identifier
by which they can be compared, ``protocol_id``.
"""
import json
from pathlib import Path
from typing import Any, Callable, Dict, List

from src.common.files import write_text

# Kinds.
PRETRAIN = "pretrain"                    # an epoch of train.py
MONITOR = "monitor"                      # how good its representations are
CLASSIFIER_EPOCH = "linear_classifier"   # an epoch of the linear classifier
LINEAR_EVAL = "linear_eval"
KNN_EVAL = "knn_eval"
FINETUNE = "finetune"                    # an epoch of finetune.py
FINETUNE_EVAL = "finetune_eval"
REPEATED_EVAL = "repeated_eval"          # mean and deviation over seeds

# Protocol identifiers.
LINEAR_SGD = "linear_sgd"
LINEAR_LBFGS = "linear_lbfgs"
KNN = "knn"
FINE_TUNED = "fine_tuned"
SUPERVISED = "supervised"

# How the prose of records without an identifier begins: those of earlier versions.
_PROSE = {"linear classifier": LINEAR_SGD, "multinomial logistic regression": LINEAR_LBFGS, "weighted kNN": KNN,
          "fine-tuning": FINE_TUNED, "supervised training": SUPERVISED}

Record = Dict[str, Any]
Sink = Callable[[Record], None]


class Records:
    """Hands every record to all of its sinks; without sinks, as on other ranks than 0, to none."""

    def __init__(self, *sinks: Sink):
        self.sinks = list(sinks)

    def also(self, sink: Sink) -> None:
        """Hand the records to come to ``sink`` too, after those that are there."""
        self.sinks.append(sink)

    def add(self, record: Record) -> None:
        for sink in self.sinks:
            sink(record)


def appended_to(path: Path) -> Sink:
    """Return a sink that appends a line of JSON to ``path``."""
    def append(record: Record) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    return append


def read(path: Path) -> List[Record]:
    """Return the records of a file, without a line that a killed process left unfinished."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [_up_to_date(json.loads(line)) for line in lines[:-1] if line]


def keep(path: Path, wanted: Callable[[Record], bool]) -> None:
    """Drop the records that are not ``wanted``, and a last line that was cut short."""
    if path.exists():
        kept = [json.dumps(record) + "\n" for record in read(path) if wanted(record)]
        write_text(path, "".join(kept))


def _up_to_date(record: Record) -> Record:
    if "protocol" not in record or "protocol_id" in record or record["kind"] == MONITOR:
        return record
    known = (identifier for prose, identifier in _PROSE.items() if record["protocol"].startswith(prose))
    return {**record, "protocol_id": next(known, record["kind"])}

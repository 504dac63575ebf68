"""The records of a run: which kinds there are, and how they are written and read. All that is shown is made of them.

A record is a JSON object with its ``kind``. The record of an evaluation has the ``protocol`` in words, and also an
identifier by which evaluations are compared, ``protocol_id``.
"""
import errno
import json
import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from src.common.files import reading, write_text, writing
from src.common.logs import logger

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

# Keys of records that are measurements.
MEASUREMENTS = ("loss", "last_loss", "contrastive_accuracy", "train_accuracy", "learning_rate", "gradient_norm",
                "images_per_second", "knn_accuracy", "alignment", "uniformity", "embedding_std", "effective_rank",
                "accuracy", "top5_accuracy", "accuracy_mean", "accuracy_std")

# What every record of a kind has.
_EPOCH = {"epoch": int}
_RESULT = {"protocol": str, "protocol_id": str, "seed": int, "accuracy": (int, float)}
_FIELDS = {PRETRAIN: _EPOCH, MONITOR: _EPOCH, CLASSIFIER_EPOCH: _EPOCH, FINETUNE: _EPOCH,
           LINEAR_EVAL: _RESULT, KNN_EVAL: _RESULT, FINETUNE_EVAL: _RESULT,
           REPEATED_EVAL: {"protocol": str, "protocol_id": str, "accuracy_mean": (int, float)}}

Record = Dict[str, Any]
Sink = Callable[[Record], None]


class Records:
    """Hands every record to all of its sinks; other ranks than 0 have none."""

    def __init__(self, *sinks: Sink):
        self.sinks = list(sinks)

    def also(self, sink: Sink) -> None:
        """Hand later records to ``sink`` too, after the sinks before it."""
        self.sinks.append(sink)

    def add(self, record: Record) -> None:
        for sink in self.sinks:
            sink(record)


def appended_to(path: Path) -> Sink:
    """Return a sink that appends a line of JSON to ``path``, in the folder --train_output_path."""
    def append(record: Record) -> None:
        line = json.dumps(record, allow_nan=False) + "\n"
        with writing("train_output_path", path), path.open("ab+", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(-1, os.SEEK_END)
                # A killed process may have left half a line, which must not take this one with it.
                line = line if file.read(1) == b"\n" else "\n" + line
            try:
                if file.write(line.encode()) < len(line.encode()):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(size)  # on a full disk: no half lines
                raise

    return append


def read(path: Path, quiet: bool = False) -> List[Record]:
    """Return the records of a file; there are none where it does not exist.

    A line that is no record, such as one that a killed process left unfinished or zeros after a loss of power, is left
    out. One warning says so, unless the call is ``quiet``.
    """
    if not path.exists():
        return []
    with reading(path):
        lines = path.read_bytes().decode(errors="replace").split("\n")
    parsed = [_parse(line) for line in lines]
    damaged = [number for number, (line, record) in enumerate(zip(lines, parsed), 1) if line.strip() and not record]
    if damaged and not quiet:
        logger.warning("warning: %s: %d lines are no records and are left out, the first of them line %d", path,
                       len(damaged), damaged[0])
    return list(filter(None, parsed))


def rewrite(path: Path, wanted: Callable[[Record], bool]) -> None:
    """Rewrite a file, whole, with the records that are ``wanted`` alone."""
    if path.exists():
        write_text(path, "".join(json.dumps(record) + "\n" for record in filter(wanted, read(path))))


def _parse(line: str) -> Optional[Record]:
    """Return the record in a line, or None where the line is none."""
    try:
        record = json.loads(line)
        fields = _FIELDS.get(record["kind"], {})
        return record if all(isinstance(record[name], types) for name, types in fields.items()) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None

"""The records of a run: what kinds there are, and how they are written and read. Everything shown is made of them.

A record is a JSON object with its ``kind``. Those of evaluations have the ``protocol`` in words, and as an identifier
by which they can be compared, ``protocol_id``.
"""
import errno
import json
import os
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, NoReturn, Tuple

from src.common.files import write_text
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

# How the prose of records without an identifier begins: those of earlier versions.
_PROSE = {"linear classifier": LINEAR_SGD, "multinomial logistic regression": LINEAR_LBFGS, "weighted kNN": KNN,
          "fine-tuning": FINE_TUNED, "supervised training": SUPERVISED}

# Keys of records that are measurements.
MEASUREMENTS = ("loss", "last_loss", "contrastive_accuracy", "train_accuracy", "learning_rate", "gradient_norm",
                "images_per_second", "knn_accuracy", "alignment", "uniformity", "embedding_std", "effective_rank",
                "accuracy", "top5_accuracy", "accuracy_mean", "accuracy_std")

# What a record must have, by its kind, to be taken for one.
_NEEDED = {**dict.fromkeys((PRETRAIN, MONITOR, CLASSIFIER_EPOCH, FINETUNE), ("epoch",)),
           **dict.fromkeys((LINEAR_EVAL, KNN_EVAL, FINETUNE_EVAL), ("protocol", "seed", "accuracy")),
           REPEATED_EVAL: ("protocol", "accuracy_mean")}

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
    """Return a sink that appends a line of JSON to ``path``, and ends a line before that was cut short.

    A line that finds no space is taken back.
    """
    def append(record: Record) -> None:
        line = json.dumps(record, allow_nan=False) + "\n"
        with path.open("ab+", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else "\n" + line
            try:
                if file.write(line.encode()) < len(line.encode()):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(size)
                raise

    return append


def read(path: Path, quiet: bool = False) -> List[Record]:
    """Return the records of a file.

    What is none, such as a line that a killed process left unfinished or zeros after a loss of power, is left out. A
    warning says so, once, unless the call is to be ``quiet``.
    """
    found, damaged = _parsed(path)
    if damaged and not quiet:
        logger.warning("warning: %s: left out is what is no record, in %d lines, the first of them line %d; the others "
                       "are taken", path, len(damaged), damaged[0])
    return [_up_to_date(record) for record in found]


def keep(path: Path, wanted: Callable[[Record], bool]) -> None:
    """Drop the records that are not ``wanted``, and what is no record."""
    if path.exists():
        rewrite(path, filter(wanted, read(path)))


def rewrite(path: Path, found: Iterable[Record]) -> None:
    """Let the file have these records, whole."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in found))


def _parsed(path: Path) -> Tuple[List[Record], List[int]]:
    """Return what are records, and the numbers of the lines, from 1, that have something else in them."""
    found: List[Record] = []
    damaged = []
    for number, line in enumerate(path.read_bytes().decode(errors="replace").split("\n"), 1):
        try:
            for value in _objects(line):
                _check(value)
                found.append(value)
        except (ValueError, KeyError, TypeError, RecursionError):
            damaged.append(number)
    return found, damaged


def _objects(line: str) -> Iterator[Any]:
    """Yield the values of JSON in a line: one as a rule, and more where an end of a line was lost."""
    decoder = json.JSONDecoder(parse_constant=_no_number)
    line = line.strip()
    while line:
        value, end = decoder.raw_decode(line)
        yield value
        line = line[end:].lstrip()


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and the like, which are no JSON


def _check(value: Any) -> None:
    """Raise KeyError or TypeError where a value is no record."""
    if not isinstance(value["kind"], str):
        raise TypeError("kind")
    needed = _NEEDED.get(value["kind"], ())
    for name in needed:
        value[name]
    for name, is_right in _KINDS.items():
        is_open = name not in needed and value.get(name) is None
        if not is_open and not is_right(value[name]):
            raise TypeError(name)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**53


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300  # which a hundredfold does not exceed


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _are_shares(value: Any) -> bool:
    return isinstance(value, dict) and all(share is None or _is_number(share) for share in value.values())


def _is_matrix(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, list) and len(row) == len(value) and all(map(_is_count, row)) for row in value)


# What the values of a record are, where it has them and they are not None.
_KINDS: Dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(MEASUREMENTS, _is_number), **dict.fromkeys(("protocol", "protocol_id", "training"), _is_text),
    **dict.fromkeys(("epoch", "seed", "encoder_epoch", "images"), _is_count), "accuracy_interval": _is_interval,
    "class_accuracy": _are_shares, "confusion": _is_matrix}


def _up_to_date(record: Record) -> Record:
    if record.get("protocol") is None or "protocol_id" in record or record["kind"] == MONITOR:
        return record
    known = (identifier for prose, identifier in _PROSE.items() if record["protocol"].startswith(prose))
    return {**record, "protocol_id": next(known, record["kind"])}

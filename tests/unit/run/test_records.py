"""Records are written, read and dropped."""
import json

import pytest

from src.common.errors import UserError
from src.run import records
from src.run.records import Records, appended_to


@pytest.fixture
def file(tmp_path):
    return tmp_path / "metrics.jsonl"


@pytest.fixture
def warnings(caplog, monkeypatch):
    monkeypatch.setattr(records.logger, "propagate", True)
    return caplog


def test_every_sink_gets_every_record(file):
    kept = []
    both = Records(kept.append, appended_to(file))
    for epoch in (1, 2):
        both.add({"kind": records.PRETRAIN, "epoch": epoch})
    assert records.read(file) == kept == [{"kind": "pretrain", "epoch": 1}, {"kind": "pretrain", "epoch": 2}]
    with pytest.raises(ValueError):
        both.add({"kind": "pretrain", "loss": float("nan")})
    assert len(records.read(file)) == 2


def test_a_file_that_is_not_there_has_no_records(file):
    records.rewrite(file, lambda record: True)
    assert records.read(file) == [] and not file.exists()


def test_a_folder_is_refused(file):
    file.mkdir()
    with pytest.raises(UserError, match="metrics.jsonl: cannot be read"):
        records.read(file)


DAMAGED = {"cut": b'{"kind": "pretrain", "ep', "zeros": bytes(100), "no object": b"[1]", "no kind": b'{"epoch": 1}',
           "no epoch": b'{"kind": "pretrain"}', "not UTF-8": b"\xff\xfe", "deep": b"[" * 100_000}


@pytest.mark.parametrize("what", DAMAGED)
@pytest.mark.parametrize("number", [0, 2])
def test_what_is_no_record_is_left_out_and_named_once(file, warnings, what, number):
    lines = [json.dumps({"kind": "pretrain", "epoch": epoch}).encode() for epoch in (1, 2)]
    lines.insert(number, DAMAGED[what])
    file.write_bytes(b"\n".join(lines) + b"\n" * (number < 2))
    assert [record["epoch"] for record in records.read(file, quiet=True)] == [1, 2] and not warnings.messages
    assert [record["epoch"] for record in records.read(file)] == [1, 2]
    (warning,) = warnings.messages
    assert "metrics.jsonl: 1 lines" in warning and f"line {number + 1}" in warning
    appended_to(file)({"kind": "pretrain", "epoch": 3})  # not at the end of the line that was cut
    assert [record["epoch"] for record in records.read(file)] == [1, 2, 3]
    records.rewrite(file, lambda record: record["epoch"] != 2)
    warnings.clear()
    assert [record["epoch"] for record in records.read(file)] == [1, 3] and not warnings.messages

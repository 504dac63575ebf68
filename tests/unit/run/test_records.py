"""Records are written, read, brought up to date and dropped; a run's paths."""
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.run import records
from src.run.layout import LATEST, Layout, Series, series_at
from src.run.records import Records, appended_to

EVALUATED = {"kind": "linear_eval", "protocol": "x", "seed": 0, "accuracy": 0.5}


def test_every_sink_gets_every_record(tmp_path):
    kept, file = [], tmp_path / "metrics.jsonl"
    found = Records(kept.append, appended_to(file))
    for epoch in (1, 2):
        found.add({"kind": records.PRETRAIN, "epoch": epoch})
    assert records.read(file) == kept == [{"kind": "pretrain", "epoch": 1}, {"kind": "pretrain", "epoch": 2}]
    Records().add({"kind": "pretrain"})  # as on another rank than 0
    with pytest.raises(ValueError):
        found.add({"kind": "pretrain", "loss": float("nan")})
    assert len(records.read(file)) == 2


@given(st.lists(st.integers(1, 9), max_size=20), st.integers(1, 9), st.text(alphabet='{"kind:', max_size=5))
def test_only_what_is_wanted_is_kept(tmp_path_factory, epochs, last, cut_short):
    file = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    lines = [{"kind": "pretrain", "epoch": epoch} for epoch in epochs] + [EVALUATED]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + cut_short)
    records.keep(file, lambda record: record["kind"] != "pretrain" or record["epoch"] <= last)
    left = [json.loads(line) for line in file.read_text().splitlines()]
    assert [record["epoch"] for record in left[:-1]] == [epoch for epoch in epochs if epoch <= last]
    assert left[-1]["kind"] == "linear_eval"


def test_without_records_there_is_nothing_to_keep(tmp_path):
    records.keep(tmp_path / "metrics.jsonl", lambda record: True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("protocol, expected", [
    ("linear classifier on cached features without augmentation, Adam, cosine decay, last epoch, 100 epochs",
     records.LINEAR_SGD),
    ("multinomial logistic regression on cached features without augmentation, standardised", records.LINEAR_LBFGS),
    ("weighted kNN (cosine, k=200, temperature 0.1) on cached features without augmentation", records.KNN),
    ("fine-tuning of the whole network, all 50000 labels", records.FINE_TUNED),
    ("supervised training from random weights, all 50000 labels", records.SUPERVISED)])
def test_records_of_earlier_versions_get_an_identifier(tmp_path, protocol, expected):
    file = tmp_path / "metrics.jsonl"
    file.write_text(json.dumps({**EVALUATED, "protocol": protocol}) + "\n")
    (record,) = records.read(file)
    assert record == {**EVALUATED, "protocol": protocol, "protocol_id": expected}


@pytest.fixture
def warnings(caplog, monkeypatch):
    monkeypatch.setattr(records.logger, "propagate", True)
    return caplog


DAMAGED = {"cut": b'{"kind": "pretrain", "ep', "zeros": bytes(100), "no JSON": b"text", "no object": b"[1]",
           "no kind": b'{"epoch": 1}', "no epoch": b'{"kind": "pretrain"}',
           "a word for the epoch": b'{"kind": "monitor", "epoch": "one"}',
           "no accuracy": b'{"kind": "linear_eval", "protocol": "x", "seed": 0}',
           "not UTF-8": b"\xff\xfe", "NaN": b'{"kind": "pretrain", "epoch": 1, "loss": NaN}', "deep": b"[" * 100_000}


@pytest.mark.parametrize("what", DAMAGED)
@pytest.mark.parametrize("place", ["first", "between", "last"])
def test_what_is_no_record_is_left_out_and_named_once(tmp_path, warnings, what, place):
    file = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"kind": "pretrain", "epoch": epoch}).encode() for epoch in (1, 2)]
    number = {"first": 0, "between": 1, "last": 2}[place]
    lines.insert(number, DAMAGED[what])
    file.write_bytes(b"\n".join(lines) + b"\n" * (place != "last"))
    assert [record["epoch"] for record in records.read(file, quiet=True)] == [1, 2] and not warnings.messages
    assert [record["epoch"] for record in records.read(file)] == [1, 2]
    (warning,) = warnings.messages
    assert f"metrics.jsonl: left out is what is no record, in 1 lines, the first of them line {number + 1};" in warning
    appended_to(file)({"kind": "pretrain", "epoch": 3})  # not at the end of what was cut
    assert [record["epoch"] for record in records.read(file)] == [1, 2, 3]
    records.keep(file, lambda record: True)
    warnings.clear()
    assert [record["epoch"] for record in records.read(file)] == [1, 2, 3] and not warnings.messages


def test_two_records_on_a_line_are_two(tmp_path, warnings):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"kind": "pretrain", "epoch": 1}{"kind": "pretrain", "epoch": 2} \n')
    assert [record["epoch"] for record in records.read(file)] == [1, 2] and not warnings.messages


@given(st.binary(max_size=300))
def test_any_bytes_are_read(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    file.write_bytes(content)
    for record in records.read(file, quiet=True):
        assert isinstance(record["kind"], str)


def test_checkpoints_are_in_the_order_of_their_epochs(tmp_path):
    series = Series(tmp_path, "net")
    for name in ("net-10.ckpt", "net-9.ckpt", "net-0.ckpt", "net-1.ckpt.tmp", "other-3.ckpt", "net-08.ckpt"):
        (tmp_path / name).touch()
    assert [file.name for file in series.files()] == ["net-9.ckpt", "net-10.ckpt"]
    assert series.of_epoch(9) == tmp_path / "net-9.ckpt"


def test_a_checkpoint_is_found_in_a_run_and_in_its_folder(tmp_path):
    series = Layout(tmp_path).checkpoints
    assert series_at(tmp_path, series.prefix) is series_at(tmp_path / "nowhere", series.prefix) is None
    series.folder.mkdir()
    series.of_epoch(3).touch()
    for place in (tmp_path, series.folder, series.folder / LATEST):
        assert series_at(place, series.prefix) == series
    assert series_at(series.of_epoch(3), series.prefix) is None

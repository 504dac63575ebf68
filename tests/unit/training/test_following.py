"""What follows a run's records ends no training."""
import pytest

from src.distributed.process_group import Process
from src.run.folder import Run
from src.training import following


@pytest.mark.parametrize("failure", ["no folder", "a full disk"])
def test_events_that_cannot_be_written_are_one_warning(tmp_path, monkeypatch, failure):
    pytest.importorskip("tensorboardX")
    warnings, run = [], Run(str(tmp_path), Process("CPU"))
    monkeypatch.setattr(following.logger, "warning", lambda text, *rest: warnings.append(text % rest))

    def full(self, record):
        raise OSError(28, "No space left on device")

    if failure == "no folder":
        (tmp_path / "tensorboard").touch()
    else:
        monkeypatch.setattr("src.report.events.Events.__call__", full)
    following.follow(run, report=False, tensorboard=True)
    for epoch in (1, 2):
        run.records.add({"kind": "pretrain", "epoch": epoch, "loss": 1.0})
    assert len(warnings) == 1 and "TensorBoard" in warnings[0]
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2


def test_a_sheet_of_views_that_cannot_be_drawn_is_one_warning(tmp_path, monkeypatch):
    warnings, run = [], Run(str(tmp_path / "missing"), Process("CPU"))
    monkeypatch.setattr(following.logger, "warning", lambda text, *rest: warnings.append(text % rest))
    following.follow(run, report=True, tensorboard=False, views=object())
    assert len(warnings) == 1 and len(run.records.sinks) == 2

"""What follows a run's records ends no training."""
import pytest

from src.distributed.process_group import Process
from src.run.folder import Run
from src.training import following


@pytest.mark.parametrize("sink", ["page", "events"])
def test_a_page_or_events_that_cannot_be_written_are_one_warning(tmp_path, monkeypatch, sink):
    pytest.importorskip("tensorboardX")
    warnings, run = [], Run(str(tmp_path), Process("CPU"))
    monkeypatch.setattr(following.logger, "warning", lambda text, *rest: warnings.append(text % rest))
    (tmp_path / "tensorboard").touch()  # where the events' folder has to be
    (tmp_path / "config.yaml").write_text("no settings")
    following.follow(run, report=sink == "page", tensorboard=sink == "events")
    for epoch in (1, 2):
        run.records.add({"kind": "monitor", "epoch": epoch, "knn_accuracy": 0.5})
    assert len(warnings) == 1 and "\n" not in warnings[0]
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2 and not (tmp_path / "report.html").exists()


def test_a_sheet_of_views_that_cannot_be_drawn_is_one_warning(tmp_path, monkeypatch):
    warnings, run = [], Run(str(tmp_path / "missing"), Process("CPU"))
    monkeypatch.setattr(following.logger, "warning", lambda text, *rest: warnings.append(text % rest))
    following.follow(run, report=True, tensorboard=False, views=object())
    assert len(warnings) == 1 and len(run.records.sinks) == 2

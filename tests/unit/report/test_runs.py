"""The summary of a run's folder, and a table of several."""
import pytest
from report_runs import evaluated, make, pretrained, repeated

from src.common.errors import UserError
from src.report import listing, runs


@pytest.mark.parametrize("lines, script, state, accuracies", [
    ([], "", "0 of 4 epochs", (None, None, None)),
    (list(pretrained(3)), "", "3 of 4 epochs", (None, 0.2, None)),  # by the monitor
    (list(pretrained(4)), "", "4 epochs", (None, 0.4, None)),
    ([evaluated(0.7)], "eval_", "evaluated", (0.7, None, None)),
    ([{"kind": "linear_classifier", "epoch": 1, "seed": 0, "loss": 2.0}], "eval_", "in progress", (None, None, None)),
], ids=["new", "in progress", "finished", "evaluated", "classifier in progress"])
def test_states_of_a_run(tmp_path, lines, script, state, accuracies):
    run = runs.read(make(tmp_path / "run", lines, script))
    assert (run.state, run.accuracies, run.name) == (state, accuracies, "run")
    assert run.setting("temperature") == 0.2 and run.setting("nothing") is None


def test_results_come_by_protocol_and_the_last_of_each_counts(tmp_path):
    run = runs.read(make(tmp_path, [
        *pretrained(4), evaluated(0.5, "knn", "knn_eval", protocol="k"), evaluated(0.8), evaluated(0.6),
        evaluated(0.9, "fine_tuned", "finetune_eval", protocol="all"),
        evaluated(0.7, "fine_tuned", "finetune_eval", protocol="few"), evaluated(0.4, "something_new", protocol="n")]))
    assert [(result.protocol_id, result.mean, result.seeds) for result in run.results] == [
        ("linear_sgd", 0.6, 1), ("knn", 0.5, 1), ("fine_tuned", 0.9, 1), ("fine_tuned", 0.7, 1),
        ("something_new", 0.4, 1)]
    assert run.accuracies == (0.6, 0.5, 0.9)


def test_a_repeated_evaluation_counts_until_the_next_evaluation(tmp_path):
    folder = make(tmp_path, [evaluated(0.6), evaluated(0.7, seed=1), repeated(0.65, 0.07)])
    (result,) = runs.read(folder).results
    assert (result.mean, result.deviation, result.seeds, result.interval) == (0.65, 0.07, 2, [0.5, 0.8])
    assert result.last["seed"] == 1
    make(tmp_path, [evaluated(0.3)])
    (result,) = runs.read(folder).results
    assert (result.mean, result.deviation, result.seeds) == (0.3, None, 1)


def test_the_table_has_the_best_run_first_and_leaves_out_what_cannot_be_read(tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(runs.logger, "warning", lambda text, *values: warnings.append(text % values))
    make(tmp_path / "b" / "deep", [evaluated(0.7)])
    make(tmp_path / "a", [evaluated(0.9)], width_multiplier=1.0)
    make(tmp_path / "c", pretrained(4))
    (make(tmp_path / "d", pretrained(1)) / "sample.npz").write_text("is not read for a table")
    (tmp_path / "no run").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path)
    (make(tmp_path / "bad") / "config.yaml").write_text("foreign: true")
    (make(tmp_path / "dry") / "dry_run").write_text("")
    lines = listing.table(runs.below(tmp_path), tmp_path)
    assert [line.split("  ")[-1].strip() for line in lines] == ["run", "a", "b/deep", "c", "d"]
    assert lines[1].startswith("90.00 %") and " resnet18 " in lines[1] and "resnet18 x 0.25" in lines[2]
    assert "40.00 %" in lines[3] and "1 of 4 epochs" in lines[4]
    assert ["/bad/config.yaml" in line or "/dry:" in line for line in warnings] == [True, True]


@pytest.mark.parametrize("read", [runs.read, runs.below])
def test_no_run(tmp_path, read):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=str(folder)):
            read(folder)


@pytest.mark.parametrize("name, content", [
    *(("config.yaml", content) for content in (b"settings: [", b"settings: 3", b"\xff", b"settings: &a {}\nb: *a")),
    *(("sample.npz", content) for content in (b"", b"text", b"PK\x03\x04", b"\x93NUMPY"))])
def test_a_damaged_file_is_one_line(tmp_path, name, content):
    (make(tmp_path) / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{tmp_path / name}: ") as error:
        runs.read(tmp_path)
    assert "\n" not in str(error.value)

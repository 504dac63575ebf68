"""What the folder of a run tells, and a table of several."""
import pytest
from report_runs import evaluated, make, pretrained

from src.common.errors import UserError
from src.report import listing, runs


def test_a_run_in_progress(tmp_path):
    run = runs.read(make(tmp_path / "run", pretrained(3)))
    assert run.state == "3 of 4 epochs" and run.name == "run"
    assert run.accuracies == (None, 0.2, None) and run.results == []
    assert run.setting("temperature") == 0.2 and run.setting("nothing") is None


def test_a_run_that_has_just_begun_and_one_that_is_evaluation_alone(tmp_path):
    assert runs.read(make(tmp_path / "new")).state == "0 of 4 epochs"
    elsewhere = runs.read(make(tmp_path / "elsewhere", [evaluated(0.7)], "eval_"))
    assert elsewhere.state == "evaluated" and elsewhere.accuracies == (0.7, None, None)
    epoch = {"kind": "linear_classifier", "epoch": 1, "seed": 0, "loss": 2.0}
    beginning = make(tmp_path / "beginning", [epoch], "eval_")
    assert runs.read(beginning).state == "in progress"


def test_results_come_by_protocol_and_the_last_of_each_counts(tmp_path):
    run = runs.read(make(tmp_path, [
        *pretrained(4), evaluated(0.5, "knn", "knn_eval", protocol="k"), evaluated(0.8), evaluated(0.6),
        evaluated(0.9, "fine_tuned", "finetune_eval", protocol="all"),
        evaluated(0.7, "fine_tuned", "finetune_eval", protocol="few"), evaluated(0.4, "something_new", protocol="n")]))
    assert [(result.protocol_id, result.mean, result.seeds) for result in run.results] == [
        ("linear_sgd", 0.6, 1), ("knn", 0.5, 1), ("fine_tuned", 0.9, 1), ("fine_tuned", 0.7, 1),
        ("something_new", 0.4, 1)]
    assert run.accuracies == (0.6, 0.5, 0.9)


def test_what_is_repeated_counts_until_it_is_evaluated_again(tmp_path):
    summary = {"kind": "repeated_eval", "protocol_id": "linear_sgd", "protocol": "by <some> protocol", "seeds": [0, 1],
               "accuracy_mean": 0.65, "accuracy_std": 0.07, "accuracy_interval": [0.5, 0.8]}
    folder = make(tmp_path, [evaluated(0.6), evaluated(0.7, seed=1), summary])
    (result,) = runs.read(folder).results
    assert (result.mean, result.deviation, result.seeds, result.interval) == (0.65, 0.07, 2, [0.5, 0.8])
    make(tmp_path, [evaluated(0.8, seed=2), {**summary, "seeds": [0, 1, 2], "accuracy_mean": 0.7}])
    (result,) = runs.read(folder).results
    assert (result.mean, result.seeds) == (0.7, 3)  # the first two had the same results again, which leave no record
    make(tmp_path, [evaluated(0.3)])
    (result,) = runs.read(folder).results
    assert (result.mean, result.deviation, result.seeds) == (0.3, None, 1)


def test_the_table_has_the_best_first(tmp_path):
    make(tmp_path / "b" / "deep", [evaluated(0.7)])
    make(tmp_path / "a", [evaluated(0.9)], width_multiplier=1.0)
    make(tmp_path / "c", pretrained(4))
    make(tmp_path / "d", pretrained(1))
    (tmp_path / "no run").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path)
    lines = listing.table(runs.below(tmp_path), tmp_path)
    assert [line.split("  ")[-1].strip() for line in lines] == ["run", "a", "b/deep", "c", "d"]
    assert lines[1].startswith("90.00 %") and " resnet18 " in lines[1] and "resnet18 x 0.25" in lines[2]
    assert "40.00 %" in lines[3] and "1 of 4 epochs" in lines[4]


@pytest.mark.parametrize("read", [runs.read, runs.below])
def test_no_run(tmp_path, read):
    with pytest.raises(UserError, match=f"{tmp_path}.*; name the"):
        read(tmp_path)
    with pytest.raises(UserError, match="nowhere"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize("file, text, message", [
    *(("config.yaml", text, "config.yaml: .*take it away")
      for text in (b"settings: [", b"text", b"settings: 3", b"\xff")),
    *(("sample.npz", text, "sample.npz: is damaged") for text in (b"", b"text", b"PK\x03\x04", b"\x93NUMPY"))])
def test_damaged_files(tmp_path, file, text, message):
    (make(tmp_path / "bad") / file).write_bytes(text)
    with pytest.raises(UserError, match=message):
        runs.read(tmp_path / "bad")


def test_the_list_leaves_out_what_cannot_be_read_and_dry_runs(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(runs.logger, "warning", lambda text, *values: said.append(text % values))
    make(tmp_path / "good", pretrained(1))
    (make(tmp_path / "bad") / "config.yaml").write_text("foreign: true")
    (make(tmp_path / "dry") / "dry_run").write_text("")
    (make(tmp_path / "pictures") / "sample.npz").write_text("not looked at")
    assert {run.name for run in runs.below(tmp_path)} == {"good", "pictures"}
    assert len(said) == 2 and "foreign" not in said[0] and "dry run" in said[1]


def test_runs_are_told_apart_by_as_much_of_their_paths_as_it_takes(tmp_path):
    def names(*places):
        return [run.name for run in runs.told_apart([runs.read(make(tmp_path / place)) for place in places])]
    assert names("a/outputs") == ["outputs"] and names("a/outputs", "b/outputs") == ["a/outputs", "b/outputs"]
    assert names("a/x", "b/y") == ["x", "y"] and names("a/x", "a/x") == ["x (1)", "x (2)"]

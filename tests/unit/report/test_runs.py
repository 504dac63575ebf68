"""What the folder of a run tells, and a table of several."""
import pytest
from report_runs import evaluated, make, pretrained

from src.common.errors import UserError
from src.report import listing, runs


def test_a_run_in_progress(tmp_path):
    run = runs.read(make(tmp_path / "run", pretrained(3)))
    assert run.epochs == (3, 4) and run.state == "3 of 4 epochs"
    assert run.accuracies == (None, 0.2, None) and run.results == []
    assert run.setting("temperature") == 0.2 and run.setting("nothing") is None


def test_a_run_that_has_just_begun_and_one_that_is_evaluation_alone(tmp_path):
    assert runs.read(make(tmp_path / "new")).state == "0 of 4 epochs"
    elsewhere = runs.read(make(tmp_path / "elsewhere", [evaluated(0.7)], "eval_"))
    assert elsewhere.state == "evaluated" and elsewhere.accuracies == (0.7, None, None)


def test_results_come_by_protocol_and_the_last_of_each_counts(tmp_path):
    run = runs.read(make(tmp_path, [
        *pretrained(4), evaluated(0.5, "knn", "knn_eval"), evaluated(0.8), evaluated(0.6), evaluated(0.62, seed=1),
        evaluated(0.9, "fine_tuned", "finetune_eval"), evaluated(0.4, "something_new")]))
    assert [(result["protocol_id"], result["accuracy"]) for result in run.results] == [
        ("linear_sgd", 0.6), ("linear_sgd", 0.62), ("knn", 0.5), ("fine_tuned", 0.9), ("something_new", 0.4)]
    assert run.accuracies == (0.62, 0.5, 0.9)


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


@pytest.mark.parametrize("text", ["settings: [", "a text", "settings: 3", b"\xff"])
def test_a_config_that_holds_none(tmp_path, text):
    (tmp_path / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match="config.yaml: .*; remove it"):
        runs.read(tmp_path)

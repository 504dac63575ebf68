"""This project's side of every benchmark runs, at a small size. (Its peers are not installed for the tests.)

tests/distributed/test_ranks.py tests the comparison of equivalence.py.
"""
import json
import subprocess
import sys

import communication
import pytest
from ascend import stand_ins
from helpers import ROOT

pytestmark = pytest.mark.long

SMALL = ("--encoder", "resnet18", "--width_multiplier", "0.0625", "--batch_size", "4")


@pytest.mark.parametrize("script, role, flags, command, answer", [
    ("training_step", "mindspore", SMALL, {"steps": 1}, "loss"),
    ("training_step", "mindspore", (*SMALL, "--input", "pipeline"), {"steps": 2}, "loss"),
    ("scaling", "rank", SMALL, {"steps": 1}, "loss"),
    ("input_pipeline", "cpp", ("--images", "256"), {}, "images_per_second"),
    ("linear_evaluation", "mindspore", ("--images", "256", "--features", "16", "--epochs", "10"), {}, "seconds"),
    ("evaluation_protocols", "protocols", ("--images", "300", "--features", "16"), {"protocol": "lbfgs", "seed": 0},
     "accuracy"),
    ("checkpoint_pause", "training", (*SMALL, "--rounds", "1"), {}, "peak_memory_mib"),
])
def test_this_projects_side_of_a_benchmark_answers(script, role, flags, command, answer):
    process = subprocess.run([sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), *flags, "--role", role],
                             input=json.dumps(command) + "\n", capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    answers = [json.loads(line) for line in process.stdout.splitlines()]
    assert answers[-1][answer] > 0


def test_the_counted_collectives_have_the_sizes_of_what_is_sent(tmp_path):
    """For one of 4 devices with 4 images each."""
    if stand_ins.why_not():
        pytest.skip(stand_ins.why_not())
    stand_ins.build(tmp_path / "stand_ins")
    counts = communication.count(tmp_path / "stand_ins", 4, "resnet18", 4)
    rows = 4 * 2 * 4 * 128  # bytes of a rank's embeddings
    layers, channels = 20, 64 + 4 * 64 + 5 * (128 + 256 + 512)
    weights = 11_168_832 + 513 * 512 + 513 * 128  # of ResNet-18 with the CIFAR stem, and of the head
    handed_over = {"gradients": 4 * weights, "batch norm": 4 * 4 * channels, "negatives": 5 * rows, "totals": 8}
    assert counts["bytes_handed_over"] == handed_over
    assert counts["bytes_sent"] == {**{purpose: 1.5 * size for purpose, size in handed_over.items()},
                                   "negatives": 3 * rows + 0.75 * 4 * rows}
    assert counts["collectives"].pop("gradients") < 8
    assert counts["collectives"] == {"batch norm": 2 * layers, "negatives": 2, "totals": 1}
    assert counts["similarity_matrix_bytes"] == 4 * 8 * 32


def test_without_a_compiler_nothing_is_counted_and_a_line_says_why(monkeypatch, capsys):
    monkeypatch.setattr(stand_ins, "why_not", lambda: "no gcc here")
    monkeypatch.setattr(sys, "argv", ["communication.py"])
    with pytest.raises(SystemExit) as ended:
        communication.main()
    assert (ended.value.code, capsys.readouterr().err) == (2, "no gcc here\n")

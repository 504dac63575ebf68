"""The project's side of every benchmark runs, at a small size. (The peers are not installed for the tests.)

equivalence.py is a test itself: see tests/distributed/test_ranks.py.
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
def test_our_side_answers(script, role, flags, command, answer):
    process = subprocess.run([sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), *flags, "--role", role],
                             input=json.dumps(command) + "\n", capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    answers = [json.loads(line) for line in process.stdout.splitlines()]
    assert answers[-1][answer] > 0


def test_what_a_step_takes_on_several_ascends(tmp_path):
    """Counted for one of 4 devices with 4 images each, against the sizes of what must be sent."""
    if stand_ins.why_not():
        pytest.skip(stand_ins.why_not())
    stand_ins.build(tmp_path / "stand_ins")
    found = communication.count(tmp_path / "stand_ins", 4, "resnet18", 4)
    rows = 4 * 2 * 4 * 128  # bytes of a rank's embeddings
    layers, channels = 20, 64 + 4 * 64 + 5 * (128 + 256 + 512)
    weights = 11_168_832 + 513 * 512 + 513 * 128  # of ResNet-18 with the CIFAR stem, and of the head
    handed_over = {"gradients": 4 * weights, "batch norm": 4 * 4 * channels, "negatives": 5 * rows, "totals": 8}
    assert found["bytes_handed_over"] == handed_over
    assert found["bytes_sent"] == {**{purpose: 1.5 * size for purpose, size in handed_over.items()},
                                   "negatives": 3 * rows + 0.75 * 4 * rows}
    assert found["collectives"].pop("gradients") < 8
    assert found["collectives"] == {"batch norm": 2 * layers, "negatives": 2, "totals": 1}
    assert found["similarity_matrix_bytes"] == 4 * 8 * 32


def test_where_nothing_can_be_counted_a_line_says_why(monkeypatch, capsys):
    monkeypatch.setattr(stand_ins, "why_not", lambda: "no gcc here")
    monkeypatch.setattr(sys, "argv", ["communication.py"])
    with pytest.raises(SystemExit) as ended:
        communication.main()
    assert (ended.value.code, capsys.readouterr().err) == (2, "no gcc here\n")

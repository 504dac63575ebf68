"""The project's side of every benchmark runs, at a small size. (The peers are not installed for the tests.)

equivalence.py and communication.py are tests themselves: see tests/distributed/test_ranks.py.
"""
import json
import subprocess
import sys

import pytest
from helpers import ROOT

SMALL = ("--encoder", "resnet18", "--width_multiplier", "0.0625", "--batch_size", "4")


@pytest.mark.parametrize("script, role, flags, command, answer", [
    ("training_step", "mindspore", SMALL, {"steps": 1}, "loss"),
    ("scaling", "rank", SMALL, {"steps": 1}, "loss"),
    ("input_pipeline", "cpp", ("--images", "256"), {}, "images_per_second"),
    ("linear_evaluation", "mindspore", ("--images", "256", "--features", "16", "--epochs", "10"), {}, "seconds"),
    ("evaluation_protocols", "protocols", ("--images", "300", "--features", "16"), {"protocol": "lbfgs", "seed": 0},
     "accuracy"),
])
def test_our_side_answers(script, role, flags, command, answer):
    process = subprocess.run([sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), *flags, "--role", role],
                             input=json.dumps(command) + "\n", capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    answers = [json.loads(line) for line in process.stdout.splitlines()]
    assert answers[-1][answer] > 0

"""The quickstart as a user calls it, in a copy of the project with smaller settings."""
import re
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT

SHELL = shutil.which("dash") or "sh"


@pytest.fixture
def copy(tmp_path):
    """A copy of the project with a thin encoder, few images, and the packages of this Python as its .venv."""
    root = tmp_path / "a copy"
    root.mkdir()
    for name in ("configs", "scripts", "src"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (*ROOT.glob("*.py"), *ROOT.glob("requirements*.txt")):
        shutil.copy(file, root)
    for name, changes in {
            "configs/quickstart.yaml": {"width_multiplier: ": 0.0625, "num_samples: ": 64, "batch_size: ": 16},
            "configs/quickstart_eval.yaml": {"num_samples: ": 320, "epoch_size: ": 2},
            "src/data/shapes.py": {"IMAGES = ": {"train": 320, "test": 100}}}.items():
        text = (root / name).read_text()
        for key, value in changes.items():
            text, count = re.subn(rf"^{key}.*$", f"{key}{value}", text, flags=re.M)
            assert count == 1
        (root / name).write_text(text)
    (root / ".venv" / "bin").mkdir(parents=True)
    python = root / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    checksum = subprocess.run(f'cat "{root}"/requirements*.txt | cksum', shell=True, capture_output=True, text=True,
                              check=True)
    (root / ".venv" / ".installed-requirements.txt").write_text(checksum.stdout)
    return root


@pytest.mark.long
def test_quickstart_without_data(copy, tmp_path):
    result = subprocess.run([SHELL, str(copy / "scripts" / "quickstart.sh")], cwd=tmp_path, capture_output=True,
                            text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    (run,) = (copy / "outputs").glob("quickstart-shapes-*")
    accuracies = re.findall(r"^Average accuracy: \{'Accuracy': (\S+)\}$", result.stdout, re.M)
    summary = result.stdout[result.stdout.index("Summary ("):]
    trained, untrained = (f"{float(accuracy):.1%}" for accuracy in accuracies)
    assert re.search(rf"untrained encoder +{untrained}$", summary, re.M)
    assert re.search(rf"after pretraining +{trained} ", summary, re.M)
    verdicts = re.findall(r"^  test image +\d+: \w+ +read as \w+ +\( *\d+% sure\)  (right|wrong)$", result.stdout, re.M)
    assert len(verdicts) == 8
    for file in ("checkpoint/latest", "linear_classifier/latest", "simclr.mindir", "metrics.jsonl", "report.html"):
        assert file in summary
        assert (run / file).exists()


def test_a_missing_data_folder_is_an_error_before_anything_is_installed(copy, tmp_path):
    result = subprocess.run([SHELL, str(copy / "scripts" / "quickstart.sh"), "nowhere"], cwd=tmp_path,
                            capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 and "CIFAR10_DIR: nowhere" in result.stderr
    assert not (copy / "outputs").exists()

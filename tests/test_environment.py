"""What is set before MindSpore is imported. Each case is a fresh process that reports its environment."""
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from src import environment
from src.errors import UserError

REPORT = """
import os, sys, types
sys.path.insert(0, {root!r})
stub = types.ModuleType("mindspore")  # what is tested happens before the import
stub.GRAPH_MODE, stub.__version__ = 0, "0"
stub.set_device = lambda *a: print("device", *a)
stub.set_context = lambda **k: None
stub.set_seed = lambda s: print("seed", s)
stub.ops = types.SimpleNamespace(ones=lambda n: types.SimpleNamespace(asnumpy=lambda: None))
sys.modules["mindspore"] = stub
from src import environment
environment.DEVICE_FILES = {{"Ascend": ({ascend!r},), "GPU": ("/dev/null",)}}
print("target", environment.prepare({target!r}, 3, 7))
for name in environment.CPU_SETTINGS:
    print(name, os.environ.get(name))
"""


def report(target, ascend="/nowhere", **env):
    clean = {name: value for name, value in os.environ.items() if name not in environment.CPU_SETTINGS}
    code = REPORT.format(root=str(ROOT), ascend=ascend, target=target)
    out = subprocess.run([sys.executable, "-c", code], env={**clean, **env}, capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in out.stdout.splitlines())


@pytest.mark.parametrize("target, ascend, expected", [
    (None, "/nowhere", "CPU"), (None, "/dev/null", "Ascend"), ("CPU", "/dev/null", "CPU"), ("GPU", "/nowhere", "GPU")])
def test_targets_and_their_settings(target, ascend, expected):
    found = report(target, ascend)
    assert found["target"] == expected
    assert found["device"] == f"{expected} 3"
    assert found["seed"] == "7"
    for name, value in environment.CPU_SETTINGS.items():
        assert found[name] == (value if expected == "CPU" else "None")


def test_the_users_own_values_win():
    found = report("CPU", ONEDNN_MAX_CPU_ISA="SSE41")
    assert found["ONEDNN_MAX_CPU_ISA"] == "SSE41"
    assert found["MS_DEV_HOST_BLOCKING_RUN"] == "1"


def test_a_missing_device_is_said(monkeypatch):
    monkeypatch.setattr(environment, "DEVICE_FILES", {"GPU": ("/nowhere/nvidia*",)})
    with pytest.raises(UserError, match="--device_target: got GPU, but this machine has no such device"):
        environment.prepare("GPU", 0)

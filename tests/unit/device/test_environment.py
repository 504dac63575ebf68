"""What is set before MindSpore is imported. Each case is a fresh process that reports its environment."""
import os
import subprocess
import sys

import mindspore
import mindspore.communication
import pytest
from helpers import ROOT, call_script, refused

from src.common.errors import UserError
from src.device import environment
from src.distributed import process_group

REPORT = """
import os, sys, types
sys.path.insert(0, {root!r})
stub = types.ModuleType("mindspore")  # all that is tested happens before the import
stub.GRAPH_MODE, stub.__version__ = 0, "0"
stub.set_device = lambda *a: print("device", *a)
stub.set_context = lambda mode=0, jit_config=None: print("jit_level", jit_config and jit_config["jit_level"])
stub.set_seed = lambda s: print("seed", s)
stub.ops = types.SimpleNamespace(ones=lambda n: types.SimpleNamespace(asnumpy=lambda: None))
sys.modules["mindspore"] = stub
compiled = sys.modules["mindspore._c_expression"] = types.ModuleType("mindspore._c_expression")
compiled.MSContext = types.SimpleNamespace(get_instance=lambda: types.SimpleNamespace(
    get_ascend_soc_version=lambda: {generation!r}))
from src.device import environment
environment.DEVICE_FILES = {{"Ascend": ({ascend!r},), "GPU": ("/dev/null",)}}
print("target", environment.prepare({target!r}, 3, 7, jit_level={jit_level!r},
                                    load_cpu_library=lambda: {library!r}).device_target)
for name in (*environment.CPU_SETTINGS, *environment.MINDSPORE_LAYERS_SETTINGS):
    print(name, os.environ.get(name))
"""


def report(target, ascend="/nowhere", generation="ascend910b", jit_level=None, library=None, **env):
    own = {**environment.CPU_SETTINGS, **environment.MINDSPORE_LAYERS_SETTINGS}
    clean = {name: value for name, value in os.environ.items() if name not in own}
    code = REPORT.format(root=str(ROOT), ascend=ascend, target=target, generation=generation, jit_level=jit_level,
                         library=library)
    out = subprocess.run([sys.executable, "-c", code], env={**clean, **env}, capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in out.stdout.splitlines())


@pytest.mark.parametrize("target, ascend, expected", [
    (None, "/nowhere", "CPU"), (None, "/dev/null", "Ascend"), ("GPU", "/nowhere", "GPU")])
def test_targets_and_their_settings(target, ascend, expected):
    reported = report(target, ascend)
    assert reported["target"] == expected
    assert reported["device"] == f"{expected} 3"
    assert reported["seed"] == "7"
    assert reported["jit_level"] == ("O1" if expected == "Ascend" else "None")
    for name, value in {**environment.CPU_SETTINGS, **environment.MINDSPORE_LAYERS_SETTINGS}.items():
        assert reported[name] == (value if expected == "CPU" else "None")


@pytest.mark.parametrize("generation, wanted, expected", [
    ("ascend910", None, "None"), ("ascend910b", "O0", "O0")])
def test_operators_are_fused_where_that_saves_kernels(generation, wanted, expected):
    assert report("Ascend", "/dev/null", generation, wanted)["jit_level"] == expected


def test_the_cpus_own_layers_take_avx512_and_the_users_values_win():
    assert report("CPU", library="loaded")["ONEDNN_MAX_CPU_ISA"] == "None"
    reported = report("CPU", ONEDNN_MAX_CPU_ISA="SSE41")
    assert (reported["ONEDNN_MAX_CPU_ISA"], reported["MS_DEV_HOST_BLOCKING_RUN"]) == ("SSE41", "1")


def test_a_missing_device_is_named(monkeypatch):
    monkeypatch.setattr(environment, "DEVICE_FILES", {"GPU": ("/nowhere/nvidia*",)})
    with pytest.raises(UserError, match="--device_target: got GPU"):
        environment.prepare("GPU", 0)


# --- the processes of a distributed run ---

TABLE = str(ROOT / "tests" / "rank_tables" / "8p.json")
RANK_5 = {"RANK_TABLE_FILE": TABLE, "RANK_SIZE": "8", "RANK_ID": "5", "DEVICE_ID": "5"}


@pytest.fixture
def started(monkeypatch):
    """Set the variables of a launcher, and no others."""
    def call(**variables):
        for name in (*process_group.WORLD_SIZE_VARIABLES, "RANK_TABLE_FILE", "RANK_ID", "DEVICE_ID", "MS_ROLE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
    return call


@pytest.mark.parametrize("command", [
    ("export.py", "--ckpt_simclr_encoder", "x"), ("convert.py", "--source_path", "x", "--target_path", "x.pt"),
    ("predict.py", "x.ckpt", "cat.png"), ("train.py",)])
def test_no_script_is_sent_to_a_flag_that_it_lacks(started, tmp_path, command):
    started(RANK_SIZE="8")
    (tmp_path / "cat.png").touch()
    (tmp_path / "x.ckpt").touch()
    result = call_script(*command, cwd=tmp_path)
    refused(result, "RANK_SIZE=8: .* start one process, .*unset RANK_SIZE")
    assert ("--run_distribute" in result.stderr) == (command[0] == "train.py")


@pytest.mark.parametrize("target, promised, variables", [
    ("Ascend", 8, RANK_5), ("CPU", 4, {"MS_ROLE": "MS_SCHED", "MS_WORKER_NUM": "4"}),
    ("Ascend", None, {"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "4", "RANK_SIZE": "4"}),
    ("GPU", 2, {"OMPI_COMM_WORLD_SIZE": "2"})])
def test_right_starts(started, target, promised, variables):
    started(**variables)
    process_group.check_start(target, promised)


@pytest.mark.parametrize("target, promised, variables, culprit", [
    ("Ascend", None, {**RANK_5, "RANK_SIZE": "4"}, f"RANK_TABLE_FILE: {TABLE} has 8"),
    ("Ascend", None, {**RANK_5, "RANK_ID": ""}, "RANK_ID: got nothing"),
    ("Ascend", None, {**RANK_5, "DEVICE_ID": "0"}, "DEVICE_ID: got 0 for rank 5"),
    ("CPU", None, {"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "4", "MS_SCHED_PORT": "65536"}, "MS_SCHED_PORT: got "),
    ("CPU", 8, {"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "4"}, "--device_num: got 8")])
def test_wrong_starts_are_named_before_anybody_waits(started, target, promised, variables, culprit):
    started(**variables)
    with pytest.raises(UserError) as error:
        environment.prepare(target, 0, distributed=True, promised_devices=promised)
    assert str(error.value).startswith(culprit) and "\n" not in str(error.value)


@pytest.mark.parametrize("target, variables, where", [
    ("CPU", {"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "2", "MS_SCHED_HOST": "10.0.0.9", "MS_SCHED_PORT": "8118"},
     "10.0.0.9:8118"),
    ("Ascend", RANK_5, f"device_ip addresses of {TABLE}")])
def test_ranks_that_cannot_reach_each_other_are_no_fault_of_a_device(started, monkeypatch, target, variables, where):
    def fail():
        raise RuntimeError("Topology build timed out.\nmore of it")

    started(**variables)
    monkeypatch.setattr(environment, "has_device", lambda target: True)
    monkeypatch.setattr(mindspore, "set_device", lambda *_: None)
    monkeypatch.setattr(mindspore.communication, "init", fail)
    with pytest.raises(UserError) as error:
        environment.prepare(target, 0, distributed=True)
    message = str(error.value)
    assert message.startswith("--run_distribute: ") and "(Topology build timed out.)" in message and where in message
    assert "\n" not in message and "--device_target" not in message

"""What is set before MindSpore is imported. Each case is a fresh process that reports its environment."""
import os
import subprocess
import sys

import mindspore
import mindspore.communication
import pytest
from helpers import ROOT

from src.common.errors import UserError
from src.device import environment
from src.distributed import process_group

REPORT = """
import os, sys, types
sys.path.insert(0, {root!r})
stub = types.ModuleType("mindspore")  # what is tested happens before the import
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
    (None, "/nowhere", "CPU"), (None, "/dev/null", "Ascend"), ("CPU", "/dev/null", "CPU"), ("GPU", "/nowhere", "GPU")])
def test_targets_and_their_settings(target, ascend, expected):
    found = report(target, ascend)
    assert found["target"] == expected
    assert found["device"] == f"{expected} 3"
    assert found["seed"] == "7"
    for name, value in {**environment.CPU_SETTINGS, **environment.MINDSPORE_LAYERS_SETTINGS}.items():
        assert found[name] == (value if expected == "CPU" else "None")


def test_the_cpus_own_layers_take_avx512():
    found = report("CPU", library="loaded")
    assert found["ONEDNN_MAX_CPU_ISA"] == "None" and found["MS_DEV_HOST_BLOCKING_RUN"] == "1"


@pytest.mark.parametrize("target, generation, wanted, expected", [
    ("Ascend", "ascend910b", None, "O1"), ("Ascend", "ascend910_93", None, "O1"), ("Ascend", "ascend910", None, "None"),
    ("CPU", "ascend910b", None, "None"), ("Ascend", "ascend910b", "O0", "O0"), ("Ascend", "ascend910", "O1", "O1"),
    ("CPU", "", "O1", "O1")])
def test_operators_are_fused_where_that_saves_kernels(target, generation, wanted, expected):
    assert report(target, "/dev/null", generation, wanted)["jit_level"] == expected


def test_the_users_own_values_win():
    found = report("CPU", ONEDNN_MAX_CPU_ISA="SSE41")
    assert found["ONEDNN_MAX_CPU_ISA"] == "SSE41"
    assert found["MS_DEV_HOST_BLOCKING_RUN"] == "1"


def test_a_missing_device_is_said(monkeypatch):
    monkeypatch.setattr(environment, "DEVICE_FILES", {"GPU": ("/nowhere/nvidia*",)})
    with pytest.raises(UserError, match="--device_target: got GPU, but this machine has no such device"):
        environment.prepare("GPU", 0)


# --- the processes of a distributed run ---

TABLE = str(ROOT / "tests" / "rank_tables" / "8p.json")


@pytest.fixture
def started(monkeypatch):
    """Set what a launcher tells a process, and nothing else."""
    def call(**variables):
        for name in (*process_group.WORLD_SIZE_VARIABLES, "RANK_TABLE_FILE", "RANK_ID", "DEVICE_ID", "MS_ROLE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
    return call


@pytest.mark.parametrize("name", process_group.WORLD_SIZE_VARIABLES)
def test_one_of_several_processes_must_be_told_so(started, name):
    started(**{name: "8"})
    with pytest.raises(UserError, match=f"{name}=8: this was started as one of several processes, .*--run_distribute"):
        environment.prepare("CPU", 0)


@pytest.mark.parametrize("target, promised, variables", [
    ("Ascend", 8, {"RANK_TABLE_FILE": TABLE, "RANK_SIZE": "8", "RANK_ID": "5", "DEVICE_ID": "5"}),
    ("Ascend", None, {"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "4", "RANK_SIZE": "4"}),
    ("CPU", 4, {"MS_ROLE": "MS_SCHED", "MS_WORKER_NUM": "4"}),
    ("GPU", 2, {"OMPI_COMM_WORLD_SIZE": "2"}),
])
def test_right_starts(started, target, promised, variables):
    started(**variables)
    process_group.check_start(target, promised)


@pytest.mark.parametrize("target, promised, variables, message", [
    ("Ascend", None, {}, "--run_distribute: got True, but nothing says how many processes"),
    ("Ascend", None, {"RANK_TABLE_FILE": TABLE, "RANK_SIZE": "4", "RANK_ID": "0", "DEVICE_ID": "0"},
     "RANK_TABLE_FILE: .*8p.json has 8 devices, but 4 processes were started .RANK_SIZE=4"),
    ("Ascend", None, {"RANK_TABLE_FILE": TABLE, "RANK_SIZE": "8", "DEVICE_ID": "0"},
     "RANK_ID: got nothing, takes .* 0 to 7"),
    ("Ascend", None, {"RANK_TABLE_FILE": TABLE, "RANK_SIZE": "8", "RANK_ID": "8", "DEVICE_ID": "0"}, "RANK_ID: got 8"),
    ("Ascend", None, {"RANK_TABLE_FILE": TABLE, "RANK_SIZE": "8", "RANK_ID": "3", "DEVICE_ID": "0"},
     "DEVICE_ID: got 0 for rank 3, takes 3"),
    ("Ascend", None, {"RANK_TABLE_FILE": "nowhere.json", "RANK_SIZE": "8"}, "RANK_TABLE_FILE: nowhere.json"),
    ("CPU", None, {"RANK_SIZE": "2"}, "--device_target: got CPU for processes that were not started by msrun"),
    ("CPU", 8, {"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "4"},
     "--device_num: got 8, but 4 processes were started .MS_WORKER_NUM=4"),
])
def test_wrong_starts_are_named_before_anybody_waits(started, target, promised, variables, message):
    started(**variables)
    with pytest.raises(UserError, match=message) as error:
        environment.prepare(target, 0, distributed=True, promised_devices=promised)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("variables, where", [
    ({"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "2", "MS_SCHED_HOST": "10.0.0.9", "MS_SCHED_PORT": "8118"},
     "MASTER_ADDR and MASTER_PORT (here 10.0.0.9:8118) and the firewalls"),
    ({"RANK_TABLE_FILE": TABLE, "RANK_SIZE": "8", "RANK_ID": "5", "DEVICE_ID": "5"},
     f"the device_ip addresses of {TABLE}")])
def test_ranks_that_cannot_reach_each_other_are_no_fault_of_a_device(started, monkeypatch, variables, where):
    def fail():
        raise RuntimeError("Topology build timed out.\nmore of it")

    started(**variables)
    monkeypatch.setattr(environment, "is_there", lambda target: True)
    monkeypatch.setattr(mindspore, "set_device", lambda *_: None)
    monkeypatch.setattr(mindspore.communication, "init", fail)
    with pytest.raises(UserError) as error:
        environment.prepare("CPU" if "MS_ROLE" in variables else "Ascend", 0, distributed=True)
    message = str(error.value)
    assert message.startswith("--run_distribute: the processes of this run cannot reach each other (Topology build")
    assert where in message and "\n" not in message
    assert "--device_target" not in message and "driver" not in message

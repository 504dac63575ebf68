"""The distributed launchers under a POSIX shell, with stand-ins for python and for MindSpore's msrun."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT

SHELL = shutil.which("dash") or "sh"
TABLES = ROOT / "tests" / "rank_tables"
ASCEND, MSRUN = "run_distribution_train_ascend.sh", "run_distribution_train_msrun.sh"
# A rank writes down how it was called, then does what DO says.
STAND_IN = """#!/bin/sh
case $1 in
    -c | */rank_table.py) exec "$REAL_PYTHON" "$@" ;;
    -m) exec "$REAL_PYTHON" "$MSRUN" "$@" ;;
esac
{ env; printf 'argument=%s\\n' "$@"; pwd; } >"$RECORD/$RANK_ID${MS_ROLE:-}"
echo "from rank $RANK_ID"
eval "$DO"
"""
# As MindSpore's: the scheduler in its own process group, every worker in another; one fails, the others are killed.
MSRUN_STAND_IN = """
import json, os, signal, subprocess, sys, time
flags = dict(zip(sys.argv[3:-1:2], sys.argv[4::2]))
json.dump(sys.argv[1:], open(os.environ["RECORD"] + "/msrun", "w"))
print("from msrun", flush=True)
if "MSRUN_STATUS" in os.environ:
    sys.exit(int(os.environ["MSRUN_STATUS"]))
first = int(flags["--local_worker_num"]) * int(flags["--node_rank"])
def start(role, rank, log, setup):
    env = {**os.environ, "MS_ROLE": role, "RANK_ID": str(rank), "DEVICE_ID": str(rank - first)}
    return subprocess.Popen(sys.argv[sys.argv.index("python"):], env=env, preexec_fn=setup, stderr=subprocess.STDOUT,
                            stdout=open(flags["--log_dir"] + f"/{log}.log", "w"))
scheduler = start("MS_SCHED", 0, "scheduler", None)
workers = [start("MS_WORKER", rank, f"worker_{rank}", os.setsid)
           for rank in range(first, first + int(flags["--local_worker_num"]))]
while any(worker.poll() is None for worker in workers):
    if any(worker.poll() for worker in workers):
        for worker in workers:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
    time.sleep(0.3)
sys.exit(scheduler.wait() or any(worker.returncode for worker in workers))
"""
WAIT = "sleep 60 & wait"


@pytest.fixture
def place(tmp_path):
    """A caller's folder with a space and a quote in its name, with data and the stand-ins."""
    folder = tmp_path / "caller's place"
    for name in ("data set", "../bin", "../record"):
        (folder / name).mkdir(parents=True)
    python = tmp_path / "bin" / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    (tmp_path / "msrun.py").write_text(MSRUN_STAND_IN)
    yield folder
    assert not left(folder)


def left(place):
    """Return the processes that a launcher has started and that are still there."""
    marker, found = f"RECORD={place.parent}/record".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if marker in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes())
        except OSError:
            pass  # gone, or another user's
    return found


def start(place, name, *arguments, do="", **env):
    clean = {key: value for key, value in os.environ.items()
             if not key.startswith(("MASTER_", "NODE_", "RANK_", "OMP_", "GLIBC_", "SERVER_ID", "PYTHON", "DEVICE_"))}
    env = {**clean, "PATH": f"{place.parent}/bin:{os.environ['PATH']}", "RECORD": f"{place.parent}/record",
           "REAL_PYTHON": sys.executable, "MSRUN": f"{place.parent}/msrun.py", "DO": do, **env}
    return subprocess.Popen([SHELL, str(ROOT / "scripts" / name), *arguments], cwd=place, env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def end(process):
    """Return exit status, standard output and standard error."""
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def launch(place, name, *more, ranks=2, **options):
    """Start ``ranks`` ranks here with either launcher."""
    if name == MSRUN:
        options = {"MASTER_PORT": free_port(), "DEVICE_TARGET": "CPU", **options}
    first = str(TABLES / f"{ranks}p.json") if name != MSRUN else str(ranks)
    return start(place, name, first, "cifar10", "data set", *more, **options)


def record(place, rank):
    """Return environment, arguments and folder of a rank."""
    lines = (place.parent / "record" / str(rank)).read_text().splitlines()
    arguments = [line.partition("=")[2] for line in lines if line.startswith("argument=")]
    return dict(line.split("=", 1) for line in lines if "=" in line), arguments, lines[-1]


def recorded(place):
    return sorted(path.name for path in (place.parent / "record").iterdir())


def wait_for(place, *names):
    deadline = time.monotonic() + 30
    while not set(names) <= set(recorded(place)):
        assert time.monotonic() < deadline, recorded(place)
        time.sleep(0.02)


def log_of(name, rank):
    return f"train_msrun/worker_{rank}.log" if name == MSRUN else f"train_parallel{rank}/log"


@pytest.mark.parametrize("name, table, server, ranks, size", [
    ("run_distribution_ascend.sh", "2p", "", range(2), 2),
    (ASCEND, "8p", "", range(8), 8),
    (ASCEND, "2x8p", "10.155.111.141", range(8, 16), 16),
])
def test_one_process_for_each_device_of_this_server(place, name, table, server, ranks, size):
    shutil.copy(TABLES / f"{table}.json", place / "rank table.json")
    status, output, errors = end(start(place, name, "rank table.json", "cifar10", "data set", "--encoder", "a b",
                                       SERVER_ID=server))
    assert (status, errors) == (0, "")
    shown = "".join(f" {rank}" for rank in ranks)
    assert output == (f"started here: rank{shown} of {size}; logs: {place}/train_parallelRANK/log, and rank 0's tells "
                      "the progress\nall ranks started here have ended well\n")
    assert recorded(place) == sorted(map(str, ranks))
    for device, rank in enumerate(ranks):
        env, arguments, folder = record(place, rank)
        assert [env[key] for key in ("RANK_ID", "RANK_SIZE", "DEVICE_ID", "RANK_TABLE_FILE", "PYTHONUNBUFFERED")] == [
            str(rank), str(size), str(device), f"{place}/rank table.json", "1"]
        assert arguments == [
            f"{ROOT}/train.py", "--device_target", "Ascend", "--run_distribute", "True", "--device_num", str(size),
            "--dataset_name", "cifar10", "--train_dataset_path", f"{place}/data set", "--encoder", "a b"]
        assert folder == str(place)
        assert (place / f"train_parallel{rank}" / "log").read_text() == f"from rank {rank}\n"


@pytest.mark.parametrize("name", [ASCEND, MSRUN])
def test_a_rank_that_fails_ends_the_others_and_is_named_with_its_log(place, name):
    failing = f'case $RANK_ID${{MS_ROLE#MS_WORKER}} in 2) seq 30; exit 7 ;; esac; {WAIT}'
    status, _, errors = end(launch(place, name, ranks=4, do=failing))
    lines = errors.splitlines()
    assert status == 7
    assert lines[0] == (f"{name}: rank 2 ended with status 7 and was the first to fail; all others were ended; the end "
                        f"of its log {place}/{log_of(name, 2)}:")
    assert lines[1:] == [str(number) for number in range(11, 31)]


@pytest.mark.parametrize("name, victim", [(ASCEND, "$$"), (MSRUN, "$PPID")], ids=["the rank", "rank.sh"])
def test_a_rank_that_is_killed(place, name, victim):
    killed = f'[ "$RANK_ID${{MS_ROLE#MS_WORKER}}" != 1 ] || kill -KILL {victim}; {WAIT}'
    status, _, errors = end(launch(place, name, do=killed))
    assert status == 137
    # On a busy machine msrun may have killed the other one, before the launcher has looked.
    first = "(rank 1|one of the ranks( [01]){2})" if name == MSRUN else "rank 1"
    assert re.match(f"{name}: {first} was killed by signal 9 and was the first to fail", errors), errors
    assert "from rank 1" in errors


@pytest.mark.parametrize("state, status", [("S", 0), ("Z", 1)])
def test_a_zombie_is_no_process(tmp_path, state, status):
    (tmp_path / "stat").write_text(f"12 (a name) with) R 1 2) {state} 7 34 5 6\n")
    script = f'. "{ROOT}/scripts/lib/distributed.sh"; read_stat stat; echo $? "$group"'
    result = subprocess.run([SHELL, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.stdout == f"{status} 34\n"


@pytest.mark.long
def test_a_rank_that_does_not_end_politely_is_killed(place):
    stubborn = '[ "$RANK_ID" = 0 ] || { sleep 0.5; exit 5; }; trap "" TERM; sleep 60'
    assert end(launch(place, ASCEND, do=stubborn))[0] == 5


def test_a_rank_gets_a_moment_to_end(place):
    """It saves its last epoch in it."""
    saving = '[ "$RANK_ID" = 0 ] || { sleep 1; exit 5; }; trap "sleep 2; echo saved; exit" TERM; sleep 60 & wait'
    assert end(launch(place, ASCEND, do=saving))[0] == 5
    assert (place / log_of(ASCEND, 0)).read_text().endswith("saved\n")


@pytest.mark.parametrize("name, number", [
    (ASCEND, signal.SIGHUP), (ASCEND, signal.SIGINT), (ASCEND, signal.SIGTERM), (MSRUN, signal.SIGINT)])
def test_a_signal_to_the_launcher_ends_all_ranks(place, name, number):
    process = launch(place, name, do=WAIT)
    wait_for(place, *(["0MS_SCHED", "0MS_WORKER", "1MS_WORKER"] if name == MSRUN else ["0", "1"]))
    assert left(place)
    process.send_signal(number)
    status, _, errors = end(process)
    assert (status, errors) == (128 + number, f"{name}: interrupted; all ranks were ended\n")
    assert not left(place)


def refused(place, process, message):
    status, output, errors = end(process)
    assert (status, output) == (2, "")
    assert message in errors and errors.count("\n") == 1
    assert not recorded(place)
    assert {path.name for path in place.iterdir()} <= {"data set", "table.json"}


@pytest.mark.parametrize("name, arguments, env, culprit", [
    (ASCEND, ["table.json", "cifar10", "data set"], {}, "table.json: 'server_list'"),
    (ASCEND, [f"{TABLES}/2p.json", "cifar10", "nowhere"], {}, "TRAIN_DATASET_PATH: nowhere"),
    (MSRUN, ["3", "cifar10", "data set"], {"NODE_NUM": "2"}, "DEVICE_NUM: got 3 for 2 machines"),
    (MSRUN, ["2", "cifar10", "data set"], {"NODE_NUM": "2"}, "MASTER_ADDR: got 127.0.0.1")])
def test_wrong_values_are_named_and_nothing_is_started(place, name, arguments, env, culprit):
    (place / "table.json").write_text("{}")
    refused(place, start(place, name, *arguments, **env), culprit)


def test_a_port_that_is_taken_is_named(place):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        refused(place, launch(place, MSRUN, MASTER_PORT=port), f"{MSRUN}: MASTER_PORT: got {port}, which another")


@pytest.mark.parametrize("name, first, wrong", [
    (ASCEND, "RANK_TABLE_FILE", ["2", "cifar10"]), (MSRUN, "DEVICE_NUM", ["2", "cifar10", "data set", "surplus"])])
def test_wrong_arguments_show_the_usage(place, name, first, wrong):
    status, _, errors = end(start(place, name, *wrong))
    assert status == 2
    assert errors.startswith(f"Usage: sh {name} [{first}] [cifar10] [TRAIN_DATASET_PATH] [--flag value ...]\n")
    assert [path.name for path in place.iterdir()] == ["data set"]


def msrun_record(place):
    """Return msrun's own flags and the command that it was given."""
    called = json.loads((place.parent / "record" / "msrun").read_text())
    task = called.index("python")
    assert called[:2] == ["-m", "mindspore.parallel.cluster.run"]
    return dict(zip(called[2:task:2], called[3:task:2])), called[task + 1:]


def test_msrun_is_given_the_run_and_starts_the_chosen_python(place):
    port = free_port()
    status, output, errors = end(launch(place, MSRUN, "--encoder", "a b", MASTER_PORT=port, RANK_TABLE_FILE="/other"))
    assert (status, errors) == (0, "")
    assert output == (f"started here: 2 of 2 ranks; logs: {place}/train_msrun/worker_RANK.log, and rank 0's tells the "
                      "progress\nall ranks started here have ended well\n")
    flags, task = msrun_record(place)
    assert flags == {
        "--worker_num": "2", "--local_worker_num": "2", "--master_addr": "127.0.0.1", "--master_port": port,
        "--node_rank": "0", "--log_dir": f"{place}/train_msrun", "--join": "True", "--cluster_time_out": "300",
        "--tail_worker_log": "0"}
    command = [f"{ROOT}/train.py", "--device_target", "CPU", "--run_distribute", "True", "--device_num", "2",
               "--dataset_name", "cifar10", "--train_dataset_path", f"{place}/data set", "--encoder", "a b"]
    assert task == [f"{place.parent}/bin/python", *command]
    assert recorded(place) == ["0MS_SCHED", "0MS_WORKER", "1MS_WORKER", "msrun"]
    env, arguments, folder = record(place, "1MS_WORKER")
    assert (arguments, folder) == (command, str(place))
    assert "RANK_TABLE_FILE" not in env
    assert env["PATH"] == f"{place.parent}/bin:{os.environ['PATH']}"
    assert env["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    assert env["OMP_NUM_THREADS"] == str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert (place / "train_msrun" / "msrun.log").read_text() == "from msrun\n"


def test_the_users_own_threads_win_and_devices_get_none(place):
    assert end(launch(place, MSRUN, OMP_NUM_THREADS="5"))[0] == 0
    assert record(place, "1MS_WORKER")[0]["OMP_NUM_THREADS"] == "5"
    assert end(launch(place, MSRUN, DEVICE_TARGET="GPU"))[0] == 0
    assert not {"OMP_NUM_THREADS", "GLIBC_TUNABLES"} & set(record(place, "1MS_WORKER")[0])


def test_a_second_machine_starts_its_own_share(place):
    env = {"NODE_NUM": "2", "NODE_RANK": "1", "MASTER_ADDR": "203.0.113.1", "DEVICE_TARGET": "Ascend"}
    status, output, _ = end(launch(place, MSRUN, ranks=4, **env))
    assert status == 0
    assert output.startswith("started here: 2 of 4 ranks; ")
    flags, _ = msrun_record(place)
    assert [flags[f"--{name}"] for name in ("worker_num", "local_worker_num", "master_addr", "node_rank")] == [
        "4", "2", "203.0.113.1", "1"]


@pytest.mark.parametrize("msrun_status, status", [("3", 3), ("0", 1)])
def test_msrun_itself_fails(place, msrun_status, status):
    code, _, errors = end(launch(place, MSRUN, MSRUN_STATUS=msrun_status))
    assert code == status
    assert errors.startswith(f"{MSRUN}: msrun ended with status {status}")
    assert errors.endswith("msrun.log:\nfrom msrun\n")


def test_the_scheduler_fails(place):
    status, _, errors = end(launch(place, MSRUN, do=f'[ "$MS_ROLE" = MS_WORKER ] || exit 6; {WAIT}'))
    assert status == 6
    assert errors.startswith(f"{MSRUN}: the scheduler ended with status 6 and was the first to fail")
    assert "train_msrun/scheduler.log:\nfrom rank 0\n" in errors

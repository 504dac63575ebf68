"""Starting two processes on the CPU, by the launcher or by msrun alone, and watching them."""
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from helpers import ROOT

import common

LAUNCHER = "run_distribution_train_msrun.sh"


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def environment(**more):
    """Return that of a process that was not started from one with MindSpore in it, as this one is.

    MindSpore waits 1 second between its tries to reach the others, and not 3 to 5.
    """
    own = {name: value for name, value in os.environ.items() if name != "MS_SUBMODULE_LOG_v"}
    return {**own, "MS_RETRY_INTERVAL_LOWER": "1", "MS_RETRY_INTERVAL_UPPER": "1", "OMP_NUM_THREADS": "1", **more}


def start_launcher(folder, output, *flags, **env):
    """Start the launcher with two processes, on the images in ``folder``."""
    place = folder / f"{output}.launch"  # for the logs
    place.mkdir()
    return subprocess.Popen(
        ["sh", str(ROOT / "scripts" / LAUNCHER), "2", "cifar10", str(folder / "data"), *flags, "--train_output_path",
         str(folder / output)], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(**{"PYTHON": sys.executable, "DEVICE_TARGET": "CPU", "MASTER_PORT": free_port(), **env}))


def log(folder, output, rank):
    """Return what a rank of the launcher has said."""
    return (folder / f"{output}.launch" / "train_msrun" / f"worker_{rank}.log").read_text()


@contextlib.contextmanager
def two_processes(folder, script, *arguments, cwd):
    """Start a script by msrun, with its logs in the new ``folder``.

    Gives msrun's process, and the file in which every rank notes how it has ended. Nothing is left of it at the end.
    """
    folder.mkdir()
    shutil.copy(ROOT / "scripts" / "lib" / "rank.sh", folder / "python")
    (folder / "python").chmod(0o755)
    command = [*common.msrun(2, folder / "logs"), "python", sys.executable, str(ROOT / script), *arguments]
    events = folder / "events"
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               start_new_session=True,
                               env=environment(PATH=f"{folder}:{os.environ['PATH']}", EVENTS=str(events)))
    try:
        yield process, events
    finally:
        lines = events.read_text().splitlines() if events.exists() else []
        ranks = [line.split()[2] for line in lines if line.startswith("start ")]  # in groups of their own
        for group in (process.pid, *map(int, ranks)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        process.communicate()


def outcome(process, seconds=120):
    """Wait for the end of a launcher, and return its status, what it said, and its errors."""
    try:
        out, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()  # it ends its ranks
        process.communicate()
        raise
    return process.returncode, out, errors


def waiting_for(there, process, seconds=120):
    """Wait until ``there()`` while ``process`` runs."""
    deadline = time.monotonic() + seconds
    while not there():
        assert process.poll() is None, "".join(filter(None, process.communicate()))
        assert time.monotonic() < deadline
        time.sleep(0.005)


def process_of_rank(rank, script, output):
    """Return the process id of the Python that runs ``script`` as ``rank`` for the run ``output``."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            variables = (folder / "environ").read_bytes().decode().split("\0")
        except OSError:
            continue
        if output in words and words[1].endswith(script) and "MS_ROLE=MS_WORKER" in variables \
                and f"RANK_ID={rank}" in variables:
            return int(folder.name)
    raise AssertionError(f"no process of rank {rank}")


def state_of(process_id):
    """Return its letter, such as R of one that runs and T of one that was stopped; none where it has ended."""
    try:
        letter = Path(f"/proc/{process_id}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return ""
    return letter.strip("ZX")

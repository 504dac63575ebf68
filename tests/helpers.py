"""What the tests share: running a script, reading what it left, and small data."""
import contextlib
import importlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.common.logs import logger
from src.common.script import status_of
from src.data.cifar import write_file
from src.data.images import Images
from src.data.shapes import draw
from src.run import checkpoint, records

ROOT = Path(__file__).resolve().parent.parent

# The run of the fixture ``finished``.
SMALL = ("--encoder", "resnet18", "--width_multiplier", "0.0625", "--batch_size", "16", "--projection_dimension", "8",
         "--head_batch_norm", "--normalize", "--seed", "5", "--amp_level", "O0")
EPOCHS, STEPS = 3, 6
CLASSIFIER_EPOCHS, CLASSIFIER_STEPS = 12, 7
TEST_LABELS = np.arange(37) % 10

# Kills the process as soon as a certain record is written.
BY_A_RECORD = """
from src.run import records
append = records.appended_to
def appended_to(path):
    def write(record):
        append(path)(record)
        if all(record.get(name) == value for name, value in {wanted}.items()):
            os.kill(os.getpid(), signal.SIGKILL)
    return write
records.appended_to = appended_to
"""
TRAPPED = """
import os, runpy, signal, sys
{trap}
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Result(NamedTuple):
    """What a script has left: as of ``subprocess.run``."""

    returncode: int
    stdout: str
    stderr: str


def arguments(output, *more):
    """Return the flags of train.py for such a run, on the images in ``data``."""
    return (*SMALL, "--epoch_size", EPOCHS, "--train_dataset_path", "data", "--train_output_path", output, *more)


def back_to(run, epoch):
    """Take a run's checkpoints after ``epoch`` away, as if it had been killed then."""
    folder = run / "checkpoint"
    for file in folder.glob("checkpoint_simclr-*.ckpt"):
        if int(file.stem.rpartition("-")[2]) > epoch:
            file.unlink()
    (folder / "latest").unlink()
    (folder / "latest").symlink_to(f"checkpoint_simclr-{epoch}.ckpt")


def start_script(script, *arguments, cwd, timeout=300, env=None):
    """Run a script of the project as a user does, in a process of its own, from the folder ``cwd``."""
    found = subprocess.run([sys.executable, str(ROOT / script), *map(str, arguments)], cwd=cwd, capture_output=True,
                           text=True, timeout=timeout, env={**os.environ, **(env or {})})
    return Result(found.returncode, found.stdout, found.stderr)


def kill_script(script, *arguments, cwd, when):
    """Run a script in a process of its own, which is killed when it has written a record with the values ``when``."""
    trap_script(script, *arguments, cwd=cwd, trap=BY_A_RECORD.format(wanted=when))


def trap_script(script, *arguments, cwd, trap):
    """Run a script in a process of its own, after the code ``trap``, which has it killed."""
    found = subprocess.run([sys.executable, "-c", TRAPPED.format(trap=trap), str(ROOT / script), *map(str, arguments)],
                           cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
                           timeout=300)
    assert found.returncode == -signal.SIGKILL, found.stdout + found.stderr


@contextlib.contextmanager
def begun_script(script, *arguments, cwd, until):
    """Start a script in a process of its own, give it as soon as ``until`` says so, and kill it in the end."""
    process = subprocess.Popen([sys.executable, str(ROOT / script), *map(str, arguments)], cwd=cwd, text=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 120
        while not until():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        yield process
    finally:
        process.kill()
        process.communicate()


def call_script(script, *arguments, cwd):
    """Run a script's ``main`` in this process, from the folder ``cwd``, which saves the start of MindSpore."""
    argv, folder = sys.argv, os.getcwd()
    handlers, propagates = list(logger.handlers), logger.propagate
    # Files, for as those of a process these have numbers.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out, tempfile.TemporaryFile("w+", encoding="utf-8") as err:
        try:
            sys.argv = [str(ROOT / script), *map(str, arguments)]
            os.chdir(cwd)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    status = status_of(importlib.import_module(Path(script).stem).main)
                except SystemExit as ended:  # argparse, after --help
                    status = ended.code or 0
        finally:
            sys.argv = argv
            os.chdir(folder)
            for handler in list(logger.handlers):
                logger.removeHandler(handler)
                handler.close()
            logger.handlers[:], logger.propagate = handlers, propagates
        out.seek(0)
        err.seek(0)
        return Result(status, out.read(), err.read())


def done(result):
    """Check that a script has ended well, and return what it has said."""
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def refused(result, message):
    """Check that a script has ended with one line, which matches ``message``, and status 2."""
    assert result.returncode == 2, result.stdout + result.stderr
    assert re.search(message, result.stderr), result.stderr
    assert result.stderr.count("\n") == 1, result.stderr


def of_kind(kind, run):
    """Return the records of a kind in a run's folder."""
    return [record for record in records.read(run / "metrics.jsonl") if record["kind"] == kind]


def features_of(run, split):
    """Return the features that an evaluation has kept in a run's folder."""
    (file,) = (run / "features").glob(f"{split}-*.npz")
    with np.load(file) as found:
        return found["features"]


def values(path, holds="simclr"):
    """Return {name: array} of what a checkpoint holds."""
    found = checkpoint.load(str(path), holds, "test")
    return {name: parameter.asnumpy() for name, parameter in found.parameters.items()}


def equal(first, second):
    """Check that two checkpoints have the same values, to the bit."""
    assert first.keys() == second.keys()
    assert [name for name in first if not np.array_equal(first[name], second[name])] == []


def state_of(folder):
    """Return what tells whether anything in a folder has changed since."""
    def state(path):
        about = path.lstat()
        return None if path.is_dir() else (about.st_mtime_ns, about.st_size, about.st_ino)

    return {path.relative_to(folder).as_posix(): state(path) for path in folder.rglob("*")}


class Trace:
    """What is done to files, in its order: ("fsync", path, size), ("replace", from, to), ("unlink", path).

    Args:
        monkeypatch: pytest's.
    """

    def __init__(self, monkeypatch):
        self.events = []
        fsync, replace = os.fsync, os.replace

        def traced_fsync(number):
            path = os.readlink(f"/proc/self/fd/{number}")
            self.events.append(("fsync", path, os.path.getsize(path)))
            fsync(number)

        def traced_replace(source, target):
            self.events.append(("replace", os.path.abspath(source), os.path.abspath(target)))
            replace(source, target)

        def traced_unlink(unlink):
            def call(path, **options):
                self.events.append(("unlink", os.path.abspath(path)))
                unlink(path, **options)
            return call

        monkeypatch.setattr(os, "fsync", traced_fsync)
        monkeypatch.setattr(os, "replace", traced_replace)
        for name in ("unlink", "remove"):
            monkeypatch.setattr(os, name, traced_unlink(getattr(os, name)))
        if sys.version_info < (3, 10):  # whose pathlib has taken os.unlink for itself
            monkeypatch.setattr(Path, "unlink", traced_unlink(Path.unlink))

    def index(self, *event):
        """Return when an event was; a path is enough for an fsync."""
        return next(number for number, there in enumerate(self.events) if there[:len(event)] == event)

    def check(self, folder):
        """Check that every file in a folder was flushed as it is, beside its place, and then renamed to it."""
        files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
                 and path.name not in ("metrics.jsonl", "log", "eval_log", "finetune_log")]  # these are appended to
        assert files
        for file in files:
            number, source = next((number, event[1]) for number, event in reversed(list(enumerate(self.events)))
                                  if event[0] == "replace" and event[2] == str(file))
            assert os.path.dirname(source) == str(file.parent) and os.path.basename(source).startswith(".")
            assert ("fsync", source, file.stat().st_size) in self.events[:number], file


def write_cifar(folder, train=100, test=37):
    """Write ``train`` training and ``test`` test images of shapes as CIFAR-10 files, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / "data_batch_1.bin", draw(train, 1))
    write_file(folder / "test_batch.bin", draw(test, 9))
    return folder


def random_images(count, seed=0):
    """Return ``count`` images of noise, 32 x 32, with labels in turn."""
    rng = np.random.default_rng(seed)
    return Images(rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), (np.arange(count) % 10).astype(np.int32))

"""What the tests share: running a script, and small data."""
import contextlib
import importlib
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.common.logs import status_of
from src.data.cifar import write_file
from src.data.images import Images
from src.data.shapes import draw

ROOT = Path(__file__).resolve().parent.parent


class Result(NamedTuple):
    """What a script has left: as of ``subprocess.run``."""

    returncode: int
    stdout: str
    stderr: str


def start_script(script, *arguments, cwd, timeout=300, env=None):
    """Run a script of the project as a user does, in a process of its own, from the folder ``cwd``."""
    found = subprocess.run([sys.executable, str(ROOT / script), *map(str, arguments)], cwd=cwd, capture_output=True,
                           text=True, timeout=timeout, env={**os.environ, **(env or {})})
    return Result(found.returncode, found.stdout, found.stderr)


def call_script(script, *arguments, cwd):
    """Run a script's ``main`` in this process, from the folder ``cwd``, which saves the start of MindSpore."""
    out, errors = io.StringIO(), io.StringIO()
    argv, folder, terminate = sys.argv, os.getcwd(), signal.getsignal(signal.SIGTERM)
    try:
        sys.argv = [str(ROOT / script), *map(str, arguments)]
        os.chdir(cwd)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            try:
                status = status_of(importlib.import_module(Path(script).stem).main)
            except SystemExit as ended:  # argparse, after --help
                status = ended.code or 0
    finally:
        sys.argv = argv
        os.chdir(folder)
        signal.signal(signal.SIGTERM, terminate)
    return Result(status, out.getvalue(), errors.getvalue())


def refused(result, message):
    """Check that a script has ended with one line, which matches ``message``, and status 2."""
    assert result.returncode == 2, result.stdout + result.stderr
    assert re.search(message, result.stderr), result.stderr
    assert result.stderr.count("\n") == 1, result.stderr


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

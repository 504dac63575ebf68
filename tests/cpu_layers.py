"""Processes with the CPU's own layers or MindSpore's. They need separate processes, for they want oneDNN to use
different instructions, and a process sets these once."""
import contextlib
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import pytest

from src.device import environment
from src.layers.cpu import library


def need_library():
    """Return the path of the library, or skip the test where this machine cannot have one."""
    try:
        return library.build()
    except library.UnavailableError as error:
        if "fails with status" in str(error):
            raise  # the compiler or the trial failed
        pytest.skip(f"no own layers of the CPU here: {error}")


def need_bfloat16():
    """Skip the test where oneDNN has no bfloat16, not even emulated."""
    if "avx512bw" not in library.processor().split():
        pytest.skip("oneDNN has bfloat16 from AVX-512 on")


@contextlib.contextmanager
def process_with(layers, **variables):
    """Start a process with the layers ``own`` or ``mindspore``, as a script does, and yield its executor's ``submit``.

    ``variables`` are set in its environment.
    """
    need_library()
    settings = {*environment.CPU_SETTINGS, *environment.MINDSPORE_LAYERS_SETTINGS, *variables}
    with contextlib.ExitStack() as stack:
        before = {name: os.environ.pop(name) for name in settings if name in os.environ}
        os.environ.update(variables)
        try:
            process = stack.enter_context(ProcessPoolExecutor(
                1, multiprocessing.get_context("spawn"), environment.prepare,
                ("CPU", 0, 0, None, False, None, None, library.load if layers == "own" else None)))
            process.submit(os.getpid).result(120)
        finally:
            for name in variables:
                del os.environ[name]
            os.environ.update(before)
        yield process.submit

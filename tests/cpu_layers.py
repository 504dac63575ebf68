"""The CPU's own layers and MindSpore's, each in a process of its own: of oneDNN a process has one set of instructions,
and the two kinds of layers want different ones."""
import contextlib
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import pytest

from src.device import environment
from src.layers.cpu import library


def need_library():
    """Return the path of the library; where this machine cannot have one, skip the test."""
    try:
        return library.build()
    except library.UnavailableError as error:
        if "fails with status" in str(error):
            raise  # the compiler, or the trial of what it has made
        pytest.skip(f"no own layers of the CPU here: {error}")


def need_bfloat16():
    """Skip the test where oneDNN computes nothing in bfloat16, be it emulated."""
    if "avx512bw" not in library.processor().split():
        pytest.skip("oneDNN has bfloat16 from AVX-512 on")


@contextlib.contextmanager
def process_with(layers, **variables):
    """Start a process with the layers ``own`` or ``mindspore``, as a script does; give what calls a function in it.

    ``variables`` of the environment are set for it.
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

"""The library of the CPU's own layers: how it is built, the warning where it cannot be built, and its threads."""
import json
import os
import platform
import re
import shutil
import subprocess
import sys

import pytest
from cpu_layers import need_library
from helpers import ROOT

from src.layers.cpu import library

COMPILER = """#!/bin/sh
[ "$1" = --version ] && { echo "pretended, version {version}"; exit; }
echo compiles >> {log}
while [ "$1" != -o ]; do shift; done
{body}
"""
SOURCE = """
#include <cstdlib>
extern "C" int start(int) {{ {start} }}
extern "C" int convolution() {{ return 0; }}
extern "C" int convolution_to_input() {{ return 0; }}
extern "C" int convolution_to_weights() {{ return 0; }}
"""
BUILD = "from src.layers.cpu import library; print(library.build())"


@pytest.fixture
def built():
    """The library, as it should be."""
    return need_library()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "simclr-mindspore"


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Return a function that sets a compiler: a shell script, whose output is to be ``$2``."""
    def call(body, version=1):
        file, log = tmp_path / "compiler", tmp_path / "log"
        text = COMPILER
        for name, value in (("version", version), ("log", log), ("body", body)):
            text = text.replace("{" + name + "}", str(value))
        file.write_text(text)
        file.chmod(0o700)
        log.touch()
        monkeypatch.setenv("CXX", str(file))
        return lambda: log.read_text().count("compiles")
    return call


def warned(caplog):
    """Try to load the library, and return the one warning."""
    caplog.clear()
    assert library.load() is None
    (record,) = caplog.records if len(caplog.records) == 1 else [
        record for record in caplog.records if record.levelname != "INFO"]
    assert record.levelname == "WARNING"
    message = record.getMessage()
    assert message.startswith("the CPU's own layers cannot be used: ") and "\n" not in message
    assert "--cpu_layers mindspore" in message
    return message


# --- building ---

def test_two_processes_build_it_once(built, cache, compiler):
    compiled = compiler(f'sleep 0.5; cp {built} "$2"')
    processes = [subprocess.Popen([sys.executable, "-c", BUILD], cwd=ROOT, stdout=subprocess.PIPE, text=True)
                 for _ in range(2)]
    (first, _), (second, _) = (process.communicate(timeout=300) for process in processes)
    assert first == second and [process.returncode for process in processes] == [0, 0]
    assert compiled() == 1
    assert [str(path) for path in cache.iterdir()] == [first.strip()]
    assert cache.stat().st_mode & 0o777 == 0o700


def test_the_name_depends_on_sources_compiler_and_processor(built, cache, compiler, tmp_path, monkeypatch):
    copies = f'cp {built} "$2"'
    compiled = compiler(copies)
    first = library.build()
    assert library.build() == first and compiled() == 1

    names = [first]
    compiler(copies, version=2)
    names.append(library.build())
    with monkeypatch.context() as changed:
        changed.setattr(library, "processor", lambda: "another")
        names.append(library.build())
    shutil.copytree(library.FOLDER, tmp_path / "source")
    with (tmp_path / "source" / "kernels.cc").open("a") as file:
        file.write("// changed\n")
    monkeypatch.setattr(library, "FOLDER", tmp_path / "source")
    names.append(library.build())
    assert len(set(names)) == len(names) == compiled()
    assert sorted(cache.iterdir()) == sorted(names)


# --- what does not work is not kept ---

@pytest.mark.parametrize("body, reason", [
    ("echo here; echo 'x.cc:1: error: the cause'; echo there; exit 1", r"status 1 \(x.cc:1: error: the cause\)"),
    ("echo garbage > \"$2\"", "fails with status 1 "),
    ("return 0;", "fails with status 1 .error: a convolution"),
    ("std::abort();", "fails with status -6"),
])
def test_a_build_or_trial_that_fails_leaves_nothing(built, cache, compiler, tmp_path, caplog, body, reason):
    if body.endswith(";"):
        (tmp_path / "wrong.cc").write_text(SOURCE.format(start=body))
        body = f'{shutil.which("c++") or "c++"} -shared -fPIC {tmp_path}/wrong.cc -o "$2"'
    compiler(body)
    with caplog.at_level("WARNING"):
        message = warned(caplog)
    assert re.search(reason, message), message
    assert list(cache.iterdir()) == []


def test_a_compiler_may_have_arguments(built, cache, compiler, monkeypatch):
    compiler(f'cp {built} "$2"')
    monkeypatch.setenv("CXX", f"env {os.environ['CXX']}")  # as with ccache
    assert library.build().exists()


# --- where it cannot be ---

def no_compiler(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


def open_to_others(monkeypatch, tmp_path):
    (tmp_path / "cache" / "simclr-mindspore").mkdir(parents=True)
    (tmp_path / "cache" / "simclr-mindspore").chmod(0o777)


PLACES = {
    "no compiler": (no_compiler, "there is no C[+][+] compiler"),
    "a missing compiler": (lambda m, _: m.setenv("CXX", "nothing++"), r"compiler \(nothing\+\+\)"),
    "others can write to the cache": (open_to_others, "others can write to .*simclr-mindspore; .*chmod 700 "),
    "the cache cannot be written": (lambda _, path: (path / "cache").write_text("a file"), "Not a directory"),
    "another processor": (lambda m, _: m.setattr(platform, "machine", lambda: "aarch64"), "aarch64"),
    "another oneDNN": (lambda m, _: m.setattr(library, "ONEDNN", "libdnnl.so.9"), "MindSpore 2.* has no libdnnl.so.9"),
}


@pytest.mark.parametrize("place", PLACES)
def test_where_it_cannot_be_built_there_is_one_warning(built, cache, tmp_path, monkeypatch, caplog, place):
    change, reason = PLACES[place]
    with monkeypatch.context() as changed:
        change(changed, tmp_path)
        message = warned(caplog)
    assert re.search(reason, message), message
    assert not cache.is_dir() or list(cache.iterdir()) == []


# --- threads ---

CONVOLVE = """
import ctypes, hashlib, json, os, sys, time
import numpy as np
from src.layers.cpu import trial
before = set(os.listdir("/proc/self/task"))
library = ctypes.CDLL(sys.argv[1])
assert trial.start(library) == 0
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # as MindSpore may do
random = np.random.default_rng(0)
x, w, dy = (random.standard_normal(shape).astype("f4") for shape in ((4, 9, 9, 24), (20, 24, 3, 3), (4, 9, 9, 20)))

def digest():
    y, dx, dw = np.zeros_like(dy), np.zeros_like(x), np.zeros_like(w)
    trial.call(library, "convolution", x, w, y)
    trial.call(library, "convolution_to_input", dy, w, x, dx)
    trial.call(library, "convolution_to_weights", x, dy, w, dw)
    assert np.allclose(y, trial.convolution(x, w, 1), atol=1e-4)
    return hashlib.sha256(y.tobytes() + dx.tobytes() + dw.tobytes()).hexdigest()

actual = {digest() for _ in range(20)}
time.sleep(0.1)
begun = time.process_time()
time.sleep(float(sys.argv[2]))
idle = time.process_time() - begun
cores = [sorted(os.sched_getaffinity(int(task))) for task in set(os.listdir("/proc/self/task")) - before]
print(json.dumps({"threads": len(cores) + 1, "cores": cores, "idle": idle, "digests": sorted(actual)}))
"""
CORES = sorted(os.sched_getaffinity(0))


def convolve(path, threads=None, cores=None, idle=0.0):
    """Convolve in a process that may use ``cores``, with OMP_NUM_THREADS at ``threads``."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment.update({} if threads is None else {"OMP_NUM_THREADS": threads}, PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, "-c", CONVOLVE, str(path), str(idle)], env=environment, timeout=300,
                          capture_output=True, text=True, cwd=ROOT,
                          preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("threads, cores, expected", [
    (None, None, len(CORES)), ("many", None, len(CORES)), (None, CORES[:1], 1), ("2", CORES[-1:], 2)])
def test_there_is_a_thread_per_core_of_the_process_or_the_number_that_openmp_is_given(built, threads, cores, expected):
    actual = convolve(built, threads, cores)
    assert actual["threads"] == expected
    assert actual["cores"] == [cores or CORES] * (expected - 1)
    assert len(actual["digests"]) == 1


def test_idle_threads_do_not_spin_and_the_next_process_computes_the_same(built):
    first, second = (convolve(built, "3", idle=idle) for idle in (1.0, 0.0))
    assert first["idle"] < 0.2
    assert first["digests"] == second["digests"]

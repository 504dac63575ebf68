"""The library of the CPU's own layers: kernels.cc, compiled at the first use and kept in the user's cache."""
import ctypes
import hashlib
import importlib.metadata
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import List, Optional

from src.common.files import one_at_a_time, reason_of, written_whole
from src.common.logs import logger
from src.distributed.process_group import CpuLibrary

FOLDER = Path(__file__).parent
ONEDNN = "libdnnl.so.3"
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp-simd", "-fno-trapping-math", "-fno-math-errno", "-shared",
         "-fPIC", "-pthread")
BFLOAT16 = 0xe7  # the bits of avx512_core_bf16 in oneDNN's dnnl_cpu_isa_t, which all later instruction sets have too


class UnavailableError(Exception):
    """The library cannot be used here; the message says why, and what to do."""


def load() -> Optional[CpuLibrary]:
    """Build the library if it is not cached, load it and start its threads; where that fails, warn and return None."""
    try:
        path = build()
        library = ctypes.CDLL(str(path))
        from src.layers.cpu import trial  # not at the top: NumPy starts threads, which would receive the signals
        if trial.start(library):
            raise UnavailableError("MindSpore's oneDNN does not work, or is not of version 3")
    except (UnavailableError, OSError) as error:
        logger.warning("the CPU's own layers cannot be used: %s. Training with MindSpore's layers takes about twice as "
                       "long; --cpu_layers mindspore selects them without this warning", reason_of(error))
        return None
    return CpuLibrary(path, (library.dnnl_get_effective_cpu_isa() & BFLOAT16) == BFLOAT16)


def build() -> Path:
    """Return the library, from the cache or newly built and tested; raise UnavailableError or OSError if it fails."""
    mindspore = importlib.metadata.distribution("mindspore")
    onednn, compiler = _find_onednn(mindspore), _find_compiler()
    ingredients = [file.read_text(encoding="utf-8") for file in sorted(FOLDER.glob("*.[ch]*"))]
    ingredients += [str(onednn), mindspore.version, *compiler, _run([*compiler, "--version"]), processor(), *FLAGS]
    name = hashlib.sha256("\0".join(ingredients).encode()).hexdigest()[:16]
    path = _cache() / f"cpu_layers-{name}.so"
    if path.exists():
        return path
    with one_at_a_time(path):
        if not path.exists():
            logger.info("building the CPU's own layers, once: %s", path)
            with written_whole(path) as temporary:
                _run([*compiler, *FLAGS, str(FOLDER / "kernels.cc"), "-o", str(temporary), f"-L{onednn.parent}",
                      f"-l:{ONEDNN}", f"-Wl,-rpath,{onednn.parent}"])
                _run([sys.executable, str(FOLDER / "trial.py"), str(temporary)])  # a process, for it may crash
    return path


def processor() -> str:
    """Return name and features of the processor, as Linux reports them."""
    first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n", 1)[0]
    return " ".join(line.partition(":")[2].strip() for line in first.splitlines()
                    if line.startswith(("model name", "flags")))


def _find_onednn(mindspore: importlib.metadata.Distribution) -> Path:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise UnavailableError(f"they need Linux on x86-64, and this is {sys.platform} on {platform.machine()}")
    library = Path(mindspore.locate_file(f"mindspore/lib/{ONEDNN}"))
    if not library.exists():
        raise UnavailableError(f"MindSpore {mindspore.version} has no {ONEDNN}; install MindSpore 2.10.0, which needs "
                               "Python 3.10 to 3.12")
    return library


def _find_compiler() -> List[str]:
    """Return the command of a C++ compiler: CXX, which may have arguments, else the first one on the PATH."""
    named = shlex.split(os.environ.get("CXX", ""))
    for name, *arguments in (named,) if named else ((name,) for name in COMPILERS):
        program = shutil.which(name)
        if program:
            return [program, *arguments]
    raise UnavailableError(f"there is no C++ compiler ({named[0] if named else ', '.join(COMPILERS)}); set CXX to one, "
                           "or install one, on Debian and Ubuntu: apt install g++")


def _cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "simclr-mindspore"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = folder.stat()
    if about.st_uid != os.getuid() or stat.S_IMODE(about.st_mode) & 0o022:  # its code is going to run as this user
        raise UnavailableError(f"others can write to {folder}; make it private: chmod 700 {folder}")
    return folder


def _run(command: List[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          check=False)
    if done.returncode:
        lines = done.stdout.strip().splitlines() or ["no message"]
        cause = next((line for line in lines if "error" in line.lower()), lines[-1])
        raise UnavailableError(f"{Path(command[0]).name} fails with status {done.returncode} ({cause.strip()})")
    return done.stdout

"""The library of the CPU's own layers: kernels.cc, built at the first use and kept in the user's cache."""
import ctypes
import hashlib
import importlib.metadata
import importlib.util
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
SOURCE = FOLDER / "kernels.cc"
ONEDNN = "libdnnl.so.3"
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp-simd", "-fno-trapping-math", "-fno-math-errno", "-shared",
         "-fPIC", "-pthread")
BFLOAT16 = {"avx512_bf16", "amx_bf16"}


class UnavailableError(Exception):
    """Why there is no library here, and what to do about it."""


def load() -> Optional[CpuLibrary]:
    """Build the library if that has not been done, load it and start its threads.

    Where that cannot be, there is one warning, and None is returned: MindSpore has layers of its own.
    """
    try:
        path = build()
        try:
            library = ctypes.CDLL(str(path))
        except OSError:  # the file has been damaged since
            path.unlink()
            library = ctypes.CDLL(str(build()))
        from src.layers.cpu import trial  # here: NumPy starts threads, which would get the signals that are waited for
        if trial.start(library):
            raise UnavailableError("MindSpore's oneDNN is not of version 3")
    except (UnavailableError, OSError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else error
        logger.warning("the CPU's own layers cannot be used: %s. With MindSpore's own, training takes about twice as "
                       "long; --cpu_layers mindspore takes them without this warning", reason)
        return None
    return CpuLibrary(path, bool(BFLOAT16 & set(processor().split())))


def build() -> Path:
    """Return the built library, from the cache or new.

    It has been tried out before it gets its name in the cache, so what is there is whole and works.

    Raises:
        UnavailableError: this processor, this MindSpore or the compiler will not do.
        OSError: the cache cannot be written.
    """
    onednn, compiler = _find_onednn(), _find_compiler()
    made_of = [file.read_text(encoding="utf-8") for file in sorted(FOLDER.glob("*.[ch]*"))]
    made_of += [str(onednn), importlib.metadata.version("mindspore"), *compiler, _run([*compiler, "--version"]),
                processor(), *FLAGS]
    name = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]
    path = _cache() / f"cpu_layers-{name}.so"
    if path.exists():
        return path
    with one_at_a_time(path):
        if not path.exists():
            logger.info("building the CPU's own layers, once: %s", path)
            with written_whole(path) as temporary:
                _run([*compiler, *FLAGS, str(SOURCE), "-o", str(temporary), f"-L{onednn.parent}", f"-l:{ONEDNN}",
                      f"-Wl,-rpath,{onednn.parent}"])
                _run([sys.executable, str(FOLDER / "trial.py"), str(temporary)])
    return path


def processor() -> str:
    """Return name and features of the processor, as Linux knows them."""
    first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n", 1)[0]
    return " ".join(line.partition(":")[2].strip() for line in first.splitlines()
                    if line.startswith(("model name", "flags")))


def _find_onednn() -> Path:
    """Return the place of MindSpore's oneDNN."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise UnavailableError(f"they are for Linux on x86-64, and this is {sys.platform} on {platform.machine()}")
    package = importlib.util.find_spec("mindspore")
    if package is None:
        raise UnavailableError("MindSpore is not installed")
    library = Path(package.submodule_search_locations[0]) / "lib" / ONEDNN
    if not library.exists():
        raise UnavailableError(f"MindSpore {importlib.metadata.version('mindspore')} has another oneDNN (no {ONEDNN}); "
                               "take 2.10.0, which needs Python 3.10 to 3.12")
    return library


def _find_compiler() -> List[str]:
    """Return the command of a C++ compiler: CXX, which may have arguments, or what the PATH has."""
    named = shlex.split(os.environ.get("CXX", ""))
    for name, *arguments in (named,) if named else ((name,) for name in COMPILERS):
        found = shutil.which(name)
        if found:
            return [found, *arguments]
    if named:
        raise UnavailableError(f"CXX names {named[0]}, which is not there; name a C++ compiler")
    raise UnavailableError(f"there is no C++ compiler ({', '.join(COMPILERS)}) on the PATH; install one, on Debian and "
                           "Ubuntu: apt install g++")


def _cache() -> Path:
    """Return the user's private folder for the library, which will be run."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "simclr-mindspore"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o022:
        raise UnavailableError(f"others can write to {folder}; make it your own: chmod 700 {folder}")
    return folder


def _run(command: List[str]) -> str:
    """Return what a command prints.

    Raises:
        UnavailableError: it fails.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          check=False)
    if done.returncode:
        lines = done.stdout.strip().splitlines() or ["it says nothing"]
        said = next((line for line in lines if "error" in line.lower()), lines[-1])
        raise UnavailableError(f"{Path(command[0]).name} fails with status {done.returncode} ({said.strip()})")
    return done.stdout

"""Compilers vectorise the loops of the CPU's own layers, by their own reports."""
import platform
import re
import shutil
import subprocess

import pytest

from src.layers.cpu import library

COMPILERS = [name for name in ("g++-11", "g++", "g++-13", "g++-14", "clang++") if shutil.which(name)]
GCC_REPORT = re.compile(r"([a-z_]+\.(?:h|cc)):(\d+):\d+: (optimized: loop vectorized|missed: couldn't vectorize loop)")


def loops():
    """Return file, first and last line of every loop that is to be vectorised."""
    places = []
    for file in library.FOLDER.glob("*.[ch]*"):
        lines = file.read_text().splitlines()
        for number, line in enumerate(lines, 1):
            if line.startswith("#pragma omp simd"):
                indent = re.match(" *for", lines[number])[0]
                ends = (at for at in range(number + 1, len(lines)) if not lines[at].startswith(indent[:-3] + " "))
                places.append((file.name, number + 1, next(ends)))
    return places


def compiled(compiler, processor, *report):
    """Return what a compiler says while it compiles the kernels."""
    flags = [flag for flag in library.FLAGS if flag not in ("-march=native", "-shared")]
    command = [compiler, *flags, f"-march={processor}", *report, "-c", str(library.FOLDER / "kernels.cc"),
               "-o", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return done.stderr


@pytest.mark.long
@pytest.mark.skipif(not COMPILERS or platform.machine() != "x86_64", reason="no compiler, or for another processor")
@pytest.mark.parametrize("processor", ["x86-64-v3", "x86-64-v4"])  # AVX2, AVX-512
@pytest.mark.parametrize("compiler", COMPILERS)
def test_every_marked_loop_is_vectorised_in_both_types(compiler, processor):
    assert len(loops()) > 10
    if compiler.startswith("clang"):
        assert "[-Wpass-failed" not in compiled(compiler, processor)
        return
    reported = GCC_REPORT.findall(compiled(compiler, processor, "-fopt-info-vec-all"))
    for file, first, last in loops():
        of_loop = [what for name, line, what in reported if name == file and first <= int(line) <= last]
        assert of_loop.count("optimized: loop vectorized") >= 2, (file, first)  # float32 and bfloat16
        assert "missed: couldn't vectorize loop" not in of_loop, (file, first)

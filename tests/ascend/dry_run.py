"""Run a program in a dry run for Ascend, and count from MindSpore's log and its text of the graph what was compiled."""
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional

import numpy as np
from ascend import stand_ins

from src.device.environment import CPU_SETTINGS, MINDSPORE_LAYERS_SETTINGS

ROOT = Path(__file__).resolve().parent.parent.parent
# Two cores, on whatever machine: MindSpore takes its numbers of threads from them, and some graphs do not compile with
# few. It leaves without MindSpore's destructors, which would crash on the stand-ins.
LAUNCH = """
import os, runpy, sys, traceback
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
sys.argv, status = sys.argv[1:], 0
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as ended:
    status = ended.code or 0
except BaseException:
    traceback.print_exc()
    status = 1
sys.stdout.flush()
sys.stderr.flush()
os._exit(status)
"""
# What MindSpore is to log: DEVICE tells of the kernels, RUNTIME_FRAMEWORK of those that it will not launch.
LOG = {"GLOG_v": "3", "MS_SUBMODULE_LOG_v": "{DEVICE:1,RUNTIME_FRAMEWORK:1}"}
LOG_LINE = re.compile(r"^\[(?:INFO|WARNING|ERROR|CRITICAL)\] \w+\(\d+.*\n", re.M)
# A kernel is made for an operator: its type, and what it is taken from (opapi, acl: CANN's; hccl: a collective).
KERNEL = re.compile(r"GenerateKernelMod\] kernel opname:(\w+), kernel type:(\w+?)_kernel")
# Fused ones are named after their operators.
FUSED = re.compile(r"GraphKernel_(\w+?)(?:_fusion|_split)?")
# A view of another tensor, such as a Reshape: MindSpore makes a kernel for it, gives its output the memory of its
# input, and then launches nothing (is_launch_skipped_ in its runtime).
VIEW = re.compile(r"OptimizeNopNode\] The reference relation of nopnode \S*?(\w+)-op\d+, ")
# An operator that Ascend has no kernel for.
ON_CPU = re.compile(r"TryBackoffCpu\] Try to use backoff CPU kernel, node:(\S+)")
# The text of a graph: MindSpore writes a hundred, at one stage of compiling each, and this is the last.
STAGE = "graph_build"
# A collective in it: operator and attributes, the types and shapes of its inputs, the cell that it stands in.
COLLECTIVE = re.compile(
    r"^ *%\d+\(.*?\) = (?:PrimFunc_)?(All(?:Reduce|Gather|ToAll)\w*|ReduceScatter\w*|Broadcast)\((.*)\n"
    r" +: \((.*)\) -> \(.*\)\n(?: +: .*\n)*"
    r" +# Fullname with scope: \((.*)\)$", re.M)
TENSOR = re.compile(r"<Tensor\[[A-Za-z]+(\d+)\], \(([\d, ]*)\)>")


class Collective(NamedTuple):
    """What the ranks do together: the operator, what for, and how many inputs of how many bytes a rank has.

    ``bytes`` are those of all inputs: of an AllGather a rank's own rows, of a ReduceScatter the rows for all ranks.
    """

    operator: str
    purpose: str
    bytes: int
    inputs: int


class DryRun(NamedTuple):
    """What a program has left.

    ``kernels`` has those that are launched, by operator, and ``views`` those that are made and never launched;
    ``graph`` is MindSpore's text of the graph, where that was asked for.
    """

    status: int
    said: str
    kernels: Dict[str, int]
    views: Dict[str, int]
    on_cpu: List[str]
    collectives: List[Collective]
    graph: str = ""

    @property
    def operators(self) -> Dict[str, int]:
        """What is launched, by operator, those that are parts of fused kernels included."""
        found = Counter()
        for name, count in self.kernels.items():
            fused = FUSED.fullmatch(name)
            for operator in fused[1].split("_") if fused else [name]:
                found[operator] += count
        return dict(found)


def run(folder: Path, program: str, *arguments, cwd: Path, rank: int = 0, world_size: int = 1,
        graph: bool = False) -> DryRun:
    """Run a program of the project in a dry run.

    Args:
        folder: that of the stand-ins.
        program: its path in the project.
        arguments: its arguments.
        cwd: the folder that it runs in.
        rank: which of the devices it is compiled for; the others are never started.
        world_size: how many devices there are.
        graph: whether the collectives are read too, from the one graph that it compiles.
    """
    own = {name: value for name, value in os.environ.items()
           if name not in {**CPU_SETTINGS, **MINDSPORE_LAYERS_SETTINGS}}
    environment = {**own, **stand_ins.environment(folder), **LOG}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment["PYTHONPATH"]])
    if world_size > 1:
        environment.update(RANK_SIZE=str(world_size), RANK_ID=str(rank))
    graphs = cwd / f"graphs_{rank}"
    if graph:
        environment.update(MS_DEV_SAVE_GRAPHS="1", MS_DEV_SAVE_GRAPHS_PATH=str(graphs), MS_DEV_DUMP_IR_PASSES=STAGE)
    found = subprocess.run([sys.executable, "-c", LAUNCH, str(ROOT / program), *map(str, arguments)], cwd=cwd,
                           env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                           errors="replace", timeout=300, check=False)
    text = "".join(file.read_text(encoding="utf-8") for file in graphs.rglob(f"{STAGE}_*.ir"))
    return counted(found.returncode, found.stdout, text if graph else None)


def counted(status: int, log: str, graph: Optional[str] = None) -> DryRun:
    """Count what a log, and the text of a graph if there is one, tell.

    Raises:
        ValueError: the graph has other collectives than those that kernels were made for.
    """
    made = KERNEL.findall(log)
    views = Counter(VIEW.findall(log))
    kernels = Counter(operator for operator, _ in made)
    kernels.subtract(views)
    collectives = [] if graph is None else collectives_of(graph)
    in_kernels = sorted(operator for operator, kind in made if kind == "hccl")
    if graph is not None and status == 0 and in_kernels != sorted(found.operator for found in collectives):
        raise ValueError(f"of {len(in_kernels)} collectives {len(collectives)} could be read from MindSpore's text of "
                         "the graph; its format or the operators are new, see COLLECTIVE")
    return DryRun(status, LOG_LINE.sub("", log), dict(+kernels), dict(views), ON_CPU.findall(log), collectives,
                  graph or "")


def collectives_of(graph: str) -> List[Collective]:
    """Return the collectives in the text of a graph."""
    found = []
    for operator, attributes, types, scope in COLLECTIVE.findall(graph):
        tensors = TENSOR.findall(types)
        size = sum(int(bits) // 8 * _elements(shape) for bits, shape in tensors)
        found.append(Collective(operator, purpose_of(scope, "fusion: I64(1)," in attributes, len(tensors)), size,
                                len(tensors)))
    return found


def purpose_of(scope: str, fused: bool, inputs: int) -> str:
    """Return what a collective is for, from the cells that it stands in."""
    if "Norm" in scope:
        return "batch norm"
    if "NTXent" in scope:
        return "negatives"
    if fused or inputs > 1:
        return "gradients"
    return "totals" if "-Mean" in scope else "other"


def _elements(shape: str) -> int:
    return int(np.prod([int(side) for side in shape.split(",") if side.strip()], dtype=np.int64))

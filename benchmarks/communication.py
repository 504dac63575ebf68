"""The bytes that a rank sends in a step of pretraining, and the memory of its similarity matrix.

They are counted from the compiled graph: for every number of devices one process compiles the train step of
one of them, with batch norm and negatives across devices, runs nothing, and lists the collectives with
their shapes. From these follow the bytes on the wire, for the ring algorithms that HCCL and NCCL take for large
tensors: an all-reduce of n bytes sends 2 n (N - 1) / N, an all-gather of n bytes a rank n (N - 1).
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np

import common

KINDS = ("gradients", "embeddings", "batch norm", "loss")
# A collective in MindSpore's text of a graph: its name and attributes, its shapes, where it stands.
COLLECTIVE = re.compile(r"= (AllReduce|AllGather)\((.*)\n"
                        r" +: \(<Tensor\[Float32\], \(([\d, ]*)\)>\).*\n.*scope: \((.*)\)")


def compile_step(options: argparse.Namespace) -> None:
    """Compile the train step of rank 0 of ``options.compile`` devices; MindSpore writes its graph down."""
    from src.distributed import environment
    environment.prepare("CPU", 0, distributed=True, save_graphs_to=options.graphs)
    from mindspore import Tensor

    from src.distributed.process_group import Process

    process = Process("CPU", 0, options.compile)
    step = common.learner(common.network(options), process, np.full(2, 1e-3)).step
    # The process group has one rank here; the shapes are to be those of the many.
    step.loss.gather.gather.add_prim_attr("rank_size", process.world_size)
    step.compile(Tensor(np.zeros((2 * options.batch_size, 3, 32, 32), np.uint8)))


def collectives(graph: str) -> List[Tuple[str, str, int]]:
    """Return kind, operation and bytes of every collective in the text of a graph."""
    found = []
    for operation, attributes, shape, scope in COLLECTIVE.findall(graph):
        elements = int(np.prod([int(side) for side in shape.split(",") if side.strip()] or [1]))
        if "fusion: I64(1)" in attributes:
            kind = "gradients"
        elif "gather-Gather" in scope:
            kind = "embeddings"
        else:
            kind = "batch norm" if "Normalise" in scope else "loss"
        found.append((kind, operation, 4 * elements))
    if len(found) != len(re.findall(r"= (?:AllReduce|AllGather|ReduceScatter|Broadcast)\(", graph)):
        sys.exit("the graph has collectives that could not be read")
    return found


def count(options: argparse.Namespace, devices: int) -> Dict[str, Any]:
    """Return what a rank of ``devices`` sends per step."""
    with tempfile.TemporaryDirectory() as folder:
        command = common.msrun(1, Path(folder) / "logs") + [
            str(Path(__file__).resolve()), "--compile", str(devices), "--graphs", folder, "--encoder", options.encoder,
            "--width_multiplier", str(options.width_multiplier), "--batch_size", str(options.batch_size)]
        outcome = subprocess.run(command, capture_output=True, text=True, check=False,
                                 env={**os.environ, "PATH": common.own_path(),
                                      "MS_DEV_DUMP_IR_PASSES": "validate"})  # of a hundred
        graphs = sorted(Path(folder).rglob("*_validate_*.ir"))
        if outcome.returncode or not graphs:
            sys.exit(f"compiling for {devices} devices failed:\n{outcome.stdout}{outcome.stderr}")
        found = collectives(graphs[-1].read_text(encoding="utf-8"))
    sent = dict.fromkeys(KINDS, 0.0)
    for kind, operation, size in found:
        sent[kind] += size * (2 * (devices - 1) / devices if operation == "AllReduce" else devices - 1)
    return {"bytes_sent": {kind: round(size) for kind, size in sent.items()},
            "bytes_sent_in_all": round(sum(sent.values())),
            "collectives": {kind: sum(kind == other for other, _, _ in found) for kind in KINDS},
            "similarity_matrix_bytes": 4 * (2 * options.batch_size) * (2 * options.batch_size * devices)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--width_multiplier", type=float, default=1.0)
    parser.add_argument("--batch_size", type=int, default=128, help="per device")
    parser.add_argument("--devices", type=int, nargs="+", default=[8, 64, 1024])
    parser.add_argument("--compile", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--graphs", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.compile:
        compile_step(options)
        return
    found = {f"{devices} devices": count(options, devices) for devices in options.devices}
    print("| devices | " + " | ".join(KINDS) + " | in all | similarity matrix |\n" + "| --- " * 7 + "|")
    for devices, values in found.items():
        cells = [*values["bytes_sent"].values(), values["bytes_sent_in_all"], values["similarity_matrix_bytes"]]
        print(f"| {devices} | " + " | ".join(f"{cell / 1e6:.3f} MB" for cell in cells) + " |")
    common.save("communication", {"options": {name: getattr(options, name) for name in
                                              ("encoder", "width_multiplier", "batch_size", "devices")}, **found})


if __name__ == "__main__":
    main()

"""The estimated cost of a pretraining step on several Ascends, without a device: kernels, collectives, bytes, time.

For every number of devices N the train step of rank 0 is compiled in a dry run for Ascend (tests/ascend), with the
defaults of train.py, and what was compiled is counted; nothing is measured. The bytes that a rank sends follow from
those that it hands over, by the ring algorithms that HCCL takes for large tensors:

    all-reduce of n bytes                       2 n (N - 1) / N
    all-gather of n bytes                       n (N - 1)
    reduce-scatter of n bytes for all ranks     n (N - 1) / N

The tables that it prints stand in docs/distributed.md, with what the estimate assumes.
"""
import argparse
import importlib.metadata
import math
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List

import common

sys.path.append(str(common.ROOT / "tests"))
from ascend import dry_run, stand_ins

PURPOSES = ("gradients", "batch norm", "negatives", "totals")
# What a rank of N sends for a byte that it hands over.
RING = {"AllReduce": lambda ranks: 2 * (ranks - 1) / ranks,
        "AllGather": lambda ranks: ranks - 1,
        "ReduceScatter": lambda ranks: (ranks - 1) / ranks}
ENCODER, BATCH_SIZE = "resnet50", 128  # images per device
# What the estimate assumes; docs/distributed.md says why.
COMPUTATION = 0.256  # seconds per step of the network and the batch above
LATENCY = 20e-6  # seconds of a collective per doubling of the devices
DEVICES_OF_A_SERVER = 8
IN_A_SERVER, BETWEEN_SERVERS = 24e9, 10e9  # bytes per second


def count(folder: Path, devices: int, encoder: str = ENCODER, batch_size: int = BATCH_SIZE) -> Dict[str, Any]:
    """Return the cost of a step on one of ``devices``; ``folder`` has the stand-ins for CANN."""
    with tempfile.TemporaryDirectory() as cwd:
        step = dry_run.run(folder, "tests/ascend/step.py", "--encoder", encoder, "--batch_size", batch_size,
                           "--head_batch_norm", False, cwd=Path(cwd), world_size=devices, graph=True)
    if step.status:
        sys.exit(f"compiling for {devices} devices failed:\n{step.said}")
    collectives, handed_over, sent = (dict.fromkeys(PURPOSES, 0) for _ in range(3))
    for found in step.collectives:
        collectives[found.purpose] += 1
        handed_over[found.purpose] += found.bytes
        sent[found.purpose] += found.bytes * RING[found.operator](devices)
    return {"kernels": sum(step.kernels.values()), "collectives": collectives, "bytes_handed_over": handed_over,
            "bytes_sent": {purpose: round(size) for purpose, size in sent.items()},
            "similarity_matrix_bytes": 4 * (2 * batch_size) * (2 * batch_size * devices)}


def estimate(devices: int, counts: Dict[str, Any]) -> Dict[str, float]:
    """Return the estimated time of a step and what follows from it: seconds, efficiency, images per second."""
    speed = IN_A_SERVER if devices <= DEVICES_OF_A_SERVER else BETWEEN_SERVERS
    transfer = sum(counts["bytes_sent"].values()) / speed
    latency = sum(counts["collectives"].values()) * LATENCY * math.log2(devices)
    step = COMPUTATION + transfer + latency
    return {"bytes": transfer, "latency": latency, "step": step, "efficiency": COMPUTATION / step,
            "images_per_second": devices * BATCH_SIZE / step}


def tables(counts: Dict[int, Dict[str, Any]]) -> List[str]:
    """Return the tables of docs/distributed.md, from the counts by number of devices."""
    counted, sent, similarities, estimated = [], [], [], []
    for devices, found in counts.items():
        name = f"{devices:,}"
        numbers, handed_over = found["collectives"], found["bytes_handed_over"]
        counted.append([name, f"{found['kernels']:,}",
                        *(f"{numbers[purpose]}: {_size(handed_over[purpose])}" for purpose in PURPOSES),
                        f"{sum(numbers.values())}: {_size(sum(handed_over.values()))}"])
        on_the_wire, rows = found["bytes_sent"], found["similarity_matrix_bytes"]
        sent.append([name, *(_size(on_the_wire[purpose]) for purpose in PURPOSES),
                     f"**{_size(sum(on_the_wire.values()))}**"])
        similarities.append([name, _size(rows), _size(rows * devices)])
        guess = estimate(devices, found)
        estimated.append([name, *(f"{1e3 * guess[part]:.1f} ms" for part in ("bytes", "latency")),
                          f"{1e3 * guess['step']:.0f} ms", f"{100 * guess['efficiency']:.0f} %",
                          f"{float(format(guess['images_per_second'], '.3g')):,.0f}"])
    return [_table(["devices", "kernels", *PURPOSES, "collectives in all"], counted),
            _table(["devices", *PURPOSES, "in all per step"], sent),
            _table(["devices", "one rank's matrix, 2B x 2NB", "the whole matrix, 2NB x 2NB"], similarities),
            _table(["devices", "bytes", "latency", "step", "efficiency", "images/s"], estimated)]


def _table(head: List[str], rows: List[List[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def _size(count: float) -> str:
    units = iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while count >= 999.5:  # which has four digits when it is rounded
        count, unit = count / 1000, next(units)
    return f"{count:.3g} {unit}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[8, 64, 1024])
    options = parser.parse_args()
    if stand_ins.why_not():
        parser.exit(2, f"{stand_ins.why_not()}\n")
    with tempfile.TemporaryDirectory() as folder:
        stand_ins.build(Path(folder))
        counts = {devices: count(Path(folder), devices) for devices in options.devices}
    print("\n\n".join(tables(counts)) + "\n")
    common.save("communication", {
        "mindspore": importlib.metadata.version("mindspore"), "encoder": ENCODER, "batch_size": BATCH_SIZE,
        "devices": {str(devices): found for devices, found in counts.items()}})


if __name__ == "__main__":
    main()

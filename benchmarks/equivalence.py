"""How far N processes with batch B are from one process with batch N x B, on the CPU.

Each side starts from the same weights and takes the same views for --steps steps of pretraining, with
batch norm and negatives across devices, once for every seed. Compared are the losses, the gradients of the first
step (as the optimizer keeps them, with the weight decay), the batch-norm statistics and the weights at the end. A
difference is the norm of the difference of two tensors relative to the norm of the tensor, and that of a kind the
largest of its tensors; ``REACH`` has the figures to reach.

Rounding alone makes a difference too, above all where it takes an input of a ReLU across zero, which changes a
gradient by a whole term. So one process is also compared with one process that has the same images in reverse, and
--smooth True has SiLU in place of ReLU, in every process.
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List

import numpy as np

import common

REACH = {"loss": 1e-5, "gradients": 1e-4, "statistics": 1e-4, "weights": 1e-4}
FIRST_MOMENTS = {"Adam": "moment1", "SGD": "velocities"}  # of the optimizers; they begin as zeros
CHOICES = ("encoder", "width_multiplier", "global_batch", "steps", "optimizer", "seeds", "smooth")


def views_of_step(seed: int, step: int, global_batch: int) -> np.ndarray:
    """Return (2, global_batch, 3, 32, 32): both views of the images of a step."""
    return np.random.default_rng((seed, step)).integers(0, 256, (2, global_batch, 3, 32, 32), np.uint8)


def train(options: argparse.Namespace, processes: int) -> None:
    """Be one of ``processes`` ranks; rank 0 writes what is compared."""
    smooth = options.smooth == "True"
    process = common.prepare(distributed=processes > 1, cpu_layers="mindspore" if smooth else "own")
    from mindspore import Tensor, ops
    if smooth:
        ops.relu = ops.silu  # which the CPU's own layers do not have

    from src.data.shapes import SHAPES
    from src.distributed.collectives import broadcast

    network = common.network(options, mean=SHAPES.mean, std=SHAPES.std, head_batch_norm=True)
    model, optimizer, step, *_ = common.learner(network, process, np.full(options.steps, 1e-3), options.optimizer)
    state = {parameter.name: parameter for parameter in [*model.get_parameters(), *optimizer.get_parameters()]}
    begin = {name: parameter.asnumpy().copy() for name, parameter in state.items()}
    for seed in options.seeds:
        for name, parameter in state.items():
            parameter.set_data(Tensor(begin[name]))
        randomise(model, seed + 1000 * process.rank)  # on purpose another start on every rank
        broadcast(model.get_parameters(), process)
        found = steps(step, seed, process, options)
        if process.is_first:
            np.savez(f"{options.results}-{seed}.npz", **found)


def steps(step: Any, seed: int, process: Any, options: argparse.Namespace) -> Dict[str, np.ndarray]:
    """Take the steps and return the arrays to compare; their names begin with their kind."""
    from mindspore import Tensor
    found: Dict[str, np.ndarray] = {}

    def local_views(index: int) -> Tensor:
        mine = views_of_step(seed, index, options.global_batch)[:, process.rank::process.world_size]
        mine = mine[:, ::-1] if options.reverse else mine
        return Tensor(np.ascontiguousarray(mine.reshape(-1, 3, 32, 32)))

    moments = FIRST_MOMENTS[options.optimizer]
    for index in range(options.steps):
        found[f"loss {index}"] = step(local_views(index)).asnumpy()
        if index == 0:
            found.update({f"gradients {moment.name}": moment.asnumpy() for moment in getattr(step.optimizer, moments)})
    for parameter in step.model.get_parameters():
        kind = "weights" if parameter.requires_grad else "statistics"
        found[f"{kind} {parameter.name}"] = parameter.asnumpy()
    return found


def randomise(model: Any, seed: int) -> None:
    """Set every parameter to random values, because biases of 0 and scales of 1 would hide a fault."""
    from mindspore import Tensor
    rng = np.random.default_rng(seed)
    for parameter in model.trainable_params():
        noise = rng.normal(size=parameter.shape)
        fan_in = parameter.size // parameter.shape[0]
        value = noise * (2 / fan_in) ** 0.5 if parameter.ndim > 1 else parameter.asnumpy() + 0.1 * noise
        parameter.set_data(Tensor(value.astype(np.float32)))


def run_processes(options: argparse.Namespace, processes: int, folder: Path,
                  reverse: bool = False) -> List[Dict[str, np.ndarray]]:
    """Train in ``processes`` processes and return the arrays of rank 0 for every seed."""
    results = folder / f"{processes}{'-reverse' if reverse else ''}"
    chosen = [text for name in CHOICES
              for text in (f"--{name}", *np.ravel(getattr(options, name)).astype(str).tolist())]
    command = [str(Path(__file__).resolve()), "--train", str(processes), "--results", str(results), *chosen]
    command += ["--reverse"] if reverse else []
    if processes > 1:
        command = common.msrun(processes, folder / f"logs{processes}") + command
    else:
        command = [sys.executable, *command]
    environment = {**common.LAUNCHER_ENVIRONMENT, **os.environ, "PATH": common.own_path()}
    outcome = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    if outcome.returncode:
        logs = "".join(file.read_text() for file in sorted(folder.glob("logs*/worker_*.log")))
        sys.exit(f"{processes} processes ended with status {outcome.returncode}:\n{outcome.stderr}{logs}")
    return [dict(np.load(f"{results}-{seed}.npz")) for seed in options.seeds]


def differences(found: Dict[str, np.ndarray], expected: Dict[str, np.ndarray]) -> Dict[str, float]:
    """Return the largest relative difference of a tensor, for every kind in ``REACH``."""
    largest = dict.fromkeys(REACH, 0.0)
    if found.keys() != expected.keys():
        sys.exit("the two sides have not found the same things")
    for name, value in expected.items():
        kind = name.split(" ")[0]
        difference = float(np.linalg.norm(found[name] - value) / max(np.linalg.norm(value), 1e-30))
        largest[kind] = max(largest[kind], difference)
    return largest


def summary(found: List[Dict[str, np.ndarray]], expected: List[Dict[str, np.ndarray]]) -> Dict[str, Any]:
    """Return the differences over the seeds."""
    seeds = [differences(*pair) for pair in zip(found, expected)]
    return {kind: {"median": statistics.median(seed[kind] for seed in seeds),
                   "worst": max(seed[kind] for seed in seeds),
                   "seeds under the reach": f"{sum(seed[kind] < reach for seed in seeds)} of {len(seeds)}"}
            for kind, reach in REACH.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--width_multiplier", type=float, default=0.25)
    parser.add_argument("--global_batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--optimizer", default="SGD", choices=("Adam", "SGD"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--smooth", default="False", choices=("True", "False"))
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--train", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--results", help=argparse.SUPPRESS)
    parser.add_argument("--reverse", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options, options.train)
        return
    result = {"options": {name: getattr(options, name) for name in CHOICES}, "machine": common.machine(),
              "reach": REACH}
    with tempfile.TemporaryDirectory() as folder:
        one = run_processes(options, 1, Path(folder))
        result["1 process in reverse"] = summary(run_processes(options, 1, Path(folder), reverse=True), one)
        for processes in options.processes:
            result[f"{processes} processes"] = summary(run_processes(options, processes, Path(folder)), one)
    common.save("equivalence" + ("-smooth" if options.smooth == "True" else ""), result)


if __name__ == "__main__":
    main()

"""How far N processes with batch B are from one process with batch N x B, on the CPU.

Each side starts from the same weights and takes the same views for --steps steps of pretraining, with
batch norm and negatives across devices, once for every seed. Compared are the losses, the gradients of the
first step, the batch-norm statistics and the weights at the end. A difference is the norm of the difference of
two tensors relative to the norm of the tensor, and that of a kind the largest of its tensors; ``REACH`` has the
figures to reach.

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
CHOICES = ("encoder", "width_multiplier", "global_batch", "steps", "optimizer", "seeds", "smooth")


def views_of_step(seed: int, step: int, global_batch: int) -> np.ndarray:
    """Return (2, global_batch, 3, 32, 32): both views of the images of a step."""
    return np.random.default_rng((seed, step)).integers(0, 256, (2, global_batch, 3, 32, 32), np.uint8)


def train(options: argparse.Namespace, processes: int) -> None:
    """Be one of ``processes`` ranks; rank 0 writes what is compared."""
    from src.distributed import environment
    process = environment.prepare("CPU", 0, distributed=processes > 1)
    from mindspore import Tensor, ops
    if options.smooth == "True":
        ops.relu = ops.silu

    from src.distributed.collectives import broadcast
    from src.layers.batch_norm import batch_norm
    from src.nt_xent import NTXent
    from src.optimizer import build_optimizer
    from src.simclr_model import simclr_of
    from src.training.step import TrainStep

    batch_size = options.global_batch // processes
    model = simclr_of({"dataset_name": "shapes", "normalize": True, "encoder": options.encoder,
                       "width_multiplier": options.width_multiplier, "projection_dimension": 128,
                       "head_batch_norm": True}, batch_norm(True, process))
    optimizer = build_optimizer(options.optimizer, model.trainable_params(), np.full(options.steps, 1e-3), 3e-4)
    step = TrainStep(model, NTXent(batch_size, 0.5, process.rank, process.world_size), optimizer, process.world_size)
    step.set_train()
    gradients = gradients_of(step)
    gradients.set_train()
    state = {parameter.name: parameter for parameter in [*model.get_parameters(), *optimizer.get_parameters()]}
    begin = {name: parameter.asnumpy().copy() for name, parameter in state.items()}
    for seed in options.seeds:
        for name, parameter in state.items():
            parameter.set_data(Tensor(begin[name]))
        randomise(model, seed + 1000 * process.rank)  # on purpose another start on every rank
        broadcast(model.get_parameters(), process)
        found = steps(step, gradients, seed, process, options)
        if process.is_first:
            np.savez(f"{options.results}-{seed}.npz", **found)


def gradients_of(step: Any) -> Any:
    """Return a cell, views -> averaged gradients. (Called outside one, MindSpore keeps the first weights.)"""
    from mindspore import nn

    class Gradients(nn.Cell):
        def __init__(self) -> None:
            super().__init__(auto_prefix=False)
            self.step = step

        def construct(self, views):
            return self.step.average_gradients(self.step.value_and_grad(views)[1])

    return Gradients()


def steps(step: Any, gradients: Any, seed: int, process: Any,
          options: argparse.Namespace) -> Dict[str, np.ndarray]:
    """Take the steps and return what is compared, under names that begin with its kind."""
    from mindspore import Tensor
    found: Dict[str, np.ndarray] = {}

    def local_views(index: int) -> Tensor:
        mine = views_of_step(seed, index, options.global_batch)[:, process.rank::process.world_size]
        mine = mine[:, ::-1] if options.reverse else mine
        return Tensor(np.ascontiguousarray(mine.reshape(-1, 3, 32, 32)))

    for parameter, gradient in zip(step.optimizer.parameters, gradients(local_views(0))):
        found[f"gradients {parameter.name}"] = gradient.asnumpy()
    for index in range(options.steps):
        found[f"loss {index}"] = step(local_views(index)).asnumpy()
    for parameter in step.model.get_parameters():
        kind = "weights" if parameter.requires_grad else "statistics"
        found[f"{kind} {parameter.name}"] = parameter.asnumpy()
    return found


def randomise(model: Any, seed: int) -> None:
    """Draw every parameter anew; biases and scales too, which begin as zeros or ones and would hide a fault."""
    from mindspore import Tensor
    rng = np.random.default_rng(seed)
    for parameter in model.trainable_params():
        noise = rng.normal(size=parameter.shape)
        fan_in = parameter.size // parameter.shape[0]
        value = noise * (2 / fan_in) ** 0.5 if parameter.ndim > 1 else parameter.asnumpy() + 0.1 * noise
        parameter.set_data(Tensor(value.astype(np.float32)))


def run_processes(options: argparse.Namespace, processes: int, folder: Path,
                  reverse: bool = False) -> List[Dict[str, np.ndarray]]:
    """Train in ``processes`` processes and return what rank 0 found, for every seed."""
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

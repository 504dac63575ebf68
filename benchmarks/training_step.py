"""Seconds of a pretraining step on the CPU: this project in MindSpore against the same in PyTorch.

A step is forward, backward and Adam on two views of a batch of 32 x 32 uint8 images, with the CIFAR stem.
The batch is random, in memory and the same in every step. MindSpore runs in graph mode with the CPU
settings of src/distributed/environment.py and those of the launchers, PyTorch eager, in NCHW and as installed; both
may use the same cores. The two take turns of --steps steps. A turn is timed as a whole, until the last
loss has arrived.
"""
import argparse
import statistics
import time
from typing import Any, Callable, Dict, List

import numpy as np

import common

SEED = 0
WARM_UP_STEPS = 2  # after the first step, which is reported on its own
LEARNING_RATE = 1e-4


def random_views(batch_size: int) -> np.ndarray:
    return np.random.default_rng(SEED).integers(0, 256, (2 * batch_size, 3, 32, 32), np.uint8)


def mindspore(options: argparse.Namespace, parent: common.Parent) -> None:
    """The worker of this project."""
    from src.distributed import environment
    process = environment.prepare("CPU", 0, SEED)
    from mindspore import Tensor


    all_steps = 1 + WARM_UP_STEPS + options.rounds * options.steps
    learner = common.learner(common.network(options), process, np.full(all_steps, LEARNING_RATE, np.float32))
    views = Tensor(random_views(options.batch_size))

    def train(steps: int) -> float:
        for _ in range(steps):
            loss = learner.step(views)
        return float(loss.asnumpy())

    parameters = sum(parameter.size for parameter in learner.model.trainable_params())
    serve(parent, train, parameters, environment=common.mindspore_environment())


def pytorch(options: argparse.Namespace, parent: common.Parent) -> None:
    """The worker of the PyTorch reference."""
    import torch
    import torch_reference

    torch.manual_seed(SEED)
    torch.set_num_threads(common.cores())
    model = torch_reference.SimCLR(options.encoder, options.width_multiplier, common.DIMENSION)
    optimizer = torch_reference.build_optimizer("Adam", model.parameters(), LEARNING_RATE, common.WEIGHT_DECAY)
    views = torch.from_numpy(random_views(options.batch_size))

    def train(steps: int) -> float:
        for _ in range(steps):
            optimizer.zero_grad()
            loss, _ = torch_reference.nt_xent(model(views), common.TEMPERATURE)
            loss.backward()
            optimizer.step()
        return loss.item()

    parameters = sum(parameter.numel() for parameter in model.parameters())
    serve(parent, train, parameters, threads=torch.get_num_threads())


def serve(parent: common.Parent, train: Callable[[int], float], parameters: int, **circumstances: Any) -> None:
    """Tell the number of parameters, then train as many steps as the parent asks for, and time them."""
    def turn(steps: int) -> Dict[str, float]:
        begin = time.perf_counter()
        loss = train(steps)
        return {"seconds": time.perf_counter() - begin, "loss": loss, "peak_memory_mib": common.peak_memory()}

    parent.answer({"parameters": parameters, **circumstances})
    parent.serve(turn)


def summary(worker: common.Worker, first: Dict[str, Any], turns: List[Dict[str, Any]],
            options: argparse.Namespace) -> Dict[str, Any]:
    """Return what is reported of one framework."""
    seconds = [turn["seconds"] / options.steps for turn in turns]
    return {**worker.facts, "seconds_per_step": statistics.median(seconds),
            "images_per_second": options.batch_size / statistics.median(seconds),
            "first_step_seconds": first["seconds"], "first_loss": first["loss"], "last_loss": turns[-1]["loss"],
            "peak_memory_mib": turns[-1]["peak_memory_mib"], "seconds_per_step_by_round": seconds}


def measure(options: argparse.Namespace) -> None:
    """Let the two frameworks take turns and save what they took."""
    machine = common.machine()
    ours, reference = workers = common.Worker("mindspore", common.LAUNCHER_ENVIRONMENT), common.Worker("pytorch")
    assert ours.facts["parameters"] == reference.facts["parameters"], (
        f"not the same network: {ours.facts['parameters']} trainable parameters in MindSpore, "
        f"{reference.facts['parameters']} in PyTorch")
    first = [worker.ask(steps=1) for worker in workers]
    for worker in workers:
        worker.ask(steps=WARM_UP_STEPS)
    turns = common.alternate(workers, options.rounds, steps=options.steps)
    for worker in workers:
        worker.close()
    common.save("training_step", {
        "machine": machine,
        "settings": {name: value for name, value in vars(options).items() if name != "role"},
        "conditions": f"both may use the same {common.cores()} cores; MindSpore: graph mode, with the variables of its "
                      "entry, GLIBC_TUNABLES as by the launchers; PyTorch: eager, NCHW, as installed, without them",
        "mindspore": summary(ours, first[0], turns[0], options),
        "pytorch": summary(reference, first[1], turns[1], options),
        "speed_ratio": common.speed_ratio(*([turn["seconds"] for turn in side] for side in turns)),
    })


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    flags.add_argument("--encoder", choices=("resnet18", "resnet50"), default="resnet50", help="base encoder")
    flags.add_argument("--width_multiplier", type=float, default=1.0, help="factor on every width of the encoder")
    flags.add_argument("--batch_size", type=int, default=16, help="images per step, each with two views")
    flags.add_argument("--rounds", type=int, default=6, help="turns of each framework")
    flags.add_argument("--steps", type=int, default=4, help="steps of a turn")
    common.run(flags, {"mindspore": mindspore, "pytorch": pytorch}, measure)

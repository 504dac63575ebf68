"""Seconds of a pretraining step on the CPU: this project in MindSpore against the same in PyTorch.

A step is forward, backward and Adam on two views of a batch of 32 x 32 uint8 images. The batch is random, in memory
and the same in every step; with --input pipeline this project's side alone is train.py's loop over an epoch of as many
images, with their augmentation, its progress and its report. MindSpore runs in graph mode with the CPU's own layers
(--cpu_layers mindspore: with MindSpore's), the settings of src/device/environment.py and those of the launchers.
PyTorch runs in each of --settings: plain (eager, NCHW), channels_last, compiled (channels_last and torch.compile); in
bfloat16 by autocast where --amp_level O2 is given. All may use the same cores and take turns of --steps steps. A turn
is timed as a whole, until the last loss has arrived. A product of matrices by PyTorch takes turns with them: what the
machine can do.
"""
import argparse
import statistics
import time
from functools import partial
from typing import Any, Callable, Dict, List

import numpy as np

import common

SEED = 0
SETTINGS = ("plain", "channels_last", "compiled")
MATRIX = 2048  # rows and columns
WARM_UP_STEPS = 2  # after the first step, which is reported on its own
LEARNING_RATE = 1e-4


def random_views(batch_size: int) -> np.ndarray:
    return np.random.default_rng(SEED).integers(0, 256, (2 * batch_size, 3, 32, 32), np.uint8)


def mindspore(options: argparse.Namespace, parent: common.Parent) -> None:
    """The worker of this project."""
    process = common.prepare(SEED, cpu_layers=options.cpu_layers)
    from mindspore import Tensor

    all_steps = 1 + WARM_UP_STEPS + options.rounds * options.steps
    learner = common.learner(common.network(options, stem=options.stem), process,
                             np.full(all_steps, LEARNING_RATE, np.float32), amp_level=options.amp_level)
    views = Tensor(random_views(options.batch_size))

    def train(steps: int) -> float:
        for _ in range(steps):
            loss = learner.step(views)
        return float(loss.asnumpy())

    if options.input == "pipeline":
        train = epochs_of(learner, options)
    parameters = sum(parameter.size for parameter in learner.model.trainable_params())
    serve(parent, train, parameters, environment=common.mindspore_environment())


def epochs_of(learner: Any, options: argparse.Namespace) -> Callable[[int], float]:
    """Return what trains an epoch of so many steps as train.py does, and returns its mean loss."""
    from src.data.views import Views
    from src.run.records import PRETRAIN
    from src.settings.augmentation import PAPER_SMALL
    from src.training import loop
    from src.training.callbacks import EpochReport, Progress

    totals = learner.step.totals
    records: List[Dict[str, Any]] = []
    pixels = np.random.default_rng(SEED).integers(0, 256, (options.steps * options.batch_size, 32, 32, 3), np.uint8)
    callbacks = [Progress(totals, options.rounds, options.batch_size),
                 EpochReport(PRETRAIN, "contrastive_accuracy", totals, learner.model.get_parameters(),
                             learner.rates, options.batch_size, records.append)]

    def train(steps: int) -> float:
        views = Views(pixels[:steps * options.batch_size], options.batch_size, PAPER_SMALL, SEED, 2)
        loop.train(learner, views, 0, 1, callbacks, "CPU")
        return records[-1]["loss"]

    return train


def pytorch(options: argparse.Namespace, parent: common.Parent, setting: str) -> None:
    """The worker of the PyTorch reference."""
    import torch
    import torch_reference
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(SEED)
    torch.set_num_threads(common.cores())
    layout = torch.contiguous_format if setting == "plain" else torch.channels_last
    model = torch_reference.SimCLR(options.encoder, options.width_multiplier, common.DIMENSION, stem=options.stem)
    model = model.to(memory_format=layout)
    optimizer = torch_reference.build_optimizer("Adam", model.parameters(), LEARNING_RATE, common.WEIGHT_DECAY)
    views = torch.from_numpy(random_views(options.batch_size)).contiguous(memory_format=layout)
    network = torch.compile(model) if setting == "compiled" else model

    def train(steps: int) -> float:
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=options.amp_level != "O0"):
                z = network(views)
            loss, _ = torch_reference.nt_xent(z.float(), common.TEMPERATURE)
            loss.backward()
            optimizer.step()
        return loss.item()

    with FlopCounterMode(display=False) as counter:
        model(views).sum().backward()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    serve(parent, train, parameters, threads=torch.get_num_threads(), flop=counter.get_total_flops())


def matrix(options: argparse.Namespace, parent: common.Parent) -> None:
    """The worker that multiplies matrices: a step of it is one product."""
    import torch
    dtype = torch.float32 if options.amp_level == "O0" else torch.bfloat16
    left, right = torch.randn(2, MATRIX, MATRIX).to(dtype)

    def multiply(steps: int) -> float:
        for _ in range(steps):
            product = left @ right
        return float(product[0, 0])

    serve(parent, multiply, 0, flop=2 * MATRIX**3)


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
    """Let all take turns and save what they took."""
    machine = common.machine()
    ours = common.Worker("mindspore", common.LAUNCHER_ENVIRONMENT)
    references = {setting: common.Worker(setting) for setting in options.settings}
    machine_itself = common.Worker("matrix")
    workers = [ours, *references.values(), machine_itself]
    assert all(ours.facts["parameters"] == reference.facts["parameters"] for reference in references.values())
    first = [worker.ask(steps=1) for worker in workers]
    for worker in workers:
        worker.ask(steps=WARM_UP_STEPS)
    turns = common.alternate(workers, options.rounds, steps=options.steps)
    for worker in workers:
        worker.close()
    sides = {name: summary(*side, options) for name, *side in zip(
        ("mindspore", *references, "matrix"), workers, first, turns)}
    best = min(references, key=lambda setting: sides[setting]["seconds_per_step"])
    seconds = {name: [turn["seconds"] for turn in side] for name, side in zip(sides, turns)}
    flop = sides[best]["flop"]
    rates = [flop / step / (sides["matrix"]["flop"] / product)
             for step, product in zip(seconds["mindspore"], seconds["matrix"])]
    common.save(options.save_as, {
        "machine": machine,
        "settings": {name: value for name, value in vars(options).items() if name != "role"},
        "conditions": f"all may use the same {common.cores()} cores; MindSpore: graph mode, with the variables of its "
                      "entry, GLIBC_TUNABLES as by the launchers; PyTorch: without them",
        **sides,
        "speed_ratios": {setting: common.speed_ratio(seconds["mindspore"], seconds[setting]) for setting in references},
        "best_setting_of_pytorch": best,
        "speed_ratio_to_the_best": common.speed_ratio(seconds["mindspore"], seconds[best]),
        "memory_ratio_to_the_best": sides["mindspore"]["peak_memory_mib"] / sides[best]["peak_memory_mib"],
        "share_of_the_matrix_rate": {"median": statistics.median(rates), "lowest": min(rates), "highest": max(rates)},
    })


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    flags.add_argument("--encoder", choices=("resnet18", "resnet50"), default="resnet50", help="base encoder")
    flags.add_argument("--width_multiplier", type=float, default=1.0, help="factor on every width of the encoder")
    flags.add_argument("--stem", choices=("cifar", "strided", "imagenet"), default="cifar", help="its first layers")
    flags.add_argument("--cpu_layers", choices=("own", "mindspore"), default="own", help="as train.py has it")
    flags.add_argument("--amp_level", choices=("O0", "O2"), default="O0", help="as train.py has it; O2 is bfloat16")
    flags.add_argument("--input", choices=("memory", "pipeline"), default="memory", help="of this project's side")
    flags.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS, help="of PyTorch")
    flags.add_argument("--save_as", default="training_step", help="name of the file in results/")
    flags.add_argument("--batch_size", type=int, default=16, help="images per step, each with two views")
    flags.add_argument("--rounds", type=int, default=6, help="turns of each framework")
    flags.add_argument("--steps", type=int, default=4, help="steps of a turn")
    common.run(flags, {"mindspore": mindspore, "matrix": matrix,
                       **{setting: partial(pytorch, setting=setting) for setting in SETTINGS}}, measure)

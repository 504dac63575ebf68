"""Seconds that a training on the CPU waits for a checkpoint, which is written by the training or beside it.

ResNet-50 with the CIFAR stem and Adam is trained by train.py's loop, on random images and with an epoch of one step.
After an epoch the checkpoint, with Adam's moments, is written in the training's way (flushed, renamed, pointed at by
`latest`, the oldest removed), or beside it by src.run.saver as train.py does, or not at all; the three take turns. The
pause is the time that the call takes. The next step, which shares the cores with what is beside it, is timed too. No
save begins before the last one is on the disk, as after an epoch that has taken longer than a save. No cloud is in it.
Then the two save in turn without any training, when caches and memory are as the last save has left them.
"""
import argparse
import statistics
import tempfile
import time
from typing import Dict, List

import numpy as np

import common

SEED = 0
HOWS = ("none", "in_the_way", "beside")
WARM_UP_ROUNDS = 1  # the first step compiles, and the first save gets its memory
LEARNING_RATE = 1e-4
KEPT = 5  # checkpoints, as by default


def training(options: argparse.Namespace, parent: common.Parent) -> None:
    """The worker: it trains and saves."""
    process = common.prepare(SEED)
    from mindspore.train import Callback

    from src.data.views import Views
    from src.run import checkpoint
    from src.run.layout import Layout
    from src.run.saver import Saver
    from src.settings.augmentation import PAPER_SMALL
    from src.training.loop import train

    turns: Dict[str, List[Dict[str, float]]] = {how: [] for how in HOWS}

    def pause(how: str, epoch: int) -> float:
        begin = time.perf_counter()
        if how == "in_the_way":
            checkpoint.save_epoch(series, epoch, state, {"holds": checkpoint.ENCODER}, KEPT)
        elif how == "beside":
            save(epoch)
        return time.perf_counter() - begin

    class Turns(Callback):
        """Saves after an epoch, and times the next step too."""

        def on_train_epoch_end(self, run_context):
            epoch = run_context.original_args().cur_epoch_num
            self.how = HOWS[epoch % len(HOWS)]
            self.pause = pause(self.how, epoch)

        def on_train_step_begin(self, run_context):
            self.begun = time.perf_counter()

        def on_train_step_end(self, run_context):
            state[0].asnumpy()  # when the step is done
            if run_context.original_args().cur_step_num > 1:
                turns[self.how].append({"pause": self.pause, "next_step": time.perf_counter() - self.begun})
                save.wait()

    epochs = len(HOWS) * (WARM_UP_ROUNDS + options.rounds) + 1
    learner = common.learner(common.network(options), process, np.full(epochs, LEARNING_RATE, np.float32))
    state = learner.state()
    pixels = np.random.default_rng(SEED).integers(0, 256, (options.batch_size, 32, 32, 3), np.uint8)
    views = Views(pixels, options.batch_size, PAPER_SMALL, SEED, 2)
    parent.answer({"megabytes": sum(parameter.asnumpy().nbytes for parameter in state) / 1e6,
                   "environment": common.mindspore_environment()})
    parent.command()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        series = Layout(folder).checkpoints
        with Saver(series, state, {"holds": checkpoint.ENCODER}, KEPT) as save:
            train(learner, views, 0, epochs, [Turns()], process.device_target)
            for epoch in range(epochs + 1, epochs + 1 + options.rounds):
                for how in HOWS[1:]:
                    turns[how][epoch - epochs - 1 + WARM_UP_ROUNDS]["pause_without_training"] = pause(how, epoch)
                    save.wait()
    parent.answer({"turns": turns, "peak_memory_mib": common.peak_memory()})


def measure(options: argparse.Namespace) -> None:
    """Let the worker train, and save its times."""
    machine, worker = common.machine(), common.Worker("training", common.LAUNCHER_ENVIRONMENT)
    answer = worker.ask()
    worker.close()
    turns = {how: its[WARM_UP_ROUNDS:] for how, its in answer["turns"].items()}
    seconds = {how: {what: [turn[what] for turn in its] for what in its[0]} for how, its in turns.items()}
    medians = {how: {what: statistics.median(values) for what, values in its.items()} for how, its in seconds.items()}

    def share(what: str) -> Dict[str, float]:
        """Return how long the pause beside the training is, as a share of the one in its way."""
        by_round = [ours / theirs for ours, theirs in zip(seconds["beside"][what], seconds["in_the_way"][what])]
        return {"of_the_medians": medians["beside"][what] / medians["in_the_way"][what],
                "median": statistics.median(by_round), "lowest": min(by_round), "highest": max(by_round)}

    common.save("checkpoint_pause", {
        "machine": machine,
        "settings": {name: value for name, value in vars(options).items() if name != "role"},
        **worker.facts,
        "peak_memory_mib": answer["peak_memory_mib"],
        **{how: {"median_seconds": medians[how], "seconds_by_round": seconds[how]} for how in HOWS},
        "share": share("pause"),
        "share_without_training": share("pause_without_training"),
    })


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    flags.add_argument("--encoder", choices=("resnet18", "resnet50"), default="resnet50", help="base encoder")
    flags.add_argument("--width_multiplier", type=float, default=1.0, help="factor on every width of the encoder")
    flags.add_argument("--batch_size", type=int, default=16, help="images of the step")
    flags.add_argument("--rounds", type=int, default=20, help="turns of each")
    flags.add_argument("--folder", default=".", help="where to write; not one in memory")
    common.run(flags, {"training": training}, measure)

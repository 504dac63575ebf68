"""Images per second of 2 single-threaded processes against 1, on the CPU, one core each.

Both sides run the train step of pretraining with --batch_size images per process, as the launchers set it up:
batch norm and negatives across devices, gradients averaged. The views are random and in memory. The sides take
turns of --steps steps; while one works, the other waits for its turn.
"""
import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from typing import Any, Dict, List

import numpy as np

import common

SEED = 0
WARM_UP_STEPS = 2  # after the first step, which compiles


def rank(options: argparse.Namespace, parent: common.Parent) -> None:
    """One process, alone or one of two; pinned to a core before MindSpore counts them."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ.get("MS_NODE_ID", "0")) % len(cores)]})
    parent.answer({})  # before joining, which waits for the other
    process = common.prepare(SEED, distributed="MS_ROLE" in os.environ)
    from mindspore import Tensor


    all_steps = 1 + WARM_UP_STEPS + options.rounds * options.steps
    step = common.learner(common.network(options), process, np.full(all_steps, 1e-4)).step
    shape = (2 * options.batch_size, 3, 32, 32)
    views = Tensor(np.random.default_rng((SEED, process.rank)).integers(0, 256, shape, np.uint8))

    def turn(steps: int) -> Dict[str, float]:
        begin = time.perf_counter()
        for _ in range(steps):
            value = step(views)
        value = float(value.asnumpy())
        return {"seconds": time.perf_counter() - begin, "loss": value}

    parent.serve(turn)


def scheduler(options: argparse.Namespace, parent: common.Parent) -> None:
    """MindSpore's scheduler, through which the two ranks meet."""
    parent.answer({})
    common.prepare(SEED, distributed=True)


class Pair:
    """Two ranks that get the same commands."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {**common.LAUNCHER_ENVIRONMENT, "OMP_NUM_THREADS": "1", "MS_WORKER_NUM": "2",
                  "MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": port}
        self.scheduler = common.Worker("scheduler", {**shared, "MS_ROLE": "MS_SCHED"})
        self.ranks = [common.Worker("rank", {**shared, "MS_ROLE": "MS_WORKER", "MS_NODE_ID": str(number)})
                      for number in (0, 1)]

    def ask(self, **command: Any) -> Dict[str, Any]:
        """Send the command to both and return the answer of the slower one."""
        for worker in self.ranks:
            worker.send(**command)
        return max((worker.answer() for worker in self.ranks), key=lambda answer: answer["seconds"])

    def close(self) -> None:
        for worker in self.ranks:
            worker.process.stdin.close()
        for worker in (*self.ranks, self.scheduler):
            try:
                worker.process.wait(20)
            except subprocess.TimeoutExpired:
                worker.process.kill()


def summary(turns: List[Dict[str, Any]], images_per_step: int, options: argparse.Namespace) -> Dict[str, Any]:
    seconds = [turn["seconds"] / options.steps for turn in turns]
    return {"images_per_step": images_per_step, "images_per_second": images_per_step / statistics.median(seconds),
            "seconds_per_step_by_round": seconds}


def measure(options: argparse.Namespace) -> None:
    """Let the two sides take turns and save their times."""
    machine = common.machine()
    if machine["cores"] < 2:
        sys.exit("this comparison needs two cores")
    one = common.Worker("rank", {**common.LAUNCHER_ENVIRONMENT, "OMP_NUM_THREADS": "1"})
    one.ask(steps=1 + WARM_UP_STEPS)
    two = Pair()
    two.ask(steps=1 + WARM_UP_STEPS)
    turns = common.alternate((one, two), options.rounds, steps=options.steps)
    one.close()
    two.close()
    seconds = [[turn["seconds"] for turn in side] for side in turns]
    ratio = common.speed_ratio(seconds[1], seconds[0])  # of steps, and one of the two has twice the images
    common.save(f"scaling-{options.encoder}-width{options.width_multiplier:g}", {
        "machine": machine,
        "settings": {name: value for name, value in vars(options).items() if name != "role"},
        "one process": summary(turns[0], options.batch_size, options),
        "two processes": summary(turns[1], 2 * options.batch_size, options),
        "images_per_second_ratio": {name: 2 * value for name, value in ratio.items()},
    })


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    flags.add_argument("--encoder", default="resnet18", help="base encoder")
    flags.add_argument("--width_multiplier", type=float, default=0.25, help="factor on every width of the encoder")
    flags.add_argument("--batch_size", type=int, default=128, help="images per step and process")
    flags.add_argument("--rounds", type=int, default=6, help="turns of each side")
    flags.add_argument("--steps", type=int, default=4, help="steps of a turn")
    common.run(flags, {"rank": rank, "scheduler": scheduler}, measure)

"""The cost of watching a training on the CPU: progress bar, records, gradient norm, TensorBoard and page together.

Two training steps of the same network take turns in one process, one epoch each. One has all of this, as train.py has
on a terminal; the other has neither callbacks nor gradient norm. Images are random and augmented as in train.py.
"""
import argparse
import statistics
import tempfile
import time
from pathlib import Path

import common

SEED = 0
SIDE = 32


def measure(options: argparse.Namespace) -> None:
    """Let the two steps take turns, and save their times."""
    machine = common.machine()
    process = common.prepare(SEED)
    import numpy as np
    from mindspore import Tensor, nn

    from src.data.views import Views
    from src.layers.encoder_layers import encoder_layers
    from src.nt_xent import NTXent
    from src.optimizer import build_optimizer
    from src.report.events import Events
    from src.report.page import PageWriter
    from src.resnet import build_encoder
    from src.run.layout import Layout
    from src.run.records import PRETRAIN, Records, appended_to
    from src.settings.augmentation import PAPER_SMALL
    from src.simclr_model import SimCLR, build_head
    from src.training.callbacks import EpochReport, Progress
    from src.training.loop import learner_of, train

    class NoNorm(nn.Cell):
        """Replaces the gradient norm at no cost."""

        def __init__(self):
            super().__init__()
            self.nothing = Tensor(0.0)

        def construct(self, gradients):
            return self.nothing

    network = common.network(options, stem=options.stem, head_batch_norm=True)
    layers = encoder_layers(process)
    pixels = np.random.default_rng(SEED).integers(0, 256, (options.images, SIDE, SIDE, 3), np.uint8)
    views = Views(pixels, options.batch_size, PAPER_SMALL, SEED, 2)
    rates = np.full((options.rounds + 1) * len(views), 1e-3, np.float32)

    def learner(norm: nn.Cell):
        encoder = build_encoder(network, layers)
        model = SimCLR(encoder, build_head(encoder.features, network, layers.head_norm))
        optimizer = build_optimizer("Adam", model.trainable_params(), rates, common.WEIGHT_DECAY)
        return learner_of(model, NTXent(common.TEMPERATURE), optimizer, rates, gradient_norm=norm)

    watched, bare = learner(layers.gradient_norm()), learner(NoNorm())
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        records = Records(appended_to(layout.records), PageWriter(layout.path), Events(layout))

        def callbacks():
            progress = Progress(watched.step.totals, options.rounds, options.batch_size)
            progress.on_terminal = True
            return [progress, EpochReport(PRETRAIN, "contrastive_accuracy", watched.step.totals,
                                          watched.model.get_parameters(), rates, options.batch_size, records.add)]

        def seconds(learner, number, callbacks):
            begin = time.perf_counter()
            train(learner, views, number, number + 1, callbacks, process.device_target)
            learner.step.totals.asnumpy()  # waits for the last step
            return time.perf_counter() - begin

        turns = []
        for number in range(options.rounds + 1):  # the first compiles
            sides = [(watched, callbacks()), (bare, [])]
            taken = {}
            for side in sides if number % 2 else sides[::-1]:
                taken[side[0] is watched] = seconds(side[0], number, side[1])
            turns.append((taken[True], taken[False]))
    turns = turns[1:]
    costs = [one / other - 1 for one, other in turns]
    common.save(options.save_as, {
        "machine": machine,
        "settings": {name: value for name, value in vars(options).items() if name != "role"},
        "steps": len(views),
        "seconds_by_round": {"watched": [one for one, _ in turns], "bare": [other for _, other in turns]},
        "cost": {"median": statistics.median(costs), "mean": statistics.mean(costs),
                 "standard_error": statistics.stdev(costs) / len(costs) ** 0.5},
    })


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    flags.add_argument("--encoder", choices=("resnet18", "resnet50"), default="resnet18", help="base encoder")
    flags.add_argument("--width_multiplier", type=float, default=0.25, help="factor on every width of the encoder")
    flags.add_argument("--stem", choices=("cifar", "strided", "imagenet"), default="cifar", help="its first layers")
    flags.add_argument("--images", type=int, default=5000, help="of an epoch")
    flags.add_argument("--batch_size", type=int, default=128, help="images of a step, in 2 views")
    flags.add_argument("--rounds", type=int, default=16, help="epochs of each")
    flags.add_argument("--save_as", default="watching", help="name of the file in results/")
    common.run(flags, {}, measure)

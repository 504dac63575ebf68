"""Seconds of computing representations on the CPU: this project against PyTorch in inference mode.

Images are random, 32 x 32, uint8 and in memory; MindSpore's side is src.evaluation.features.extract as linear_eval.py
calls it, PyTorch's a loop over batches of the same size, channels_last. They take turns of --images images each.
"""
import argparse
import statistics
import time

import numpy as np

import common

SEED = 0
SIDE = 32


def random_pixels(options: argparse.Namespace) -> np.ndarray:
    return np.random.default_rng(SEED).integers(0, 256, (options.images, SIDE, SIDE, 3), np.uint8)


def serve(parent: common.Parent, extract, **facts) -> None:
    """Time one turn after the other; the first one compiles and warms up, and does not count."""
    def turn():
        begin = time.perf_counter()
        features = extract()
        return {"seconds": time.perf_counter() - begin, "shape": list(features.shape)}

    parent.answer(facts)
    parent.serve(turn)


def mindspore(options: argparse.Namespace, parent: common.Parent) -> None:
    """The worker of this project."""
    process = common.prepare(SEED)
    from src.evaluation.features import extract
    from src.layers.encoder_layers import encoder_layers
    from src.resnet import build_encoder

    encoder = build_encoder(common.network(options, stem=options.stem), encoder_layers(process))
    pixels = random_pixels(options)
    serve(parent, lambda: extract(encoder, pixels, options.batch_size, process),
          environment=common.mindspore_environment())


def pytorch(options: argparse.Namespace, parent: common.Parent) -> None:
    """The worker of the PyTorch reference."""
    import torch
    import torch_reference

    torch.set_num_threads(common.cores())
    encoder = torch_reference.SimCLR(options.encoder, options.width_multiplier, common.DIMENSION,
                                     stem=options.stem).encoder
    encoder = encoder.to(memory_format=torch.channels_last).eval()
    pixels = torch.from_numpy(random_pixels(options)).permute(0, 3, 1, 2)  # channels_last already

    @torch.inference_mode()
    def extract():
        return torch.cat([encoder(batch) for batch in pixels.split(options.batch_size)])

    serve(parent, extract, threads=torch.get_num_threads())


def measure(options: argparse.Namespace) -> None:
    """Let the two frameworks take turns and save their times."""
    machine = common.machine()
    workers = common.Worker("mindspore", common.LAUNCHER_ENVIRONMENT), common.Worker("pytorch")
    for worker in workers:
        worker.ask()
    turns = common.alternate(workers, options.rounds)
    for worker in workers:
        worker.close()
    assert turns[0][0]["shape"] == turns[1][0]["shape"]
    seconds = [[turn["seconds"] for turn in side] for side in turns]
    common.save(options.save_as, {
        "machine": machine,
        "settings": {name: value for name, value in vars(options).items() if name != "role"},
        **{worker.role: {**worker.facts, "images_per_second": options.images / statistics.median(side),
                         "seconds_by_round": side} for worker, side in zip(workers, seconds)},
        "speed_ratio": common.speed_ratio(*seconds),
    })


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    flags.add_argument("--encoder", choices=("resnet18", "resnet50"), default="resnet18", help="base encoder")
    flags.add_argument("--width_multiplier", type=float, default=1.0, help="factor on every width of the encoder")
    flags.add_argument("--stem", choices=("cifar", "strided", "imagenet"), default="cifar", help="its first layers")
    flags.add_argument("--images", type=int, default=2000, help="of a turn")
    flags.add_argument("--batch_size", type=int, default=250, help="images that are computed at once")
    flags.add_argument("--rounds", type=int, default=6, help="turns of each")
    flags.add_argument("--save_as", default="feature_extraction", help="name of the file in results/")
    common.run(flags, {"mindspore": mindspore, "pytorch": pytorch}, measure)

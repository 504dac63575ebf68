"""Milliseconds of the CPU layers' element-wise kernels, in bfloat16 against float32.

The images are larger than the processor's cache, with few channels and with many. bfloat16 halves the traffic to the
memory, so a kernel whose loop is vectorised takes at most the time that it takes in float32, on every CPU with
AVX-512: the loops compute in float32 and need no bfloat16 of the hardware's. Both types take turns in one process.
"""
import argparse
import ctypes
import statistics
import time
from typing import Any, Dict, List, Tuple

import numpy as np

import common
from src.layers.cpu import library, trial

Shape = Tuple[int, ...]
# Kernel -> its inputs and outputs: x for images, o for pooled images, b for bytes of these, c for channels, s for
# statistics, m for means of pixels, n for images with the channels first, always in float32.
KERNELS = {"batch_statistics": "xs", "normalise_plain": "xccsx", "normalise_relu": "xccsx",
           "normalise_add_relu": "xccsxx", "gradient_sums_plain": "xxccsccs", "gradient_sums_relu": "xxccsccs",
           "gradient_sums_add_relu": "xxccsxccsx", "gradient_plain": "xxccssx", "gradient_relu": "xxccssx",
           "add": "xxx", "max_pool": "xob", "max_pool_gradient": "obxx", "mean_of_pixels": "xm",
           "mean_of_pixels_gradient": "mxx"}
OF_THE_INPUT = {"channels_last": "nx"}  # always of 3 channels


def arrays_of(kinds: str, images: Shape, is_bfloat16: bool) -> List[np.ndarray]:
    """Return arrays for the letters of ``KERNELS``; the images are (N, H, W, C)."""
    count, height, width, channels = images
    pooled = (count, height // 2, width // 2, channels)
    shapes = {"x": images, "o": pooled, "b": pooled, "c": (channels,), "s": (2, channels), "m": (count, channels),
              "n": (count, channels, height, width)}
    random = np.random.default_rng(0)
    arrays = []
    for kind in kinds:
        values = random.uniform(0.5, 2, shapes[kind]).astype(np.float32)
        if kind == "b":
            values = random.integers(0, 9, shapes[kind], np.uint8)
        elif kind in "xo" and is_bfloat16:
            values = (values.view(np.uint32) >> 16).astype(np.uint16)
        arrays.append(values)
    return arrays


def measure(options: argparse.Namespace, parent: common.Parent) -> None:
    """Time every kernel for both types, in turn."""
    path = library.build()
    loaded = ctypes.CDLL(str(path))
    trial.start(loaded)
    results: Dict[str, Any] = {}
    for channels, kernels in ((3, OF_THE_INPUT), *((channels, KERNELS) for channels in options.channels)):
        side = int((options.megabytes * 2**20 / 4 / 32 / channels) ** 0.5) // 2 * 2
        for name, kinds in kernels.items():
            sides = [arrays_of(kinds, (32, side, side, channels), is_bfloat16) for is_bfloat16 in (False, True)]
            times: List[List[float]] = [[], []]
            for turn in range(options.rounds + 1):
                for arrays, seconds in zip(sides, times):
                    begin = time.perf_counter()
                    trial.call(loaded, name, *arrays)
                    seconds.extend([time.perf_counter() - begin] * bool(turn))
            float32, bfloat16 = (1e3 * statistics.median(seconds) for seconds in times)
            results[f"{name}, {channels} channels"] = {
                "float32_milliseconds": float32, "bfloat16_milliseconds": bfloat16, "share": bfloat16 / float32}
    parent.answer(results)


def main(options: argparse.Namespace) -> None:
    """Measure in a worker, and save."""
    machine = common.machine()
    worker = common.Worker("kernels", common.LAUNCHER_ENVIRONMENT)
    common.save(options.save_as, {
        "machine": machine, "settings": {name: value for name, value in vars(options).items() if name != "role"},
        "kernels": worker.facts, "largest_share": max(kernel["share"] for kernel in worker.facts.values())})


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    flags.add_argument("--channels", nargs="+", type=int, default=[16, 512], help="of the images")
    flags.add_argument("--megabytes", type=int, default=128, help="of the images in float32: more than the cache")
    flags.add_argument("--rounds", type=int, default=15, help="turns of each type")
    flags.add_argument("--save_as", default="cpu_kernels", help="name of the file in results/")
    common.run(flags, {"kernels": measure}, main)

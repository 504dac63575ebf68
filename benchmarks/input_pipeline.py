"""Images per second of the input pipeline: augmentation in C++, as in this project, against PIL.

Both pipelines are src.data.views.Views with the paper's augmentation for CIFAR-10, batches of 128 images and two
threads, and differ in the operations alone: MindSpore's in C++ or MindSpore's in Python with PIL. An
image with its two views counts once. A round is one epoch, timed from the creation of the iterator to the
last batch. An untimed epoch before counts the images whose two views are equal byte for byte: a pipeline
that makes such pairs teaches nothing, so in this project's there must be none.
"""
import argparse
import statistics
import time
from typing import Any, Dict, List

import common

SEED = 0
BATCH_SIZE = 128
WORKERS = 2


def read_pixels(options: argparse.Namespace):
    """Return uint8 images (--images, 32, 32, 3)."""
    from src import dataset
    from src.data import shapes
    if options.data is None:
        return shapes.draw(options.images, SEED).pixels
    return dataset.load("cifar10", options.data, "train", "data", options.images).pixels


def pipeline(options: argparse.Namespace, parent: common.Parent) -> None:
    """The worker of either pipeline."""
    from src.device import environment
    environment.prepare("CPU", 0, SEED)
    from pil_augmentation import PilAugmentation

    from src.data import views
    from src.settings.augmentation import PAPER_SMALL

    if options.role == "pil":
        views.operations = lambda augmentation, side, encoded: PilAugmentation(*augmentation).operations(side)
    epochs = views.to_dataset(views.Views(read_pixels(options), BATCH_SIZE, PAPER_SMALL, SEED, WORKERS), 0,
                              sinking=False)

    def batches():
        return (batch for (batch,) in epochs.create_tuple_iterator(num_epochs=1, output_numpy=True))

    def epoch() -> Dict[str, float]:
        begin = time.perf_counter()
        images = sum(len(batch) // 2 for batch in batches())
        seconds = time.perf_counter() - begin
        return {"seconds": seconds, "images_per_second": images / seconds}

    pairs = equal = 0
    for batch in batches():
        pairs += len(batch) // 2
        equal += int((batch[:BATCH_SIZE] == batch[BATCH_SIZE:]).all((1, 2, 3)).sum())
    parent.answer({"pairs": pairs, "equal_pairs": equal})
    parent.serve(epoch)


def summary(worker: common.Worker, epochs: List[Dict[str, float]]) -> Dict[str, Any]:
    """Return the results of one pipeline."""
    rates = [epoch["images_per_second"] for epoch in epochs]
    return {**worker.facts, "images_per_second": statistics.median(rates), "images_per_second_by_round": rates}


def measure(options: argparse.Namespace) -> None:
    """Let the two pipelines take turns and save their images per second."""
    machine = common.machine()
    ours, pil = workers = [common.Worker(role, common.LAUNCHER_ENVIRONMENT) for role in ("cpp", "pil")]
    # Two independent draws coincide for about one image in 30,000: a white corner, or twice the whole image.
    assert ours.facts["equal_pairs"] <= 1e-3 * ours.facts["pairs"], (
        f"{ours.facts['equal_pairs']} of {ours.facts['pairs']} images have two equal views")
    epochs = common.alternate(workers, options.rounds)
    for worker in workers:
        worker.close()
    common.save("input_pipeline", {
        "machine": machine,
        "settings": {"images": options.images, "data": "CIFAR-10" if options.data else "shapes",
                     "batch_size": BATCH_SIZE, "workers": WORKERS, "rounds": options.rounds},
        "cpp": summary(ours, epochs[0]),
        "pil": summary(pil, epochs[1]),
        "speed_ratio": common.speed_ratio(*([epoch["seconds"] for epoch in side] for side in epochs)),
    })


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    flags.add_argument("--data", help="folder with the CIFAR-10 binary files; without it the images are generated")
    flags.add_argument("--images", type=int, default=20_000, help="images of an epoch")
    flags.add_argument("--rounds", type=int, default=3, help="epochs of each pipeline")
    common.run(flags, {"cpp": pipeline, "pil": pipeline}, measure)

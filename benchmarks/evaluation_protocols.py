"""Seconds of judging cached features on the CPU without training a network: L-BFGS and weighted kNN.

L-BFGS is src.evaluation.linear_lbfgs.logistic_regression as linear_eval.py calls it, with its sweep of the penalty,
the fit to all training features and the scores of the test features; kNN is nearest_neighbours. The features are
drawn so that they resemble those of an encoder: not below 0, of very different strength in different directions,
and with classes that overlap. Every round is the whole work anew, with a seed of its own. --features_folder takes
the features of a run of linear_eval.py instead (its folder `features`), and --labels its data set.
"""
import argparse
import statistics
import time
from pathlib import Path
from typing import Any, Dict, Tuple

import numpy as np

import common

CLASSES = 10
TEST_IMAGES = 10_000
DIRECTIONS = 200  # that the drawn features differ in


def drawn_features(options: argparse.Namespace) -> Tuple[Tuple[np.ndarray, np.ndarray], ...]:
    """Return training and test features, float32, each with labels, int32."""
    rng = np.random.default_rng(0)
    strength = np.geomspace(1, 0.01, DIRECTIONS)
    centres = rng.standard_normal((CLASSES, DIRECTIONS)) * 0.35
    mixing = rng.standard_normal((DIRECTIONS, options.features)) / DIRECTIONS**0.5

    def draw(count: int) -> Tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, CLASSES, count, np.int32)
        latent = (centres[labels] + rng.standard_normal((count, DIRECTIONS))) * strength
        return np.maximum(latent @ mixing, 0).astype(np.float32), labels

    return draw(options.images), draw(min(TEST_IMAGES, options.images))


def given_features(options: argparse.Namespace) -> Tuple[Tuple[np.ndarray, np.ndarray], ...]:
    """Return the features of a run of linear_eval.py on CIFAR-10, with the labels of the data set."""
    from src import dataset
    splits = []
    for split in ("train", "test"):
        (file,) = Path(options.features_folder).glob(f"{split}-*.npz")
        splits.append((np.load(file)["features"], dataset.load("cifar10", options.labels, split).labels))
    return tuple(splits)


def protocols(options: argparse.Namespace, parent: common.Parent) -> None:
    """The worker of this project."""
    from src.evaluation.features import Split
    from src.evaluation.knn import nearest_neighbours
    from src.evaluation.linear_lbfgs import logistic_regression

    train, test = (given_features if options.features_folder else drawn_features)(options)
    train = Split(*train)
    parent.answer({"images": len(train.labels), "test_images": len(test[1]), "features": train.features.shape[1]})

    def judge(protocol: str, seed: int) -> Dict[str, Any]:
        begin = time.perf_counter()
        if protocol == "lbfgs":
            outcome = logistic_regression(train, test[0], CLASSES, seed)
        else:
            outcome = nearest_neighbours(train, test[0], CLASSES)
        return {"seconds": time.perf_counter() - begin, "peak_memory_mib": common.peak_memory(),
                "accuracy": float((outcome.scores.argmax(1) == test[1]).mean()), **outcome.details}

    parent.serve(judge)


def measure(options: argparse.Namespace) -> None:
    """Run each protocol --rounds times and save its times."""
    machine, worker, results = common.machine(), common.Worker("protocols"), {}
    for protocol in ("lbfgs", "knn"):
        rounds = [worker.ask(protocol=protocol, seed=seed) for seed in range(options.rounds)]
        results[protocol] = {"median_seconds": statistics.median(answer["seconds"] for answer in rounds),
                             "rounds": rounds}
    worker.close()
    common.save("evaluation_protocols", {
        "machine": machine,
        "settings": {"source": "features of an encoder" if options.features_folder else "drawn", **worker.facts},
        **results})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000, help="training images (default: %(default)s)")
    parser.add_argument("--features", type=int, default=512, help="features of an image (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="whole evaluations by each (default: %(default)s)")
    parser.add_argument("--features_folder", help="folder of features that linear_eval.py has kept")
    parser.add_argument("--labels", help="folder of CIFAR-10 that they are of")
    common.run(parser, {"protocols": protocols}, measure)

"""Logistic regression on frozen representations, by L-BFGS, with its penalty chosen on held-out training images.

It never gets the labels of the test images, so nothing can be chosen by them.
"""
import warnings
from typing import Any, Dict, Tuple

import numpy as np

from src.common.errors import UserError
from src.common.logs import logger
from src.evaluation.features import Split
from src.evaluation.results import Outcome
from src.run.records import LINEAR_EVAL, LINEAR_LBFGS

PENALTIES = (1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # of the sweep, the strongest first
HELD_OUT = 0.2            # share of the training images that the sweep judges by
SWEPT_IMAGES = 20_000     # at most, that the sweep fits to
ITERATIONS = 1000         # at most, of L-BFGS
TOLERANCE = 1e-4          # of the largest entry of the gradient, where L-BFGS ends


def logistic_regression(train: Split, test_rows: np.ndarray, class_num: int, seed: int) -> Outcome:
    """Classify by multinomial logistic regression, fitted by L-BFGS to all standardised training representations.

    The mean cross entropy gets an L2 penalty on the weights: l2 / 2 times the sum of their squares, l2 from
    ``PENALTIES``: the one with the best accuracy on held-out training images, the strongest of equals. Raises a
    UserError where there are too few training images to hold some out, and a ModuleNotFoundError where scikit-learn is
    not installed.
    """
    fitted, held_out = hold_out(train.labels, seed)
    mean, deviation = train.features.mean(0, dtype=np.float64), train.features.std(0, dtype=np.float64) + 1e-6
    train_rows, test_rows = (((rows - mean) / deviation).astype(np.float32) for rows in (train.features, test_rows))
    train = Split(train_rows, train.labels)
    accuracies = sweep(train, fitted, held_out)
    best = max(accuracies, key=accuracies.get)  # the first of equals
    logger.info("l2 penalty %g, with %.2f %% of %d held-out training images; now on all %d", best,
                100 * accuracies[best], len(held_out), len(train.labels))
    model = regression()
    fit(model, train, best)
    scores = np.full((len(test_rows), class_num), -np.inf)  # for classes without training images
    with np.errstate(divide="ignore"):  # a probability of 0 is a score of -inf
        scores[:, model.classes_] = model.predict_log_proba(test_rows)
    iterations = int(np.max(model.n_iter_))
    protocol = ("multinomial logistic regression on cached features without augmentation, standardised, L-BFGS, l2 "
                f"penalty chosen on {len(held_out)} held-out training images, then fitted to all "
                f"{len(train.labels)}")
    return Outcome(LINEAR_EVAL, LINEAR_LBFGS, protocol, scores,
                   {"l2": best, "held_out_accuracy": {f"{l2:g}": value for l2, value in accuracies.items()},
                    "swept_images": len(fitted), "iterations": iterations, "converged": iterations < ITERATIONS})


def hold_out(labels: np.ndarray, seed: int) -> Tuple[np.ndarray, np.ndarray]:
    """Draw the training images that the sweep fits to, and those that it judges by; return their row numbers.

    Raises a UserError where there are too few of them.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    count = int(HELD_OUT * len(order))
    held_out, fitted = order[:count], order[count:][:SWEPT_IMAGES]
    if not count or len(np.unique(labels[fitted])) < 2:
        raise UserError(f"--num_samples: {len(order)} training images are too few to hold some out for --protocol "
                        "lbfgs; take more, or --protocol sgd")
    return fitted, held_out


def sweep(train: Split, fitted: np.ndarray, held_out: np.ndarray) -> Dict[float, float]:
    """Return for every penalty the accuracy on the rows ``held_out`` of a fit to the rows ``fitted``."""
    part = Split(train.features[fitted], train.labels[fitted])
    model = regression(warm_start=True)  # each fit starts where the one before, with a stronger penalty, has ended
    accuracies = {}
    for l2 in PENALTIES:
        fit(model, part, l2)
        accuracies[l2] = float(model.score(train.features[held_out], train.labels[held_out]))
        logger.info("l2 penalty %g: %.2f %% of the held-out training images", l2, 100 * accuracies[l2])
    return accuracies


def regression(**options: Any) -> Any:
    """Return scikit-learn's model, with L-BFGS and ``options``."""
    from sklearn.linear_model import LogisticRegression  # takes a second, and only this protocol needs it
    return LogisticRegression(solver="lbfgs", max_iter=ITERATIONS, tol=TOLERANCE, **options)


def fit(model: Any, split: Split, l2: float) -> None:
    """Fit scikit-learn's ``model`` with the penalty ``l2`` per image: its C is that of the sum over the images."""
    from sklearn.exceptions import ConvergenceWarning
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the record has "converged"
        model.set_params(C=1 / (l2 * len(split.labels))).fit(split.features, split.labels)

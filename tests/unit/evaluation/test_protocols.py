"""Logistic regression against SciPy and scikit-learn; the penalty's choice; nearest neighbours; the table."""
import logging
import re

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from src.common.errors import UserError
from src.evaluation import linear_lbfgs, results
from src.evaluation.features import Split
from src.evaluation.knn import knn_scores, nearest_neighbours
from src.evaluation.linear_lbfgs import hold_out, logistic_regression
from src.evaluation.results import Outcome, Results, wilson_interval


def data(count, seed, classes=4, dimension=12, noise=2.0):
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % classes).astype(np.int32)
    centres = np.random.default_rng(99).normal(size=(classes, dimension))
    rows = (centres[labels] + noise * rng.normal(size=(count, dimension))) * np.geomspace(0.1, 10, dimension) + 3
    return Split(rows.astype(np.float32), labels)


@pytest.fixture(scope="module")
def fitted():
    train, test = data(1000, 0), data(300, 1)
    return train, test, logistic_regression(train, test.features, 4, seed=0)


def test_the_fit_minimises_the_stated_loss(fitted):
    """Mean cross entropy plus l2 / 2 times the squares of the weights, minimised by SciPy in float64."""
    train, test, outcome = fitted
    scaler = StandardScaler().fit(train.features.astype(np.float64))
    x, onehot, l2 = scaler.transform(train.features), np.eye(4)[train.labels], outcome.details["l2"]

    def loss(flat):
        weight, bias = flat[:48].reshape(12, 4), flat[48:]
        log_p = log_softmax(x @ weight + bias, 1)
        residual = (np.exp(log_p) - onehot) / len(x)
        return (-(log_p * onehot).sum() / len(x) + l2 / 2 * (weight**2).sum(),
                np.concatenate([(x.T @ residual + l2 * weight).ravel(), residual.sum(0)]))

    best = minimize(loss, np.zeros(52), jac=True, method="L-BFGS-B", options={"gtol": 1e-9, "maxiter": 2000}).x
    expected = log_softmax(scaler.transform(test.features) @ best[:48].reshape(12, 4) + best[48:], 1)
    assert np.abs(outcome.scores - expected).max() < 0.02
    assert (outcome.scores.argmax(1) == expected.argmax(1)).mean() > 0.99
    assert outcome.details["converged"]


def test_the_penalty_is_the_best_on_held_out_training_images(fitted):
    train, _, outcome = fitted
    accuracies = outcome.details["held_out_accuracy"]
    assert list(accuracies) == [f"{l2:g}" for l2 in linear_lbfgs.PENALTIES]
    scaler = StandardScaler().fit(train.features)
    rows = scaler.transform(train.features.astype(np.float64))
    chosen, held = (Split(rows[part], train.labels[part]) for part in hold_out(train.labels, seed=0))
    for l2, accuracy in accuracies.items():
        model = LogisticRegression(C=1 / (float(l2) * len(chosen.labels)), max_iter=5000, tol=1e-6)
        expected = model.fit(chosen.features, chosen.labels).score(held.features, held.labels)
        assert accuracy == pytest.approx(expected, abs=0.011)  # two of 200 images
    assert accuracies[f"{outcome.details['l2']:g}"] == max(accuracies.values())


def test_held_out_images_are_a_random_part_by_seed(monkeypatch):
    labels = np.arange(100) % 5
    chosen, held = hold_out(labels, 3)
    assert (len(chosen), len(held)) == (80, 20)
    assert sorted([*chosen, *held]) == list(range(100))
    assert np.array_equal(held, hold_out(labels, 3)[1])
    assert not np.array_equal(held, hold_out(labels, 4)[1])
    monkeypatch.setattr(linear_lbfgs, "SWEPT_IMAGES", 50)
    bounded, same = hold_out(labels, 3)
    assert len(bounded) == 50 and np.array_equal(same, held)


def test_too_few_training_images():
    labels = [0, 1, 0, 1]
    train = Split(np.zeros((len(labels), 3), np.float32), np.array(labels))
    with pytest.raises(UserError, match="--num_samples: .* training images are too few"):
        logistic_regression(train, train.features, 10, seed=0)


def test_classes_without_training_images_come_last():
    train, test = data(200, 0, classes=2), data(50, 1, classes=2)
    for outcome in (logistic_regression(train, test.features, 5, seed=0), nearest_neighbours(train, test.features, 5)):
        assert outcome.scores.shape == (50, 5)
        assert np.all(outcome.scores[:, 2:] < outcome.scores[:, :2].max(1, keepdims=True))
        assert (outcome.scores.argmax(1) == test.labels).mean() > 0.7


def test_nearest_neighbours_say_their_protocol():
    train, test = data(120, 0), data(50, 1)
    outcome = nearest_neighbours(train, test.features, 4)
    assert "k=120, temperature 0.1" in outcome.protocol and outcome.kind == "knn_eval"
    assert np.array_equal(outcome.scores, knn_scores(train.features, train.labels, test.features, 4, 120, 0.1))


def test_the_table(caplog, monkeypatch):
    monkeypatch.setattr(results.logger, "propagate", True)
    caplog.set_level(logging.INFO, "simclr")
    records = []

    found = Results(np.zeros(1000, int), ("a", "b"), {"dataset": "shapes"}, records.append)
    for seed, accuracy in ((5, 0.5), (6, 0.6), (7, 0.61)):
        found.recall(seed, "linear_sgd", "linear", accuracy)
    found.recall(5, "knn", "kNN", 0.4)
    found.summarise()
    (record,) = records
    assert (record["kind"], record["protocol_id"], record["protocol"]) == ("repeated_eval", "linear_sgd", "linear")
    assert record["seeds"] == [5, 6, 7] and record["accuracies"] == [0.5, 0.6, 0.61]
    assert record["accuracy_mean"] == pytest.approx(0.57)
    assert record["accuracy_std"] == pytest.approx(np.std([0.5, 0.6, 0.61], ddof=1))
    assert record["accuracy_interval"] == wilson_interval(record["accuracy_mean"], 1000)
    rows = [re.split(r"  +", line.getMessage()) for line in caplog.records]
    assert rows == [["accuracy", "95 % interval", "over seeds", "protocol"],
                    ["57.000 %", "53.91 to 60.04 %", "+- 6.083 % of 3", "linear"],
                    ["40.000 %", "37.01 to 43.07 %", "kNN"],
                    ["Average accuracy: {'Accuracy': 0.57}"]]


def test_an_outcome_becomes_a_record():
    records, scores = [], np.eye(3)[[0, 1, 1, 0]]
    found = Results(np.array([0, 1, 0, 0]), ("a", "b"), {"dataset": "shapes"}, records.append)
    found.add(7, Outcome("knn_eval", "knn", "in words", scores, {"k": 2}))
    (record,) = records
    assert record["accuracy"] == 0.75 and record["images"] == 4 and record["k"] == 2 and record["seed"] == 7
    assert record["class_accuracy"] == {"a": pytest.approx(2 / 3), "b": 1.0, "class 2": None}
    assert record["confusion"] == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert (record["protocol_id"], record["protocol"], record["dataset"]) == ("knn", "in words", "shapes")

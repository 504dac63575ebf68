"""Accuracies against scikit-learn."""
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, top_k_accuracy_score

from src.evaluation.results import classification_metrics, wilson_interval


@settings(max_examples=50)
@given(st.integers(6, 12), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_metrics_agree_with_scikit_learn(classes, count, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, classes)).astype(np.float32)
    labels = rng.integers(0, classes, count)
    names = [f"class {index}" for index in range(classes)]
    result = classification_metrics(logits, labels, names)
    predicted = logits.argmax(1)
    confusion = confusion_matrix(labels, predicted, labels=range(classes))
    assert np.isclose(result["accuracy"], accuracy_score(labels, predicted))
    assert np.isclose(result["top5_accuracy"], top_k_accuracy_score(labels, logits, k=5, labels=range(classes)))
    assert result["confusion"] == confusion.tolist()
    for index, name in enumerate(names):
        rows = labels == index
        if rows.any():
            assert np.isclose(result["class_accuracy"][name], (predicted[rows] == index).mean())
        else:
            assert result["class_accuracy"][name] is None
    assert result["images"] == count
    hits = round(result["accuracy"] * count)
    assert np.allclose(result["accuracy_interval"], binomtest(hits, count).proportion_ci(0.95, "wilson"))


def test_wilson_interval_by_hand():
    assert np.allclose(wilson_interval(0.5, 100), (0.4038315, 0.5961685))
    assert np.allclose(wilson_interval(1.0, 10), (0.7224672, 1))


def test_equal_logits_are_ranked_by_class():
    result = classification_metrics(np.zeros((2, 6), np.float32), np.array([0, 5]), list("abcdef"))
    assert (result["accuracy"], result["top5_accuracy"]) == (0.5, 0.5)


def test_fewer_classes_than_five():
    assert classification_metrics(np.eye(3, dtype=np.float32), np.arange(3), "abc")["top5_accuracy"] == 1

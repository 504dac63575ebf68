"""Nearest neighbours against a brute-force transcription of the paper, and against scikit-learn."""
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from src.evaluation import knn
from src.evaluation.knn import knn_scores


def features(count, classes, dimension, seed):
    """Rows around one centre per class, with lengths that say nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count).astype(np.int32)
    centres = np.random.default_rng(99).normal(size=(classes, dimension))
    rows = (centres[labels] + 1.5 * rng.normal(size=(count, dimension))) * rng.uniform(0.1, 10, (count, 1))
    return rows.astype(np.float32), labels


def brute_force(bank, labels, queries, class_num, k, temperature):
    """Wu et al. 2018, section 3.4, one query and one neighbour at a time, in float64."""
    scores = np.zeros((len(queries), class_num))
    bank, queries = bank.astype(np.float64), queries.astype(np.float64)
    for row, query in enumerate(queries):
        similarities = [query @ other / np.linalg.norm(query) / np.linalg.norm(other) for other in bank]
        for neighbour in sorted(range(len(bank)), key=lambda index: -similarities[index])[:k]:  # noqa: B023
            scores[row, labels[neighbour]] += np.exp(similarities[neighbour] / temperature)
    return scores / scores.sum(1, keepdims=True)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(2, 7), st.integers(1, 80), st.sampled_from([0.05, 0.1, 1.0]),
       st.integers(0, 2**32 - 1))
def test_scores_are_the_papers(count, queries, classes, k, temperature, seed):
    bank, labels = features(count, classes, 8, seed)
    rows, _ = features(queries, classes, 8, seed + 1)
    scores = knn_scores(bank, labels, rows, classes, k, temperature)
    assert np.allclose(scores, brute_force(bank, labels, rows, classes, k, temperature), atol=1e-4)


def test_chunks_do_not_show(monkeypatch):
    bank, labels = features(300, 5, 8, 0)
    rows, _ = features(47, 5, 8, 1)
    whole = knn_scores(bank, labels, rows, 5)
    monkeypatch.setattr(knn, "_CHUNK", 10)
    assert np.allclose(knn_scores(bank, labels, rows, 5), whole, atol=1e-6)


def test_classes_agree_with_scikit_learn():
    bank, labels = features(2000, 10, 16, 0)
    rows, classes = features(300, 10, 16, 1)
    predicted = knn_scores(bank, labels, rows, 10).argmax(1)
    reference = KNeighborsClassifier(200, metric="cosine", weights=lambda distances: np.exp((1 - distances) / 0.1))
    assert (predicted == reference.fit(bank, labels).predict(rows)).mean() > 0.99  # but for rounding
    assert (predicted == classes).mean() > 0.5


def test_a_low_temperature_does_not_overflow():
    bank, labels = features(50, 3, 8, 0)
    nearest = knn_scores(bank, labels, bank, 3, temperature=1e-4)
    assert np.array_equal(nearest.argmax(1), labels)


def test_rows_of_zeros():
    rows = np.zeros((2, 4), np.float32)
    assert np.isfinite(knn_scores(np.eye(4, dtype=np.float32), np.arange(4), rows, 4)).all()

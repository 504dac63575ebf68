"""Weighted k-nearest-neighbour classification (Wu et al. 2018, section 3.4)."""
from typing import TYPE_CHECKING

import numpy as np

from src.evaluation.results import Outcome
from src.run.records import KNN, KNN_EVAL

if TYPE_CHECKING:  # features.py imports MindSpore, which predict.py does not need for an ONNX file
    from src.evaluation.features import Split

NEIGHBOURS = 200
TEMPERATURE = 0.1
_CHUNK = 500  # queries at a time: with a bank of 50,000 their similarities take 100 MB


def knn_scores(bank: np.ndarray, labels: np.ndarray, queries: np.ndarray, class_num: int, neighbours: int = NEIGHBOURS,
               temperature: float = TEMPERATURE) -> np.ndarray:
    """Return the votes (M, class_num), float64, of each query's nearest rows of the bank.

    ``bank`` (N, features) and ``queries`` (M, features) are representations, float32. A neighbour of cosine similarity
    s votes for its class, one of ``labels`` (N,), with weight exp(s / temperature). The votes of a query sum to 1,
    which changes no ranking. With fewer rows than ``neighbours``, all of them vote.
    """
    bank, queries = unit_rows(bank), unit_rows(queries)
    k = min(neighbours, len(bank))
    scores = np.empty((len(queries), class_num))
    for start in range(0, len(queries), _CHUNK):
        similarity = queries[start:start + _CHUNK] @ bank.T
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        similarity = np.take_along_axis(similarity, nearest, 1).astype(np.float64)
        weights = np.exp((similarity - similarity.max(1, keepdims=True)) / temperature)  # no overflow, same ranking
        weights /= weights.sum(1, keepdims=True)
        cells = np.arange(len(nearest))[:, None] * class_num + labels[nearest]
        votes = np.bincount(cells.ravel(), weights.ravel(), minlength=len(nearest) * class_num)
        scores[start:start + _CHUNK] = votes.reshape(-1, class_num)
    return scores


def nearest_neighbours(train: "Split", test_rows: np.ndarray, class_num: int) -> Outcome:
    """Classify by weighted kNN among all training images. Nothing in it is random."""
    k = min(NEIGHBOURS, len(train.labels))
    protocol = f"weighted kNN (cosine, k={k}, temperature {TEMPERATURE}) on cached features without augmentation"
    return Outcome(KNN_EVAL, KNN, protocol, knn_scores(train.features, train.labels, test_rows, class_num),
                   {"k": k, "temperature": TEMPERATURE})


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Return ``rows`` (N, d) with length 1 each; rows of zeros stay zeros."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

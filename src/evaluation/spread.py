"""Measures of embeddings and representations that need no labels."""
import numpy as np


def alignment(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean squared distance of the two views' embeddings, of length 1 each: 0 where they coincide.

    Wang and Isola 2020, section 4.1, with exponent 2. ``first`` and ``second`` are (N, d), row by row of the
    same image; independent directions would give 2.
    """
    return float(np.mean(((first.astype(np.float64) - second) ** 2).sum(1)))


def uniformity(rows: np.ndarray) -> float:
    """Return the logarithm of the mean of exp(-2 |x - y|^2) over all pairs of different rows (N, d), of length 1.

    Wang and Isola 2020, section 4.1, with t = 2. It is 0 where all rows coincide and falls, towards -4 in many
    dimensions, the more evenly they lie on the sphere.
    """
    rows = rows.astype(np.float64)
    squares = (rows**2).sum(1)
    distances = np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0)
    return float(np.log(np.exp(-2 * distances[np.triu_indices(len(rows), 1)]).mean()))


def embedding_std(rows: np.ndarray) -> float:
    """Return the standard deviation per dimension, averaged over the dimensions, of rows (N, d) of length 1.

    Chen and He 2021 (SimSiam), section 4.1: near 1 / sqrt(d) where the directions are spread over the sphere, 0
    where all are the same, which is called collapse.
    """
    return float(rows.std(0, dtype=np.float64).mean())


def effective_rank(rows: np.ndarray) -> float:
    """Return how many dimensions the rows (N, d) make use of, from 1 to min(N, d); 0 for rows of zeros.

    Roy and Vetterli 2007: the exponential of the entropy of the singular values, divided by their sum. The rows
    are taken as they are, not centred.
    """
    rows = rows.astype(np.float64)
    gram = rows.T @ rows if rows.shape[0] > rows.shape[1] else rows @ rows.T
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0))  # much faster than an SVD of the rows
    if values.max() == 0:
        return 0.0
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))

"""Images, one by one, as the source of a MindSpore pipeline."""
from typing import Callable, Sequence, Tuple

import numpy as np

QUEUED = 32  # images, twice as many as MindSpore queues before a thread of an operation (its prefetch size)


class Rows:
    """Every image of ``order``, ``times`` in a row: with two, rows 2i and 2i + 1 are the same, which is read once.

    Args:
        read: takes a number of ``order`` and returns what the pipeline begins with: pixels, or a file's bytes.
        order: the numbers of the images.
        times: how often each comes.
    """

    def __init__(self, read: Callable[[int], np.ndarray], order: Sequence[int], times: int = 1):
        self.read = read
        self.order = [int(number) for number in order]
        self.times = times
        self.reached = 0  # images that were asked for
        self.kept: Tuple[int, np.ndarray] = (-1, np.empty(0, np.uint8))  # the last one, and its place in the order

    def __len__(self) -> int:
        return self.times * len(self.order)

    def __getitem__(self, row: int) -> Tuple[np.ndarray]:
        place = row // self.times
        self.reached = place + 1
        if self.kept[0] != place:
            self.kept = place, np.ascontiguousarray(self.read(self.order[place]))
        return (self.kept[1],)

    def under_way(self, workers: int) -> Sequence[int]:
        """Return the numbers of the last images read: those that are between here and ``workers`` threads behind."""
        return self.order[:self.reached][-QUEUED * (workers + 2):]

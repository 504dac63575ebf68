"""NT-Xent, the contrastive loss of SimCLR (paper, equation 1)."""
from typing import Tuple

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.ops import constexpr

from src.distributed.collectives import row_gather

# The loss of an anchor whose own similarity is masked with this is exact in float32: exp gives 0.
MASKED = -1e9
SHORTEST = 1e-12  # squared length of an embedding, below which it is not made longer


# Both depend on shapes alone, so they are computed when the graph is compiled and are constants of it.

@constexpr
def positive_columns(anchors: int, rank: int) -> Tensor:
    """Return the column of every anchor's positive, int32 (anchors,), among the gathered views."""
    if anchors % 2:
        raise ValueError(f"NTXent takes two views of every image, got {anchors} rows")
    return Tensor(rank * anchors + (np.arange(anchors) + anchors // 2) % anchors, mstype.int32)


@constexpr
def own_columns(anchors: int, rank: int, world_size: int) -> Tensor:
    """Return the mask of every anchor itself, bool (anchors, world_size * anchors)."""
    return Tensor(np.eye(anchors, world_size * anchors, rank * anchors, dtype=bool))


class NTXent(nn.Cell):
    """Normalised temperature-scaled cross entropy over the views of a batch.

    Every view is an anchor once; its positive is the other view of its image and its negatives are the
    views of all other images, on one device 2B - 2 and on N devices 2NB - 2. The value is the mean over
    the first views plus the mean over the second views, as in the original implementation
    (github.com/google-research/simclr, tf2/objective.py) and in the model zoo's reference log: twice the
    mean that the paper's equation writes. An untrained network starts near 2 ln(2NB - 1).

    On several devices each has the rows of its own 2B anchors alone, against the gathered views of all:
    the similarity matrix is (2B, 2NB). The loss of the global batch is the mean of the ranks' losses.

    Inputs:
        z (Tensor): embeddings (2B, dimension), float16 or float32: the first views of this rank's B
            images, then their second views in the same order. All arithmetic is in float32.

    Outputs:
        tuple (loss, accuracy) of float32 scalars: accuracy is the share of anchors whose positive is
        more similar to them than every negative (contrastive top-1).

    Args:
        temperature (float): divides the cosine similarities.
        rank (int): which of the devices this is.
        world_size (int): N, the devices whose views are negatives.

    Raises:
        ValueError: the temperature is not above 0, or (when compiled) z has an odd number of rows.
    """

    def __init__(self, temperature: float = 0.5, rank: int = 0, world_size: int = 1):
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.inverse_temperature = 1 / temperature
        self.rank = rank
        self.world_size = world_size
        self.gather = row_gather(rank) if world_size > 1 else nn.Identity()
        # Operators with a kernel each, forward and backward, where the functions of the same name have several.
        self.product = ops.MatMul(transpose_b=True)
        self.one_hot, self.one, self.zero = ops.OneHot(), Tensor(1.0, mstype.float32), Tensor(0.0, mstype.float32)
        self.cross_entropies = ops.SoftmaxCrossEntropyWithLogits()
        self.nearest = ops.Argmax(-1, mstype.int32)

    def construct(self, z) -> Tuple[Tensor, Tensor]:
        positives = positive_columns(z.shape[0], self.rank)
        z = z.astype(mstype.float32)
        z = z / ops.sqrt(ops.maximum((z * z).sum(1, keepdims=True), SHORTEST))  # (ops.L2Normalize crawls on a CPU)
        similarity = self.product(z * self.inverse_temperature, self.gather(z))
        similarity = ops.masked_fill(similarity, own_columns(z.shape[0], self.rank, self.world_size), MASKED)
        targets = self.one_hot(positives, similarity.shape[1], self.one, self.zero)
        loss, _ = self.cross_entropies(similarity, targets)
        hits = ops.equal(self.nearest(similarity), positives)
        return 2 * loss.mean(), hits.astype(mstype.float32).mean()

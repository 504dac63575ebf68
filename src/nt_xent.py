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
def positive_columns(anchors: int, views: int, rank: int) -> Tensor:
    """Return the column of the positive of every pair, int32 ((views - 1) * anchors,), among the gathered views.

    The first pair of each anchor comes first, then the second of each.
    """
    if anchors % views:
        raise ValueError(f"NTXent takes {views} views of every image, got {anchors} rows")
    further = np.arange(1, views)[:, None] * (anchors // views)
    return Tensor((rank * anchors + (np.arange(anchors) + further) % anchors).ravel(), mstype.int32)


@constexpr
def columns_left_out(anchors: int, views: int, rank: int, world_size: int) -> Tensor:
    """Return the mask of the anchor itself and its other positives, for every pair in the order of
    ``positive_columns``: bool ((views - 1) * anchors, world_size * anchors)."""
    image = np.arange(anchors) % (anchors // views)
    of_same_image = np.zeros((anchors, world_size * anchors), bool)
    of_same_image[:, rank * anchors:(rank + 1) * anchors] = image[:, None] == image
    masks = np.tile(of_same_image, (views - 1, 1))
    masks[np.arange(len(masks)), positive_columns(anchors, views, rank).asnumpy()] = False
    return Tensor(masks)


class NTXent(nn.Cell):
    """Normalised temperature-scaled cross entropy over the views of a batch.

    Every view is an anchor once; its positive is the other view of its image and its negatives are the
    views of all other images, on one device 2B - 2 and on N devices 2NB - 2. The value is the mean over
    the first views plus the mean over the second views, as in the original implementation
    (github.com/google-research/simclr, tf2/objective.py) and in the model zoo's reference log: twice the
    mean that the paper's equation writes. An untrained network starts near 2 ln(2NB - 1).

    With V views of each image an anchor has V - 1 positives and VNB - V negatives. Each of its pairs has the loss
    above: this positive against the negatives, without the other positives. The value is twice the mean over all
    pairs, near 2 ln(VNB - V + 1) at first.

    On several devices each has the rows of its own VB anchors alone, against the gathered views of all:
    the similarity matrix is (VB, VNB). The loss of the global batch is the mean of the ranks' losses.

    Inputs:
        z (Tensor): embeddings (VB, dimension), float16 or float32: the first views of this rank's B
            images, then their second views in the same order, and so on. All arithmetic is in float32.

    Outputs:
        tuple (loss, accuracy) of float32 scalars: accuracy is the share of pairs whose positive is
        more similar to the anchor than every negative (contrastive top-1).

    Args:
        temperature (float): divides the cosine similarities.
        rank (int): which of the devices this is.
        world_size (int): N, the devices whose views are negatives.
        views (int): V, at least 2.

    Raises:
        ValueError: the temperature is not above 0, there are fewer than 2 views, or (when compiled) the rows of z are
            no multiple of them.
    """

    def __init__(self, temperature: float = 0.5, rank: int = 0, world_size: int = 1, views: int = 2):
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if views < 2:
            raise ValueError(f"views must be at least 2, got {views}")
        self.inverse_temperature = 1 / temperature
        self.views = views
        self.rank = rank
        self.world_size = world_size
        self.gather = row_gather(rank, world_size)
        # Operators with a kernel each, forward and backward, where the functions of the same name have several.
        self.product = ops.MatMul(transpose_b=True)
        self.one_hot, self.one, self.zero = ops.OneHot(), Tensor(1.0, mstype.float32), Tensor(0.0, mstype.float32)
        self.cross_entropies = ops.SoftmaxCrossEntropyWithLogits()
        self.nearest = ops.Argmax(-1, mstype.int32)

    def construct(self, z) -> Tuple[Tensor, Tensor]:
        anchors, views = z.shape[0], self.views
        positives = positive_columns(anchors, views, self.rank)
        z = z.astype(mstype.float32)
        z = z / ops.sqrt(ops.maximum((z * z).sum(1, keepdims=True), SHORTEST))  # (ops.L2Normalize crawls on a CPU)
        similarity = self.product(z * self.inverse_temperature, self.gather(z))
        if views > 2:
            similarity = ops.tile(similarity, (views - 1, 1))  # one row for every pair
        similarity = ops.masked_fill(similarity, columns_left_out(anchors, views, self.rank, self.world_size), MASKED)
        targets = self.one_hot(positives, similarity.shape[1], self.one, self.zero)
        loss, _ = self.cross_entropies(similarity, targets)
        hits = ops.equal(self.nearest(similarity), positives)
        return 2 * loss.mean(), hits.astype(mstype.float32).mean()

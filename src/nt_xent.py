"""NT-Xent, the contrastive loss of SimCLR (paper, section 2.1, equation 1)."""
from typing import Tuple

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.ops import constexpr

from src.distributed.collectives import row_gather

MASKED = -1e9     # in place of a similarity that is left out: its exp is exactly 0 in float32
SHORTEST = 1e-12  # squared length below which an embedding is not normalised, so that zeros stay finite


# The two functions below depend on shapes alone. They run when the graph is compiled, and their results are constants.

@constexpr
def positive_columns(anchors: int, views_per_image: int, rank: int) -> Tensor:
    """Return for every pair of an anchor and a positive the column of the positive among the gathered views: (pairs,).

    There are (views_per_image - 1) * anchors pairs: the first pair of each anchor, then the second of each, and so on.
    """
    if anchors % views_per_image:
        raise ValueError(f"NTXent takes {views_per_image} views of every image, got {anchors} rows")
    images = anchors // views_per_image
    further = np.arange(1, views_per_image)[:, None] * images  # the next view of an image is so many rows on
    return Tensor((rank * anchors + (np.arange(anchors) + further) % anchors).ravel(), mstype.int32)


@constexpr
def columns_left_out(anchors: int, views_per_image: int, rank: int, world_size: int) -> Tensor:
    """Return which columns are left out of a pair's row: the anchor itself and its other positives.

    The mask is bool (pairs, world_size * anchors), with the pairs in the order of ``positive_columns``.
    """
    image = np.arange(anchors) % (anchors // views_per_image)
    same_image = np.zeros((anchors, world_size * anchors), bool)
    same_image[:, rank * anchors:(rank + 1) * anchors] = image[:, None] == image
    masks = np.tile(same_image, (views_per_image - 1, 1))
    masks[np.arange(len(masks)), positive_columns(anchors, views_per_image, rank).asnumpy()] = False
    return Tensor(masks)


class NTXent(nn.Cell):
    """Normalised temperature-scaled cross entropy over the views of a batch of B images on each of N devices.

    The paper's N, the images of a batch, is B here.

    Every view is an anchor once. Its positive is the other view of the same image. Its negatives are the views of all
    other images: 2B - 2 on one device, 2NB - 2 on N devices.

    The value is the mean over the first views plus the mean over the second views, that is, twice the mean of
    equation 1. So it is in the original implementation (github.com/google-research/simclr, tf2/objective.py) and in the
    model zoo's log. An untrained network starts near 2 ln(2NB - 1).

    With V views per image, an anchor has V - 1 positives and VNB - V negatives. Each pair of an anchor and a positive
    has the loss above, without the other positives, and the value is twice the mean over all pairs: at first near
    2 ln(VNB - V + 1).

    On N devices, each device has its own VB anchors as rows and the gathered views of all devices as columns. The loss
    of the global batch is the mean of the ranks' losses.

    Args:
        temperature (float): divides the cosine similarities; above 0.
        rank (int): of this device.
        world_size (int): N, the number of devices whose views are negatives.
        views_per_image (int): V, at least 2.

    Inputs:
        z (Tensor): embeddings (VB, dimension), float16 or float32: the first views of this rank's B images, then their
            second views in the same order, and so on. All arithmetic is in float32.

    Outputs:
        (loss, accuracy), float32 scalars. The accuracy is the share of pairs whose positive is more similar to the
        anchor than every negative (contrastive top-1).

    Raises:
        ValueError: an argument is out of range, or (when compiled) the rows of z are no multiple of V.
    """

    def __init__(self, temperature: float = 0.5, rank: int = 0, world_size: int = 1, views_per_image: int = 2):
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if views_per_image < 2:
            raise ValueError(f"views_per_image must be at least 2, got {views_per_image}")
        self.inverse_temperature = 1 / temperature
        self.views_per_image = views_per_image
        self.rank = rank
        self.world_size = world_size
        self.gather = row_gather(rank, world_size)
        # Each of these operators is one kernel forward and one backward; the functions of the same name are several.
        self.product = ops.MatMul(transpose_b=True)
        self.one_hot, self.one, self.zero = ops.OneHot(), Tensor(1.0, mstype.float32), Tensor(0.0, mstype.float32)
        self.cross_entropies = ops.SoftmaxCrossEntropyWithLogits()
        self.nearest = ops.Argmax(-1, mstype.int32)

    def construct(self, z) -> Tuple[Tensor, Tensor]:
        anchors, views = z.shape[0], self.views_per_image
        positives = positive_columns(anchors, views, self.rank)
        z = z.astype(mstype.float32)
        z = z / ops.sqrt(ops.maximum((z * z).sum(1, keepdims=True), SHORTEST))  # ops.L2Normalize is slow on a CPU
        similarity = self.product(z * self.inverse_temperature, self.gather(z))
        if views > 2:
            similarity = ops.tile(similarity, (views - 1, 1))  # one row per pair
        similarity = ops.masked_fill(similarity, columns_left_out(anchors, views, self.rank, self.world_size), MASKED)
        # Equation 1 is the cross entropy of a row of similarities whose right class is the positive.
        targets = self.one_hot(positives, similarity.shape[1], self.one, self.zero)
        loss, _ = self.cross_entropies(similarity, targets)
        hits = ops.equal(self.nearest(similarity), positives)
        return 2 * loss.mean(), hits.astype(mstype.float32).mean()

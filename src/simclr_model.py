"""The networks: encoder + projection head for pretraining, encoder + linear classifier for evaluation and use."""
from typing import Optional

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

from src.layers.encoder_layers import Norm
from src.resnet import ResNet
from src.settings.network import Network


class ProjectionHead(nn.Cell):
    """Representations h (N, features) -> embeddings z (N, dimension): the paper's g(h), two layers (section 2.1).

    ``norm`` makes a batch norm between the two; None leaves it out.
    """

    def __init__(self, features: int, dimension: int, norm: Optional[Norm] = None):
        super().__init__()
        # A batch norm would subtract the bias of the layer before it.
        self.dense1 = nn.Dense(features, features, has_bias=norm is None)
        self.bn1 = norm(features) if norm else nn.Identity()
        self.dense2 = nn.Dense(features, dimension)

    def construct(self, h):
        h = self.dense1(h)
        h = self.bn1(h.reshape(*h.shape, 1, 1)).reshape(h.shape)  # the batch norms take images
        return self.dense2(ops.relu(h))


class SimCLR(nn.Cell):
    """Views (N, 3, side, side), uint8 -> embeddings z (N, dimension)."""

    def __init__(self, encoder: ResNet, projection_head: ProjectionHead):
        super().__init__()
        self.encoder = encoder
        self.projection_head = projection_head

    def construct(self, views):
        return self.projection_head(self.encoder(views))


def build_head(features: int, network: Network, norm: Norm = nn.BatchNorm2d) -> ProjectionHead:
    """Return the projection head of ``network`` for an encoder with ``features`` features."""
    return ProjectionHead(features, network.projection_dimension, norm if network.head_batch_norm else None)


class LinearClassifier(nn.Cell):
    """Representations h (N, features) -> logits (N, classes).

    The classifier standardises h with the mean and deviation of the training set, so that features of any scale learn
    equally fast.
    """

    def __init__(self, features: int, class_num: int):
        super().__init__()
        self.mean = Parameter(Tensor(np.zeros(features, np.float32)), requires_grad=False)
        self.scale = Parameter(Tensor(np.ones(features, np.float32)), requires_grad=False)
        self.linear = nn.Dense(features, class_num, weight_init="zeros", bias_init="zeros")

    def fit_scale(self, rows: np.ndarray) -> np.ndarray:
        """Fit mean and scale to the training set's representations (N, features); return these standardised."""
        mean = rows.mean(0, dtype=np.float64).astype(np.float32)
        scale = (1 / (rows.std(0, dtype=np.float64) + 1e-6)).astype(np.float32)
        self.mean.set_data(Tensor(mean))
        self.scale.set_data(Tensor(scale))
        return (rows - mean) * scale

    def construct(self, h):
        return self.linear((h - self.mean) * self.scale)


class ImageClassifier(nn.Cell):
    """Images (N, 3, side, side), uint8 -> logits (N, classes)."""

    def __init__(self, encoder: ResNet, classifier: LinearClassifier):
        super().__init__()
        self.encoder = encoder
        self.classifier = classifier

    def construct(self, images):
        return self.classifier(self.encoder(images))


class CrossEntropy(nn.Cell):
    """Logits (B, classes) and labels (B,) -> mean cross entropy and accuracy, float32 scalars, for fine-tuning."""

    def __init__(self):
        super().__init__()
        self.cross_entropy = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")

    def construct(self, logits, labels):
        logits = logits.astype(mstype.float32)
        hits = (ops.argmax(logits, 1).astype(mstype.int32) == labels).astype(mstype.float32)
        return self.cross_entropy(logits, labels), hits.mean()

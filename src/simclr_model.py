"""The networks: encoder + projection head for pretraining, encoder + classifier for use."""
from typing import Any, Dict, Optional

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.dataset import DATA_SETS, side_of
from src.resnet import Norm, Pixels, ResNet, build_encoder, default_stem


class ProjectionHead(nn.Cell):
    """Representations h (N, features) -> embeddings z (N, dimension): two layers, the paper's g(h).

    ``norm`` makes a batch norm between them; None leaves it out.
    """

    def __init__(self, features: int, dimension: int, norm: Optional[Norm] = None):
        super().__init__()
        # A bias before batch norm would be subtracted again, so that layer has none.
        self.dense1 = nn.Dense(features, features, has_bias=norm is None)
        self.bn1 = norm(features) if norm else nn.Identity()
        self.dense2 = nn.Dense(features, dimension)

    def construct(self, h):
        h = self.dense1(h)
        h = self.bn1(h.reshape(*h.shape, 1, 1)).reshape(h.shape)  # the batch norms are made for images
        return self.dense2(ops.relu(h))


class SimCLR(nn.Cell):
    """Views (2B, 3, side, side), uint8 -> embeddings z (2B, dimension)."""

    def __init__(self, encoder: ResNet, projection_head: ProjectionHead):
        super().__init__()
        self.encoder = encoder
        self.projection_head = projection_head

    def construct(self, views):
        return self.projection_head(self.encoder(views))


class LinearClassifier(nn.Cell):
    """Representations h (N, features) -> logits (N, classes).

    The representations are standardised first, with the training set's mean and deviation: each of
    the features then has the same say in the first steps, whatever its scale.
    """

    def __init__(self, features: int, class_num: int):
        super().__init__()
        self.mean = Parameter(Tensor(np.zeros(features, np.float32)), requires_grad=False)
        self.scale = Parameter(Tensor(np.ones(features, np.float32)), requires_grad=False)
        self.linear = nn.Dense(features, class_num, weight_init="zeros", bias_init="zeros")

    def fit_scale(self, rows: np.ndarray) -> np.ndarray:
        """Take mean and deviation of the representations ``rows`` (N, features); return these standardised."""
        mean = rows.mean(0, dtype=np.float64).astype(np.float32)
        scale = (1 / (rows.std(0, dtype=np.float64) + 1e-6)).astype(np.float32)
        self.mean.set_data(Tensor(mean))
        self.scale.set_data(Tensor(scale))
        return (rows - mean) * scale

    def construct(self, h):
        return self.linear((h - self.mean) * self.scale)


class ImageClassifier(nn.Cell):
    """Images (N, 3, side, side), uint8 -> logits (N, classes)."""

    def __init__(self, encoder: ResNet, linear_classifier: LinearClassifier):
        super().__init__()
        self.encoder = encoder
        self.linear_classifier = linear_classifier

    def construct(self, images):
        return self.linear_classifier(self.encoder(images))


def stem_of(settings: Dict[str, Any]) -> str:
    """Return the stem that a run's, or a checkpoint's, ``settings`` are for."""
    # Checkpoints of before there was a choice do not say it.
    return settings.get("stem") or default_stem(side_of(settings))


def encoder_of(settings: Dict[str, Any], norm: Norm = nn.BatchNorm2d) -> ResNet:
    """Build the encoder that ``settings``, a run's or a checkpoint's, describe; ``norm`` as for ``ResNet``."""
    data_set = DATA_SETS[settings["dataset_name"]]
    pixels = Pixels(data_set.mean, data_set.std) if settings["normalize"] else Pixels()
    return build_encoder(settings["encoder"], settings["width_multiplier"], stem_of(settings), pixels, norm)


def simclr_of(settings: Dict[str, Any], norm: Norm = nn.BatchNorm2d) -> SimCLR:
    """Build the whole network that ``settings`` describe; ``norm`` as for ``ResNet``."""
    encoder = encoder_of(settings, norm)
    return SimCLR(encoder, ProjectionHead(encoder.features, settings["projection_dimension"],
                                          norm if settings["head_batch_norm"] else None))

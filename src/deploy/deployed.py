"""A network as it is used: the encoder, alone or with its classifier, from their checkpoints."""
import os
from typing import Optional, Tuple

from mindspore import nn, ops

from src.common.errors import UserError
from src.common.files import sha256_of
from src.dataset import DATA_SETS
from src.deploy.signature import FLOAT32, MOST_BYTES, Signature
from src.evaluation import linear_sgd
from src.resnet import ResNet, build_encoder, largest_map
from src.run.checkpoint import Checkpoint
from src.simclr_model import LinearClassifier
from src.weights import encoders


class Deployed(nn.Cell):
    """Images (batch, 3, side, side) -> features (batch, features), or class probabilities and features.

    Images of ``FLOAT32`` are from 0 to 1, where those of ``UINT8`` are from 0 to 255.
    """

    def __init__(self, encoder: ResNet, linear: Optional[LinearClassifier], dtype: str):
        super().__init__(auto_prefix=False)
        self.encoder = encoder
        self.linear = linear
        self.softmax = nn.Softmax()
        self.unit = 255.0 if dtype == FLOAT32 else None

    def construct(self, images):
        if self.unit:
            images = images * self.unit
        features = self.encoder(images)
        if self.linear is None:
            return features
        # MindSpore 2.10 writes no ONNX of an output that something else is computed from. The features are means of
        # what a ReLU gave, so another one changes nothing.
        return self.softmax(self.linear(features)), ops.relu(features)


def deployed(source: Checkpoint, linear_checkpoint: Optional[str], flag: str, dtype: str, batch_size: int
             ) -> Tuple[Deployed, Signature]:
    """Return a network in inference mode, and its signature.

    Args:
        source: the encoder.
        linear_checkpoint: of the classifier; None for the encoder alone.
        flag: the flag that gave it, for error messages.
        dtype, batch_size: of the images, as in ``Signature``.

    Raises:
        UserError: the checkpoints do not fit each other, or the batch is too large.
    """
    needed = 2 * batch_size * largest_map(source.network)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise UserError(f"{source.path}: a batch of {batch_size} images takes more than {needed / 2**30:.0f} GB "
                        f"between two layers, and this machine has {there / 2**30:.0f}; export it with a smaller "
                        "--batch_size")
    encoder = build_encoder(source.network)
    encoders.load_weights(encoder, source)
    linear, classes, name = None, None, source.info["settings"]["dataset_name"]
    if linear_checkpoint:
        found = linear_sgd.load(linear_checkpoint, flag, source, sha256_of(source.path))
        linear, classes, name = linear_sgd.build(found), tuple(found.info["classes"]), found.info["dataset_name"]
    side = source.network.image_size
    about = Signature(dtype, side, DATA_SETS[name].shorter_edge(side), batch_size, encoder.features, classes, name)
    if about.nbytes > MOST_BYTES:
        raise UserError(f"{source.path}: a batch of {batch_size} images of {side} x {side} pixels has "
                        f"{about.nbytes / 2**30:.1f} GB, takes at most {MOST_BYTES / 2**30:g}; export it with a "
                        "smaller --batch_size")
    return Deployed(encoder, linear, dtype).set_train(False), about

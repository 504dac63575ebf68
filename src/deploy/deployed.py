"""The network for use: an encoder, alone or with its classifier, from their checkpoints."""
from typing import Optional, Tuple

from mindspore import nn, ops

from src.common.files import sha256_of
from src.dataset import DATA_SETS
from src.deploy.signature import FLOAT32, Signature
from src.evaluation import linear_sgd
from src.resnet import ResNet, build_encoder
from src.run.checkpoint import Checkpoint
from src.simclr_model import LinearClassifier
from src.weights import encoders


class Deployed(nn.Cell):
    """Images (batch, 3, side, side) -> features (batch, features), or class probabilities and features.

    Pixels are from 0 to 255 for the ``dtype`` ``UINT8``, from 0 to 1 for ``FLOAT32``.
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
        # MindSpore 2.10 writes no ONNX if an output is also the input of another layer. Features are means of ReLUs'
        # outputs, so one more ReLU changes nothing.
        return self.softmax(self.linear(features)), ops.relu(features)


def deployed(source: Checkpoint, classifier: Optional[str], flag: str, dtype: str, batch_size: int
             ) -> Tuple[Deployed, Signature]:
    """Return the encoder ``source``, with the ``classifier`` at this path if there is one, and its signature.

    The network is in inference mode. ``flag`` gave the classifier, for error messages; ``dtype`` and ``batch_size`` are
    those of the signature. Raises a UserError where the checkpoints do not fit each other.
    """
    encoder = build_encoder(source.network)
    encoders.load_weights(encoder, source)
    linear, classes, name = None, None, source.info["settings"]["dataset_name"]
    if classifier:
        trained = linear_sgd.load(classifier, flag, source, sha256_of(source.path))
        linear, classes, name = linear_sgd.build(trained), tuple(trained.info["classes"]), trained.info["dataset_name"]
    side = source.network.image_size
    signature = Signature(dtype, side, DATA_SETS[name].shorter_edge(side), batch_size, encoder.features, classes, name)
    return Deployed(encoder, linear, dtype).set_train(False), signature

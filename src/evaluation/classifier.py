"""The linear classifier on frozen representations that is trained in minibatches, and its checkpoints."""
import time
from typing import Any, Dict, Optional, Tuple, Union

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.common.errors import UserError
from src.common.logs import log_epoch, logger
from src.evaluation.features import Split
from src.lr_generator import learning_rates
from src.optimizer import build_optimizer
from src.run import checkpoint
from src.run.checkpoint import Checkpoint
from src.run.folder import RunFolder
from src.settings.encoder_flags import EvalConfig, FinetuneConfig
from src.simclr_model import LinearClassifier

PREFIX = "linear_classifier"
PROTOCOL = "linear classifier on cached features without augmentation, Adam, cosine decay, last epoch"


class ClassifierStep(nn.Cell):
    """Row numbers (batch,) -> loss; one update of ``linear``. The rows (N, features) stay on the device."""

    def __init__(self, linear: nn.Dense, optimizer: nn.Optimizer, rows: np.ndarray, labels: np.ndarray):
        super().__init__(auto_prefix=False)
        self.linear = linear
        self.optimizer = optimizer
        self.rows = Parameter(Tensor(rows), name="rows", requires_grad=False)
        self.labels = Parameter(Tensor(labels), name="labels", requires_grad=False)
        self.value_and_grad = ops.value_and_grad(self.forward, None, optimizer.parameters)

    def forward(self, h, labels):
        return ops.cross_entropy(self.linear(h), labels)

    def construct(self, index):
        loss, gradients = self.value_and_grad(ops.gather(self.rows, index, 0), ops.gather(self.labels, index, 0))
        return ops.depend(loss, self.optimizer(gradients))


def epoch_order(count: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Return row numbers (steps, batch_size): every row at least once; the last batch is filled up
    with the epoch's first rows."""
    order = np.random.default_rng((seed, epoch)).permutation(count).astype(np.int32)
    steps = -(-count // batch_size)
    return np.resize(order, (steps, batch_size))


def train_classifier(classifier: LinearClassifier, train: Split, config: EvalConfig, folder: RunFolder,
                     info: Optional[Dict[str, Any]]) -> None:
    """Train ``classifier`` for ``epoch_size`` epochs.

    Its checkpoints, with ``info`` in them, replace earlier ones; without ``info`` none are saved.
    """
    if info:
        checkpoint.remove_epochs(folder.classifiers, PREFIX)
    steps = -(-len(train.labels) // config.batch_size)
    rates = learning_rates("cosine", config.learning_rate, config.epoch_size, steps)
    optimizer = build_optimizer("Adam", classifier.trainable_params(), rates, weight_decay=0.0)
    standardised = classifier.fit_scale(train.rows)  # once here, instead of in every step
    step = ClassifierStep(classifier.linear, optimizer, standardised, train.labels)
    step.set_train()
    for epoch in range(1, config.epoch_size + 1):
        begin = time.perf_counter()
        for index, batch in enumerate(epoch_order(len(train.labels), config.batch_size, config.seed, epoch), 1):
            loss = step(Tensor(batch))
            if index % config.print_iter == 0 and index < steps:
                logger.info("epoch: %d step: %d, loss is %s", epoch, index, loss.asnumpy())
        last_loss = loss.asnumpy()
        seconds = time.perf_counter() - begin
        log_epoch(epoch, steps, last_loss, seconds)
        folder.add_metrics({"kind": "linear_classifier", "epoch": epoch, "seed": config.seed, "loss": float(last_loss),
                            "seconds": round(seconds, 3)})
        if info and (epoch % config.save_checkpoint_epochs == 0 or epoch == config.epoch_size):
            checkpoint.save_epoch(folder.classifiers, PREFIX, epoch, classifier.get_parameters(), info,
                                  config.keep_checkpoint_max)


def info_of(config: Union[EvalConfig, FinetuneConfig], features: int, classes: Tuple[str, ...], encoder_digest: str,
            encoder_epoch: Optional[int]) -> Dict[str, Any]:
    """Return the info of a classifier's checkpoint: what it takes, what it tells apart, and whose it is."""
    return {"kind": "linear_classifier", "class_num": config.class_num, "features": features,
            "dataset_name": config.dataset_name, "classes": classes, "encoder_digest": encoder_digest,
            "encoder_epoch": encoder_epoch, "mindspore": ms.__version__}


def load_classifier(path: str, flag: str, encoder: Checkpoint, encoder_digest: str) -> Checkpoint:
    """Load a checkpoint of linear_eval.py or finetune.py that was trained on ``encoder``, whose digest is given.

    Raises:
        UserError: it was trained on another encoder.
    """
    found = checkpoint.load(path, "linear_classifier", flag)
    if found.info["encoder_digest"] != encoder_digest:
        age = checkpoint.after(found.info["encoder_epoch"])
        raise UserError(f"--{flag}: {path} was trained on another encoder ({age}) than {encoder.path}; name the "
                        "encoder that it was trained on")
    return found


def build_classifier(found: Checkpoint) -> LinearClassifier:
    """Build the classifier that a checkpoint holds."""
    classifier = LinearClassifier(found.info["features"], found.info["class_num"])
    checkpoint.load_into(classifier.get_parameters(), found.parameters, str(found.path))
    return classifier

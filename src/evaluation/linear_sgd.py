"""The linear classifier on frozen representations that is trained in minibatches, and its checkpoints."""
import time
from typing import Any, Callable, Dict, Optional, Tuple

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.common.errors import DivergedError, UserError, option
from src.common.files import writing
from src.common.logs import log_epoch, logger
from src.device.dry_run import is_dry_run
from src.evaluation.features import Split
from src.evaluation.results import Outcome
from src.lr_generator import learning_rates
from src.optimizer import build_optimizer
from src.run import checkpoint
from src.run.checkpoint import Checkpoint
from src.run.layout import Series
from src.run.records import CLASSIFIER_EPOCH, LINEAR_EVAL, LINEAR_SGD
from src.simclr_model import LinearClassifier

PROTOCOL = "linear classifier on cached features without augmentation, Adam, cosine decay, last epoch"


class ClassifierStep(nn.Cell):
    """Row numbers (batch,) -> loss; one update of ``linear``. The rows (N, features) stay on the device."""

    def __init__(self, linear: nn.Dense, optimizer: nn.Optimizer, rows: np.ndarray, labels: np.ndarray):
        super().__init__(auto_prefix=False)
        self.linear = linear
        self.optimizer = optimizer
        self.cross_entropy = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")  # two kernels; ops' are 40
        self.rows = Parameter(Tensor(rows), name="rows", requires_grad=False)
        self.labels = Parameter(Tensor(labels), name="labels", requires_grad=False)
        self.value_and_grad = ops.value_and_grad(self.forward, None, optimizer.parameters)

    def forward(self, h, labels):
        return self.cross_entropy(self.linear(h), labels)

    def construct(self, index):
        loss, gradients = self.value_and_grad(ops.gather(self.rows, index, 0), ops.gather(self.labels, index, 0))
        return ops.depend(loss, self.optimizer(gradients))


def epoch_order(count: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Return row numbers (steps, batch_size), every row at least once: the epoch's first rows fill the last batch."""
    order = np.random.default_rng((seed, epoch)).permutation(count).astype(np.int32)
    steps = -(-count // batch_size)
    return np.resize(order, (steps, batch_size))


def train(split: Split, class_num: int, epochs: int, batch_size: int, learning_rate: float, seed: int,
          write: Callable[[Dict[str, Any]], None], save: Optional[Callable[[int, LinearClassifier], None]] = None,
          print_every: int = 100) -> LinearClassifier:
    """Train a classifier with Adam and a learning rate that falls from ``learning_rate`` as a cosine.

    ``write`` takes the record of an epoch, and ``save`` its number and the classifier. Raises a DivergedError where the
    loss or a weight is not finite after an epoch.
    """
    classifier = LinearClassifier(split.features.shape[1], class_num)
    steps = -(-len(split.labels) // batch_size)
    rates = learning_rates("cosine", learning_rate, epochs, steps)
    optimizer = build_optimizer("Adam", classifier.trainable_params(), rates, weight_decay=0.0)
    standardised = classifier.fit_scale(split.features)  # once here, instead of in every step
    step = ClassifierStep(classifier.linear, optimizer, standardised, split.labels)
    step.set_train()
    for epoch in range(1, epochs + 1):
        begin = time.perf_counter()
        for index, batch in enumerate(epoch_order(len(split.labels), batch_size, seed, epoch), 1):
            loss = step(Tensor(batch))
            if index % print_every == 0 and index < steps:
                logger.info("epoch: %d step: %d, loss is %s", epoch, index, loss.asnumpy())
        last_loss = loss.asnumpy()
        seconds = time.perf_counter() - begin
        log_epoch(epoch, steps, last_loss, seconds)
        spoiled = [weight.name for weight in classifier.trainable_params() if not np.isfinite(weight.asnumpy()).all()]
        if (spoiled or not np.isfinite(last_loss)) and not is_dry_run():
            raise DivergedError(f"the {spoiled[0] if spoiled else 'loss'} of the linear classifier is not finite after "
                                f"epoch {epoch}: its training has diverged; begin again with a lower --learning_rate")
        write({"kind": CLASSIFIER_EPOCH, "epoch": epoch, "seed": seed, "loss": float(last_loss),
               "seconds": round(seconds, 3)})
        if save:
            save(epoch, classifier)
    return classifier.set_train(False)


def saver(series: Series, info: Dict[str, Any], every: int, epochs: int, keep: int,
          before: Callable[[], None]) -> Callable[[int, LinearClassifier], None]:
    """Return what saves a classifier after every ``every`` epochs and after the last one.

    The checkpoints of an earlier training in ``series`` go when the first new one is written. ``before`` is called
    before each.
    """
    earlier = series.files()

    def save(epoch: int, classifier: LinearClassifier) -> None:
        if epoch % every == 0 or epoch == epochs:
            with writing("train_output_path", series.folder):
                before()
                checkpoint.save_epoch(series, epoch, classifier.get_parameters(), info, keep, earlier)
            earlier.clear()

    return save


def outcome_of(classifier: LinearClassifier, test_rows: np.ndarray, training: str) -> Outcome:
    """Classify the representations ``test_rows`` (M, features); ``training`` says in words how it was trained."""
    return Outcome(LINEAR_EVAL, LINEAR_SGD, f"{PROTOCOL}, {training}", classifier(Tensor(test_rows)).asnumpy())


def info_of(class_num: int, features: int, dataset_name: str, classes: Tuple[str, ...], encoder_digest: str,
            encoder_epoch: Optional[int]) -> Dict[str, Any]:
    """Return the info of a classifier's checkpoint, without the epoch: see src/run/info.py."""
    return {"holds": checkpoint.CLASSIFIER, "class_num": class_num, "features": features,
            "dataset_name": dataset_name, "classes": classes, "encoder_digest": encoder_digest,
            "encoder_epoch": encoder_epoch}


def load(path: str, flag: str, encoder: Checkpoint, encoder_digest: str) -> Checkpoint:
    """Load the checkpoint of a classifier that was trained on ``encoder``, whose file has the digest.

    Raises a UserError where it was trained on another encoder.
    """
    classifier = checkpoint.load(path, checkpoint.CLASSIFIER, flag)
    if classifier.info["encoder_digest"] != encoder_digest:
        age = checkpoint.after(classifier.info["encoder_epoch"])
        raise UserError(f"{option(flag)}: {path} was trained on another encoder ({age}) than {encoder.path}; name the "
                        "encoder that it was trained on")
    build(classifier)  # parameters that do not fit are an error now, before anything is written
    return classifier


def build(source: Checkpoint) -> LinearClassifier:
    """Build the classifier that a checkpoint holds."""
    classifier = LinearClassifier(source.info["features"], source.info["class_num"])
    checkpoint.load_into(classifier.get_parameters(), source.parameters, str(source.path))
    return classifier.set_train(False)

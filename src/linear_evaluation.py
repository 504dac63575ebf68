"""Linear evaluation: a linear classifier on the frozen encoder's representations (paper, section 4.1)."""
import dataclasses
import time
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Tuple

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src import checkpoint, cloud, dataset, features
from src.checkpoint import Checkpoint
from src.collective import broadcast, share, together
from src.config import adopt
from src.errors import UserError
from src.flags import EvalConfig
from src.images import Images
from src.logs import log_epoch, logger
from src.lr_generator import learning_rates
from src.metrics import classification_metrics
from src.optimizer import build_optimizer
from src.process_group import Process
from src.run_folder import CLASSIFIERS, RunFolder
from src.simclr_model import LinearClassifier, encoder_of

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


class Split(NamedTuple):
    """Representations and labels of a split."""

    rows: np.ndarray
    labels: np.ndarray


def epoch_order(count: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Return row numbers (steps, batch_size): every row at least once; the last batch is filled up
    with the epoch's first rows."""
    order = np.random.default_rng((seed, epoch)).permutation(count).astype(np.int32)
    steps = -(-count // batch_size)
    return np.resize(order, (steps, batch_size))


def train_classifier(classifier: LinearClassifier, train: Split, config: EvalConfig, folder: RunFolder,
                     info: Dict[str, Any]) -> None:
    """Train ``classifier`` for ``epoch_size`` epochs and save its checkpoints in place of earlier ones."""
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
        folder.add_metrics({"kind": "linear_classifier", "epoch": epoch, "loss": float(last_loss),
                            "seconds": round(seconds, 3)})
        if epoch % config.save_checkpoint_epochs == 0 or epoch == config.epoch_size:
            checkpoint.save_epoch(folder.classifiers, PREFIX, epoch, classifier.get_parameters(), info,
                                  config.keep_checkpoint_max)


def resolve(config: EvalConfig, encoder: Checkpoint, classifier: Optional[Checkpoint]) -> EvalConfig:
    """Fill in what the checkpoints know; a flag that contradicts them is an error."""
    settings, source = encoder.info["settings"], str(encoder.path)
    config = adopt(config, settings, ("encoder", "width_multiplier", "projection_dimension"), source)
    if config.dataset_name is None:
        config = adopt(config, settings, ("dataset_name",), source)
    if classifier:
        config = adopt(config, classifier.info, ("class_num",), str(classifier.path))
    side = dataset.side_of(settings)
    dataset.check_side(config.dataset_name, side, f"{source} was trained on images of")
    return adopt(config, {"image_size": side}, ("image_size",), source)


def resolve_classes(config: EvalConfig, train: Optional[Images], test: Images,
                    classifier: Optional[Checkpoint]) -> EvalConfig:
    """Fill in the number of classes, once the images are known.

    Raises:
        UserError: there are more classes than asked for, or the test images have others than the classifier.
    """
    # Checkpoints of before there were data sets with classes of their own do not say them.
    known = train.classes if train else tuple(classifier.info.get("classes", test.classes))
    if test.classes != known:
        other = sorted(set(test.classes) ^ set(known))
        raise UserError(f"--eval_dataset_path: its {len(test.classes)} classes are not the {len(known)} that the "
                        f"classifier is for: {', '.join(other[:3])}{' ...' * (len(other) > 3)} "
                        f"{'are' if len(other) > 1 else 'is'} in one of them alone; give both the same classes")
    if config.class_num is None:
        return dataclasses.replace(config, class_num=len(known))
    if config.class_num < len(known):
        raise UserError(f"--class_num: got {config.class_num}, takes at least the {len(known)} classes of "
                        f"{config.dataset_name}")
    return config


def load_classifier(path: str, flag: str, encoder: Checkpoint, encoder_digest: str) -> Checkpoint:
    """Load a checkpoint of linear_eval.py that was trained on ``encoder``, whose digest is given.

    Raises:
        UserError: it was trained on another encoder.
    """
    found = checkpoint.load(path, "linear_classifier", flag)
    if found.info["encoder_digest"] != encoder_digest:
        age = checkpoint.after(found.info["encoder_epoch"])
        raise UserError(f"--{flag}: {path} was trained on another encoder ({age}) than {encoder.path}; name the "
                        "encoder that it was trained on")
    return found


def check_place(folder: Path, encoder_digest: str) -> None:
    """Raise UserError where a new classifier would replace one of another encoder."""
    there = checkpoint.of_epochs(folder, PREFIX)
    if there and checkpoint.load(str(there[-1]), PREFIX, "train_output_path").info["encoder_digest"] != encoder_digest:
        raise UserError(f"--train_output_path: {folder} holds the classifier of another encoder; name another folder "
                        "for this evaluation")


def build_classifier(found: Checkpoint) -> LinearClassifier:
    """Build the classifier that a checkpoint holds."""
    classifier = LinearClassifier(found.info["features"], found.info["class_num"])
    checkpoint.load_into(classifier.get_parameters(), found.parameters, str(found.path))
    return classifier


def load_images(config: EvalConfig) -> Tuple[Optional[Images], Images]:
    """Return training and test images; without training of a classifier there are no former ones."""
    train, name, side = None, config.dataset_name, config.image_size
    if not config.pre_classifier_checkpoint_path:
        train = dataset.load(name, config.train_dataset_path, "train", num_samples=config.num_samples,
                             download=config.download, side=side)
    if config.eval_dataset_path:
        return train, dataset.load(name, config.eval_dataset_path, "test", "eval_dataset_path", side=side)
    return train, dataset.load(name, config.train_dataset_path, "test", download=config.download, side=side)


def find_start(config: EvalConfig, process: Process) -> Tuple[Checkpoint, str, Optional[Checkpoint]]:
    """Return the encoder's checkpoint, its digest, and the given classifier; rank 0 alone reads them.

    Raises:
        UserError: there are none, they do not belong together, or the folder is another encoder's.
    """
    source = digest = given = None
    with together(process):
        if process.is_first:
            if config.run_cloudbrain:
                cloud.fetch_run(config.train_url, Path(config.train_output_path))
            source = checkpoint.load(config.encoder_checkpoint_path, "simclr", "encoder_checkpoint_path")
            digest = checkpoint.digest(source.path)
            if config.pre_classifier_checkpoint_path:
                given = load_classifier(config.pre_classifier_checkpoint_path, "pre_classifier_checkpoint_path", source,
                                        digest)
            else:
                check_place(Path(config.train_output_path) / CLASSIFIERS, digest)
    return checkpoint.shared(source, process), share(digest, process), checkpoint.shared(given, process)


def evaluate(config: EvalConfig, process: Process) -> None:
    """Evaluate an encoder and write accuracy and confusion matrix into the run's folder.

    All ranks encode their share of the images; rank 0 trains and evaluates the classifier.

    Raises:
        UserError: data, checkpoints or folder are not what the settings say.
    """
    source, digest, given = find_start(config, process)
    with together(process):
        config = dataclasses.replace(resolve(config, source, given), device_num=process.world_size)
        if config.run_cloudbrain:
            cloud.stage_in(config.data_url, dataset.folder_of(config.dataset_name, config.train_dataset_path))
        train, test = load_images(config)
        config = resolve_classes(config, train, test, given)
        encoder = encoder_of(source.info["settings"])
        if process.is_first:
            checkpoint.load_into(encoder.get_parameters(), checkpoint.part(source.parameters, "encoder."),
                                 str(source.path))
        folder = RunFolder(config, process, "eval_")
    broadcast(encoder.get_parameters(), process)
    logger.info("encoder: %s, width x %g, %d features, %s, from %s", config.encoder,
                config.width_multiplier, encoder.features, checkpoint.after(source.info["epoch"]), source.path)

    def represent(images: Images, split: str) -> Split:
        rows = features.cached(folder.path / "features", encoder, digest, images.pixels, config.batch_size, split,
                               process)
        return Split(rows, images.labels)

    with cloud.synced(folder.path, config.train_url if process.is_first else None):
        train_split = None if given else represent(train, "train")
        test_split = represent(test, "test")
        with together(process):  # the other ranks wait for rank 0
            if process.is_first:
                if given:
                    classifier = build_classifier(given)
                else:
                    classifier = LinearClassifier(encoder.features, config.class_num)
                    info = {"kind": "linear_classifier", "class_num": config.class_num, "features": encoder.features,
                            "dataset_name": config.dataset_name, "classes": test.classes, "encoder_digest": digest,
                            "encoder_epoch": source.info["epoch"], "mindspore": ms.__version__}
                    train_classifier(classifier, train_split, config, folder, info)
                report(classifier, test_split, test.classes, config, source, folder)


def report(classifier: LinearClassifier, test: Split, names: Tuple[str, ...], config: EvalConfig, source: Checkpoint,
           folder: RunFolder) -> None:
    """Evaluate every test image once; log the accuracy and add everything to metrics.jsonl."""
    classifier.set_train(False)
    logits = classifier(Tensor(test.rows)).asnumpy()
    names += tuple(f"class {index}" for index in range(len(names), config.class_num))
    result = classification_metrics(logits, test.labels, names)
    trained = f"{config.epoch_size} epochs" if not config.pre_classifier_checkpoint_path else "given classifier"
    folder.add_metrics({"kind": "linear_eval", "protocol": f"{PROTOCOL}, {trained}", "dataset": config.dataset_name,
                        "encoder_checkpoint": str(source.path), "encoder_epoch": source.info["epoch"],
                        "seed": config.seed, **result})
    for name, accuracy in result["class_accuracy"].items():
        logger.info("  %-12s %s", name, "no images" if accuracy is None else f"{100 * accuracy:.2f} %")
    logger.info("top-1 %.3f %%, top-5 %.3f %% of %d test images", 100 * result["accuracy"],
                100 * result["top5_accuracy"], result["images"])
    logger.info("Average accuracy: {'Accuracy': %s}", round(result["accuracy"], 7))

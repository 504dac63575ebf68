"""Training of encoder and classifier with labels: fine-tuning, semi-supervised (few labels) and supervised.

After the paper's way of fine-tuning (appendix B.5): SGD with momentum, a learning rate of 0.05 x B / 256, no weight
decay, crops and flips alone; the momentum is not Nesterov's, and the learning rate decays. The network is always that
of the encoder's checkpoint, so that what is compared differs in nothing but its first weights and its labels.
"""
import dataclasses
import json
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Tuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from src import dataset
from src.common.errors import UserError
from src.common.files import write_text
from src.common.logs import logger
from src.data.augmentation import Augmentation, LabelledViews
from src.data.few_labels import balanced_subset
from src.data.images import Images, fingerprint
from src.distributed.collectives import broadcast, share, together
from src.distributed.process_group import Process
from src.evaluation.classifier import info_of
from src.evaluation.features import extract
from src.evaluation.results import Outcome, load_test, load_train, report_all, resolve, resolve_classes
from src.layers.batch_norm import batch_norm
from src.lr_generator import learning_rates
from src.optimizer import SGD_MOMENTUM, build_optimizer
from src.run import checkpoint, staging
from src.run.checkpoint import Checkpoint
from src.run.folder import RunFolder
from src.settings.encoder_flags import FinetuneConfig
from src.simclr_model import ImageClassifier, LinearClassifier, encoder_of
from src.tasks.beginning import check_same, fit_workers
from src.training.callbacks import EpochReport, Progress
from src.training.loop import Learner, learner_of, train_epochs

FOLDER = "finetune"                      # of the results, in the run's folder
ENCODER_FILE = "encoder.ckpt"
PEAK, PEAK_BATCH = 0.05, 256             # learning rate for so many images per step, in proportion for others
# What an encoder's checkpoint says of it.
DESCRIBED = ("dataset_name", "image_size", "encoder", "width_multiplier", "stem", "normalize")
PROTOCOLS = {"pretrained": "fine-tuning of the whole network", "random": "supervised training from random weights"}


class CrossEntropy(nn.Cell):
    """Logits (B, classes) and labels (B,) -> mean cross entropy and accuracy, both scalars, float32."""

    def construct(self, logits, labels):
        logits = logits.astype(mstype.float32)
        hits = (ops.argmax(logits, 1).astype(mstype.int32) == labels).astype(mstype.float32)
        return ops.cross_entropy(logits, labels), hits.mean()


def fine_tune(config: FinetuneConfig, process: Process) -> None:
    """Train the whole network with labels, once per seed, and judge its last epoch by every test image.

    Raises:
        UserError: data, checkpoint or folder are not what the settings say.
        DivergedError: the loss is not finite any more.
    """
    source = find_source(config, process)
    with together(process):
        config = resolve_training(config, source, process)
        if config.run_cloudbrain:
            staging.stage_in(config.data_url, dataset.folder_of(config.dataset_name, config.train_dataset_path))
        train, test = load_train(config), load_test(config)
        config = resolve_classes(config, train.classes, test)
        subsets = {seed: labelled_images(config, train, seed, process) for seed in config.seeds}
        data, of_test = fingerprint(train.pixels), fingerprint(test.pixels)
    data_of_first, test_of_first = share([data, of_test], process)
    with together(process):
        check_same(data, data_of_first, "train_dataset_path", "training")
        check_same(of_test, test_of_first, "eval_dataset_path", "test")
        folder = RunFolder(config, process, "finetune_")
        place = place_of(config)
        if process.is_first:
            make_folder(place)
    about = {"dataset": config.dataset_name, "data": data, "encoder_checkpoint": str(source.path),
             "encoder_epoch": source.info["epoch"], "initial_weights": config.initial_weights,
             "label_fraction": config.label_fraction, "labelled_images": len(subsets[config.seed])}
    with staging.synced(folder.path, config.train_url if process.is_first else None) as sync:
        report_all(outcomes(config, source, train, subsets, test, about, folder, process, sync), test.labels,
                   test.classes, about, folder)


def find_source(config: FinetuneConfig, process: Process) -> Checkpoint:
    """Return the encoder's checkpoint; rank 0 alone reads it.

    Raises:
        UserError: there is none, it does not fit, or the place of the results is taken.
    """
    source = None
    with together(process):
        if process.is_first:
            if config.run_cloudbrain:
                staging.fetch_run(config.train_url, Path(config.train_output_path))
            source = checkpoint.load(config.encoder_checkpoint_path, "simclr", "encoder_checkpoint_path")
            encoder = encoder_of(source.info["settings"])  # whether it fits is found out now, before the work
            checkpoint.load_into(encoder.get_parameters(), checkpoint.part(source.parameters, "encoder."),
                                 str(source.path))
            if (place_of(config) / ENCODER_FILE).exists():
                raise UserError(f"--train_output_path: {place_of(config)} already holds a fine-tuned network; name "
                                "another folder")
    return checkpoint.shared(source, process)


def place_of(config: FinetuneConfig) -> Path:
    """Return the folder of the results."""
    return Path(config.train_output_path) / FOLDER / f"{config.initial_weights}-{config.label_fraction:g}"


def make_folder(place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--train_output_path: cannot make {place} ({error.strerror}); name a folder that can be "
                        "written") from None


def resolve_training(config: FinetuneConfig, source: Checkpoint, process: Process) -> FinetuneConfig:
    """Fill in what follows from the checkpoint and from other settings."""
    config = fit_workers(dataclasses.replace(resolve(config, source), device_num=process.world_size))
    if config.learning_rate is None:
        peak = PEAK * config.batch_size * process.world_size / PEAK_BATCH
        config = dataclasses.replace(config, learning_rate=peak)
    return config


def labelled_images(config: FinetuneConfig, train: Images, seed: int, process: Process) -> np.ndarray:
    """Return the row numbers of the images whose labels are used.

    Raises:
        UserError: there are too few of a class, or fewer than a step takes.
    """
    rows = balanced_subset(train.labels, config.label_fraction, seed, train.classes)
    if len(rows) < config.batch_size * process.world_size:
        raise UserError(f"--batch_size: got {config.batch_size}, takes at most the {len(rows) // process.world_size} "
                        "labelled images that each device has to train on")
    return rows


def outcomes(config: FinetuneConfig, source: Checkpoint, train: Images, subsets: Dict[int, np.ndarray], test: Images,
             about: Dict[str, Any], folder: RunFolder, process: Process,
             sync: Callable[[], None]) -> Iterator[Tuple[int, Outcome]]:
    """Yield the outcome of every seed; the network of the first one is kept. ``sync`` is called after each seed."""
    place = place_of(config)
    for seed, rows in subsets.items():
        details: Dict[str, Any] = {}
        with together(process):
            if config.label_fraction < 1 and process.is_first:
                file = place / f"labels-seed-{seed}.json"
                write_text(file, json.dumps({**about, "seed": seed, "rows": rows.tolist()}) + "\n")
                details["labels_file"] = str(file.relative_to(folder.path))
                logger.info("%d images, as many of every class: %s", len(rows), file)
            augmentation = Augmentation(config.crop_min_scale, config.flip_probability, jitter_strength=0,
                                        grayscale_probability=0)
            views = LabelledViews(train.pixels, train.labels, rows=rows, batch_size=config.batch_size,
                                  augmentation=augmentation, seed=seed, workers=config.num_parallel_workers,
                                  rank=process.rank, world_size=process.world_size)
            learner = build_learner(config, source, seed, len(views), process)
        broadcast(learner.state(), process)
        train_network(config, learner, views, seed, folder, process)
        network = learner.model
        broadcast(network.get_parameters(), process)  # without --sync_bn the ranks have statistics of their own
        with together(process):
            if seed == config.seed and process.is_first:
                save(place, network, config, source, test.classes)
        representations = extract(network.encoder, test.pixels, config.batch_size, process, "features, test")
        logits = network.linear_classifier.set_train(False)(Tensor(representations)).asnumpy().astype(np.float32)
        protocol = protocol_of(config, len(rows), len(train.classes), process.world_size)
        yield seed, Outcome("finetune_eval", protocol, logits, details)
        sync()


def build_learner(config: FinetuneConfig, source: Checkpoint, seed: int, steps_per_epoch: int,
                  process: Process) -> Learner:
    """Build the network that ``source`` describes, with a classifier, and what trains both; rank 0's is the one."""
    ms.set_seed(seed)
    encoder = encoder_of(source.info["settings"], batch_norm(config.sync_bn, process))
    network = ImageClassifier(encoder, LinearClassifier(encoder.features, config.class_num))
    if config.initial_weights == "pretrained" and process.is_first:
        weights = {name: value for name, value in source.parameters.items() if name.startswith("encoder.")}
        checkpoint.load_into(network.encoder.get_parameters(), weights, str(source.path))
    rates = learning_rates("cosine", config.learning_rate, config.epoch_size, steps_per_epoch)
    optimizer = build_optimizer("SGD", network.trainable_params(), rates, config.weight_decay)
    return learner_of(network, CrossEntropy(), optimizer, rates, config.amp_level, process.world_size)


def train_network(config: FinetuneConfig, learner: Learner, views: LabelledViews, seed: int, folder: RunFolder,
                  process: Process) -> None:
    """Train ``learner`` for all epochs."""
    def write(record: Dict[str, Any]) -> None:
        folder.add_metrics({**record, "seed": seed})

    global_batch = config.batch_size * process.world_size
    trained = sum(parameter.size for parameter in learner.model.trainable_params())
    logger.info("%s, width x %g, %s; %s parameters to train; %d epochs of %d steps of %d images, seed %d",
                config.encoder, config.width_multiplier, PROTOCOLS[config.initial_weights], f"{trained:,}",
                config.epoch_size, len(views), global_batch, seed)
    callbacks = [EpochReport("finetune", "train_accuracy", learner.step.totals, learner.model.get_parameters(),
                             learner.rates, 0, global_batch, write)]
    if process.is_first:
        callbacks.insert(0, Progress(learner.step.totals, 0, config.epoch_size, global_batch))
    train_epochs(learner, views, config.epoch_size, callbacks, process)


def protocol_of(config: FinetuneConfig, images: int, classes: int, world_size: int) -> str:
    """Say in words how a network was trained, the same for every seed."""
    labels = f"all {images} labels"
    if config.label_fraction < 1:
        labels = (f"{100 * config.label_fraction:g} % of the labels ({images} images, {images // classes} of each "
                  "class, drawn by the seed)")
    precision = "" if config.amp_level == "O0" else f", mixed precision {config.amp_level}, in the test too"
    return (f"{PROTOCOLS[config.initial_weights]}, {labels}, {config.epoch_size} epochs of "
            f"{config.batch_size * world_size} images per step, SGD with momentum {SGD_MOMENTUM:g}, learning rate "
            f"{config.learning_rate:g} with cosine decay, weight decay {config.weight_decay:g}, crops of at least "
            f"{config.crop_min_scale:g}, flips with probability {config.flip_probability:g}{precision}, last epoch")


def save(place: Path, network: ImageClassifier, config: FinetuneConfig, source: Checkpoint,
         classes: Tuple[str, ...]) -> None:
    """Write encoder.ckpt and linear_classifier.ckpt, which linear_eval.py and export.py take."""
    settings = {name: source.info["settings"][name] for name in DESCRIBED if name in source.info["settings"]}
    encoder, classifier = place / ENCODER_FILE, place / "linear_classifier.ckpt"
    checkpoint.save(encoder, network.encoder.get_parameters(), {
        "kind": "simclr", "epoch": config.epoch_size, "mindspore": ms.__version__, "settings": settings,
        "fine_tuned_from": source.path.name})
    own = {parameter.name: parameter for parameter in network.linear_classifier.get_parameters()}
    checkpoint.save(classifier, checkpoint.part(own, "linear_classifier.").values(), {
        **info_of(config, network.encoder.features, classes, checkpoint.digest(encoder), config.epoch_size),
        "epoch": config.epoch_size})
    logger.info("written: %s and %s", encoder, classifier)

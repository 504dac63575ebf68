"""What finetune.py does beside the training: its settings, its results on disk, and the test.

The training follows the paper's fine-tuning (appendix B.5): SGD with momentum, a learning rate of 0.05 x B / 256, no
weight decay, crops and flips alone. Unlike there, the momentum is not Nesterov's, and the learning rate decays. The
network is that of the encoder's checkpoint, also with random weights: the two differ in nothing but these weights.
"""
from typing import Any, Dict

import numpy as np
from mindspore import Tensor

from src.common.errors import UserError
from src.common.files import sha256_of, writing
from src.common.logs import logger
from src.data.images import Images, balanced_subset
from src.distributed.collectives import share
from src.evaluation import labelled, linear_sgd
from src.evaluation.features import extract
from src.evaluation.results import Outcome
from src.layers.encoder_layers import encoder_layers
from src.lr_generator import fine_tuning_rate
from src.optimizer import MOMENTUM
from src.resnet import build_encoder
from src.run import checkpoint, inputs, records
from src.run.checkpoint import Checkpoint
from src.run.folder import Run
from src.run.layout import FineTuned
from src.settings.augmentation import Augmentation
from src.settings.given import Given
from src.settings.scripts import FinetuneSettings
from src.simclr_model import ImageClassifier

TITLES = {"pretrained": "fine-tuning of the whole network", "random": "supervised training from random weights"}
PROTOCOL_IDS = {"pretrained": records.FINE_TUNED, "random": records.SUPERVISED}


def fill_from_checkpoint(given: Given, source: Checkpoint, world_size: int) -> Given:
    """Fill in what follows from the encoder's checkpoint and from other settings.

    Raises a UserError where a flag contradicts the checkpoint.
    """
    given = inputs.fit_workers(labelled.fill_from_encoder(given, source))
    if given["learning_rate"] is None:
        given = given.fill(learning_rate=fine_tuning_rate(given["batch_size"] * world_size))
    return given


def augmentation_of(settings: FinetuneSettings) -> Augmentation:
    """Return crops and flips alone."""
    return Augmentation(settings.crop_min_scale, settings.flip_probability, jitter_strength=0.0,
                        grayscale_probability=0.0, blur_probability=0.0)


def draw_labels(settings: FinetuneSettings, train: Images, world_size: int) -> Dict[int, np.ndarray]:
    """Return for every seed the row numbers of the images whose labels are used.

    Raises a UserError where there are too few of a class, or fewer than a step takes.
    """
    subsets = {seed: balanced_subset(train.labels, settings.label_fraction, seed, train.classes)
               for seed in settings.seeds}
    inputs.check_batch(len(subsets[settings.seed]), settings.batch_size, world_size, "labelled images")
    return subsets


def common_of(settings: FinetuneSettings, source: Checkpoint, data: Dict[str, str], labelled_images: int,
              run: Run) -> Dict[str, Any]:
    """Return what the records of all seeds have in common, the fingerprints ``data`` of the images included."""
    with run.together():
        digest = sha256_of(source.path) if run.process.is_first else ""
    return {"dataset": settings.dataset_name, **data, "encoder_checkpoint": str(source.path),
            "encoder_digest": digest, "encoder_epoch": source.info["epoch"],
            "initial_weights": settings.initial_weights, "label_fraction": settings.label_fraction,
            "labelled_images": labelled_images, "training": place_of(settings, run).folder.name}


def place_of(settings: FinetuneSettings, run: Run) -> FineTuned:
    """Return the folder of the results."""
    return run.layout.fine_tuned(settings.initial_weights, settings.label_fraction)


def finished_seeds(settings: FinetuneSettings, common: Dict[str, Any], protocol: str, run: Run) -> Dict[int, float]:
    """Return the accuracies of the seeds that an earlier, interrupted start has finished. Rank 0 reads them.

    Raises a UserError where the folder holds a network of another fine-tuning, or all seeds are finished.
    """
    with run.together():
        own = _finished_seeds(settings, {**common, "protocol": protocol}, run) if run.process.is_first else {}
    # JSON has no numbers for keys.
    return dict(share(list(own.items()), run.process))


def _finished_seeds(settings: FinetuneSettings, wanted: Dict[str, Any], run: Run) -> Dict[int, float]:
    place = place_of(settings, run)
    existing = records.read(run.layout.records)
    own = [record for record in existing if record.get("training") == wanted["training"]]
    results = [record for record in own if record["kind"] == records.FINETUNE_EVAL]
    refusal = f"--train_output_path: {place.folder} already holds a fine-tuned network"
    if place.encoder.exists() and not own:
        raise UserError(f"{refusal}, but its records are missing; name another folder")
    compared = [name for name in wanted if name != "encoder_checkpoint"]  # the file may have moved
    for record in results:
        other = next((name for name in compared if record.get(name) != wanted[name]), None)
        if other or record["seed"] not in settings.seeds:
            raise UserError(f"{refusal}, with another {other or 'seed'}; name another folder")
    finished = {record["seed"]: record["accuracy"] for record in results}
    is_summed_up = len(settings.seeds) == 1 or any(record["kind"] == records.REPEATED_EVAL for record in own)
    if set(settings.seeds) <= set(finished) and is_summed_up:
        raise UserError(f"{refusal}; name another folder")
    if finished:
        logger.info("%d of %d seeds are finished already", len(finished), settings.repeat)
    return finished


def test_outcome(model: ImageClassifier, source: Checkpoint, settings: FinetuneSettings, test: Images, protocol: str,
                 run: Run) -> Outcome:
    """Classify the test images, in float32. Ranks other than 0 encode their part and have no scores."""
    run.broadcast(model.get_parameters())  # without --sync_bn every rank has its own statistics; rank 0's are kept
    encoder = build_encoder(source.network, encoder_layers(run.process))
    trained = {parameter.name: parameter for parameter in model.encoder.get_parameters()}
    checkpoint.load_into(encoder.get_parameters(), checkpoint.part(trained, "encoder."), "the fine-tuned encoder")
    h = extract(encoder, test.pixels, settings.batch_size, run.process, "features, test")
    logits = np.empty((0, settings.class_num), np.float32)
    if run.process.is_first:
        logits = model.classifier.set_train(False)(Tensor(h)).asnumpy().astype(np.float32)
    return Outcome(records.FINETUNE_EVAL, PROTOCOL_IDS[settings.initial_weights], protocol, logits)


def protocol_of(settings: FinetuneSettings, images: int, classes: int, world_size: int, precision: str) -> str:
    """Return in words how a network is trained, the same for every seed."""
    labels = f"all {images} labels"
    if settings.label_fraction < 1:
        labels = (f"{100 * settings.label_fraction:g} % of the labels ({images} images, {images // classes} of each "
                  "class, drawn by the seed)")
    computed = "" if precision == "float32" else f", trained in {precision}"
    return (f"{TITLES[settings.initial_weights]}, {labels}, {settings.epoch_size} epochs of "
            f"{settings.batch_size * world_size} images per step, SGD with momentum {MOMENTUM:g}, learning rate "
            f"{settings.learning_rate:g} with cosine decay, weight decay {settings.weight_decay:g}, crops of at least "
            f"{settings.crop_min_scale:g}, flips with probability {settings.flip_probability:g}{computed}, last epoch")


def keep(model: ImageClassifier, settings: FinetuneSettings, source: Checkpoint, test: Images, run: Run) -> None:
    """Write the encoder and the classifier, which linear_eval.py and export.py take."""
    place = place_of(settings, run)
    parameters = {parameter.name: parameter for parameter in model.classifier.get_parameters()}
    with writing("train_output_path", place.folder):
        place.folder.mkdir(parents=True, exist_ok=True)
        run.flush_records()
        checkpoint.save(place.encoder, model.encoder.get_parameters(), {
            "holds": checkpoint.ENCODER, "epoch": settings.epoch_size, "network": source.network.without_head,
            "settings": {"dataset_name": source.info["settings"]["dataset_name"]},
            "fine_tuned_from": source.path.name})
        info = linear_sgd.info_of(settings.class_num, model.encoder.features, settings.dataset_name, test.classes,
                                  sha256_of(place.encoder), settings.epoch_size)
        checkpoint.save(place.classifier, checkpoint.part(parameters, "classifier.").values(),
                        {**info, "epoch": settings.epoch_size})
    logger.info("written: %s and %s", place.encoder, place.classifier)

"""What finetune.py does beside the training: what it begins with or takes up, and what it keeps.

The training is after the paper's way of fine-tuning (appendix B.5): SGD with momentum, a learning rate of
0.05 x B / 256, no weight decay, crops and flips alone; the momentum is not Nesterov's, and the learning rate decays.
The network is always that of the encoder's checkpoint, so that what is compared differs in nothing but its first
weights and its labels.
"""
import json
import uuid
from typing import Any, Dict, List, NamedTuple

import numpy as np
from mindspore import Tensor
from mindspore.train import Callback

from src.common.errors import UserError
from src.common.files import make_folder, sha256_of, write_text, writing
from src.common.logs import logger
from src.data.images import Images, balanced_subset
from src.distributed.collectives import share
from src.evaluation import labelled, linear_sgd
from src.evaluation.features import extract
from src.evaluation.results import Outcome
from src.lr_generator import fine_tuning_rate
from src.optimizer import MOMENTUM
from src.run import checkpoint, inputs, records
from src.run.checkpoint import Checkpoint
from src.run.folder import Run
from src.run.layout import FineTuned
from src.settings.augmentation import Augmentation
from src.settings.given import Given, Role, values_of
from src.settings.scripts import FinetuneSettings
from src.simclr_model import ImageClassifier
from src.training.callbacks import EpochReport, Progress
from src.training.loop import Learner

TITLES = {"pretrained": "fine-tuning of the whole network", "random": "supervised training from random weights"}
PROTOCOL_IDS = {"pretrained": records.FINE_TUNED, "random": records.SUPERVISED}


def fill_from_checkpoint(given: Given, source: Checkpoint, world_size: int) -> Given:
    """Fill in what follows from the encoder's checkpoint and from other settings.

    Raises:
        UserError: a flag contradicts the checkpoint.
    """
    given = inputs.fit_workers(labelled.fill_from_encoder(given, source))
    if given["learning_rate"] is None:
        given = given.fill(learning_rate=fine_tuning_rate(given["batch_size"] * world_size))
    return given


def augmentation_of(settings: FinetuneSettings) -> Augmentation:
    """Crops and flips alone."""
    return Augmentation(settings.crop_min_scale, settings.flip_probability, jitter_strength=0.0,
                        grayscale_probability=0.0, blur_probability=0.0)


def draw_labels(settings: FinetuneSettings, train: Images, world_size: int) -> Dict[int, np.ndarray]:
    """Return for every seed the row numbers of the images whose labels are used.

    Raises:
        UserError: there are too few of a class, or fewer than a step takes.
    """
    subsets = {seed: balanced_subset(train.labels, settings.label_fraction, seed, train.classes)
               for seed in settings.seeds}
    inputs.check_batch(len(subsets[settings.seed]), settings.batch_size, world_size, "labelled images")
    return subsets


def describe(settings: FinetuneSettings, source: Checkpoint, labelled_images: int, test: Images) -> None:
    """Log what is about to be done."""
    begin = "random weights, as a reference" if settings.initial_weights == "random" else str(source.path)
    seeds = f", with {settings.repeat} seeds" if settings.repeat > 1 else ""
    logger.info("about to train encoder and classifier with labels, from %s: %d epochs with %s labelled images of %s, "
                "tested on %s images%s", begin, settings.epoch_size, f"{labelled_images:,}", settings.dataset_name,
                f"{len(test.labels):,}", seeds)


class Training(NamedTuple):
    """A training of one or several seeds: its name in the records, and the accuracies of the seeds that are done."""

    name: str
    done: Dict[int, float]


def begin_or_resume(settings: FinetuneSettings, source: Checkpoint, fingerprints: Dict[str, str],
                    run: Run) -> Training:
    """Write down what begins; where an earlier start of the same was ended, return what it has done.

    The records of the seed that it was ended in are dropped.

    Raises:
        UserError: the folder holds another training, or one that is finished.
    """
    training = Training("", {})
    with run.together():
        if run.process.is_first:
            wanted = {**values_of(settings, Role.LEARNING), **fingerprints,
                      "encoder_digest": sha256_of(source.path),
                      "global_batch": settings.batch_size * run.process.world_size}
            training = _begin_or_resume(settings, wanted, run)
    name, done = share([training.name, list(training.done.items())], run.process)
    return Training(name, dict(done))


def _begin_or_resume(settings: FinetuneSettings, wanted: Dict[str, Any], run: Run) -> Training:
    place = place_of(settings, run)
    refusal = f"--train_output_path: {place.folder} already holds a fine-tuned network"
    begun = _begun(place)
    there = records.read(run.layout.records) if run.layout.records.exists() else []

    def is_own(record: records.Record) -> bool:
        return bool(begun) and record.get("training") == begun["training"]

    own = list(filter(is_own, there))
    done = {record["seed"]: record["accuracy"] for record in own if record["kind"] == records.FINETUNE_EVAL}
    other = next((name for name in wanted if wanted[name] != begun.get(name)), None)
    if other and (done or place.encoder.exists()):
        but = f", or the beginning of one, with {other} {begun.get(other)} and not {wanted[other]}" if begun else ""
        raise UserError(f"{refusal}{but}; name another folder")
    is_summed_up = len(settings.seeds) == 1 or any(record["kind"] == records.REPEATED_EVAL for record in own)
    if set(settings.seeds) <= set(done) and is_summed_up:
        raise UserError(f"{refusal}; name another folder")
    run.make()
    with writing("train_output_path", place.folder):
        if own:
            records.rewrite(run.layout.records, [record for record in there if not is_own(record)
                                                 or record.get("seed") in done])
        if not other:
            logger.info("taken up: %d of %d seeds are done", len(done), settings.repeat)
            return Training(begun["training"], done)
        training = Training(uuid.uuid4().hex[:12], {})
        make_folder(place.folder.parent)
        make_folder(place.folder)
        write_text(place.begun, json.dumps({"training": training.name, **wanted}, indent=1) + "\n")
    return training


def _begun(place: FineTuned) -> Dict[str, Any]:
    """Return what the training there was begun with; nothing where there is none, or nothing that can be read."""
    try:
        begun = json.loads(place.begun.read_text(encoding="utf-8"))
        return begun if isinstance(begun["training"], str) else {}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def about(settings: FinetuneSettings, source: Checkpoint, fingerprints: Dict[str, str], training: Training,
          count: int) -> Dict[str, Any]:
    """Return what the records of the results say of a training with the labels of ``count`` images."""
    return {"dataset": settings.dataset_name, "data": fingerprints["data"], "encoder_checkpoint": str(source.path),
            "encoder_epoch": source.info["epoch"], "initial_weights": settings.initial_weights,
            "label_fraction": settings.label_fraction, "labelled_images": count, "training": training.name}


def place_of(settings: FinetuneSettings, run: Run) -> FineTuned:
    """Return the folder of the results."""
    return run.layout.fine_tuned(settings.initial_weights, settings.label_fraction)


def write_labels(settings: FinetuneSettings, seed: int, rows: np.ndarray, about: Dict[str, Any],
                 run: Run) -> Dict[str, str]:
    """Write down which images' labels are used, where that is not all, and return where for the record."""
    if settings.label_fraction == 1 or not run.process.is_first:
        return {}
    file = place_of(settings, run).labels(seed)
    with writing("train_output_path", file.parent):
        write_text(file, json.dumps({**about, "seed": seed, "rows": rows.tolist()}) + "\n")
    logger.info("%d images, as many of every class: %s", len(rows), file)
    return {"labels_file": str(file.relative_to(run.layout.path))}


def callbacks(settings: FinetuneSettings, learner: Learner, model: ImageClassifier, steps_per_epoch: int, seed: int,
              training: Training, run: Run) -> List[Callback]:
    """Return what happens beside the steps; rank 0 alone shows progress."""
    about = {"seed": seed, "training": training.name}
    global_batch = settings.batch_size * run.process.world_size
    trained = sum(parameter.size for parameter in model.trainable_params())
    logger.info("%s, width x %g, %s; %s parameters to train; %d epochs of %d steps of %d images, seed %d",
                settings.encoder, settings.width_multiplier, TITLES[settings.initial_weights], f"{trained:,}",
                settings.epoch_size, steps_per_epoch, global_batch, seed)
    progress = [Progress(learner.step.totals, settings.epoch_size, global_batch)] if run.process.is_first else []
    return [*progress, EpochReport(
        records.FINETUNE, "train_accuracy", learner.step.totals, model.get_parameters(), learner.rates, global_batch,
        lambda record: run.records.add({**record, **about}))]


def test_outcome(model: ImageClassifier, settings: FinetuneSettings, test: Images, protocol: str,
                 details: Dict[str, Any], run: Run) -> Outcome:
    """Return what the network says of the test images. On other ranks than 0 that is nothing."""
    run.broadcast(model.get_parameters())  # without --sync_bn the ranks have statistics of their own
    h = extract(model.encoder, test.pixels, settings.batch_size, run.process, "features, test")
    logits = np.empty((0, settings.class_num), np.float32)
    if run.process.is_first:
        logits = model.classifier.set_train(False)(Tensor(h)).asnumpy().astype(np.float32)
    return Outcome(records.FINETUNE_EVAL, PROTOCOL_IDS[settings.initial_weights], protocol, logits, details)


def protocol_of(settings: FinetuneSettings, images: int, classes: int, world_size: int, precision: str) -> str:
    """Say in words how a network was trained, the same for every seed."""
    labels = f"all {images} labels"
    if settings.label_fraction < 1:
        labels = (f"{100 * settings.label_fraction:g} % of the labels ({images} images, {images // classes} of each "
                  "class, drawn by the seed)")
    computed = "" if precision == "float32" else f", {precision}, in the test too"
    return (f"{TITLES[settings.initial_weights]}, {labels}, {settings.epoch_size} epochs of "
            f"{settings.batch_size * world_size} images per step, SGD with momentum {MOMENTUM:g}, learning rate "
            f"{settings.learning_rate:g} with cosine decay, weight decay {settings.weight_decay:g}, crops of at least "
            f"{settings.crop_min_scale:g}, flips with probability {settings.flip_probability:g}{computed}, last epoch")


def keep(model: ImageClassifier, settings: FinetuneSettings, source: Checkpoint, test: Images, run: Run) -> None:
    """Write the encoder and the classifier, which linear_eval.py and export.py take."""
    place = place_of(settings, run)
    own = {parameter.name: parameter for parameter in model.classifier.get_parameters()}
    with writing("train_output_path", place.folder):
        run.flush_records()
        checkpoint.save(place.encoder, model.encoder.get_parameters(), {
            "holds": checkpoint.ENCODER, "epoch": settings.epoch_size, "network": source.network.without_head,
            "settings": {"dataset_name": source.info["settings"]["dataset_name"]},
            "fine_tuned_from": source.path.name})
        info = linear_sgd.info_of(settings.class_num, model.encoder.features, settings.dataset_name, test.classes,
                                  sha256_of(place.encoder), settings.epoch_size)
        checkpoint.save(place.classifier, checkpoint.part(own, "classifier.").values(),
                        {**info, "epoch": settings.epoch_size})
    logger.info("written: %s and %s", place.encoder, place.classifier)

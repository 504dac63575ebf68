"""How linear_eval.py begins: with which encoder, classifier, settings and images."""
import importlib
from typing import NamedTuple, Optional

from src.common.errors import DamagedError, UserError
from src.common.files import reading, sha256_of
from src.common.logs import logger
from src.data.images import Images
from src.distributed.collectives import share
from src.evaluation import labelled, linear_sgd
from src.evaluation.linear_lbfgs import hold_out
from src.resnet import ResNet
from src.run import checkpoint, inputs
from src.run.checkpoint import Checkpoint
from src.run.folder import Run
from src.run.layout import Series
from src.settings.given import Given
from src.settings.scripts import EvalSettings


class Start(NamedTuple):
    """All that an evaluation needs before anything is computed or written."""

    settings: EvalSettings
    source: Checkpoint                # of the encoder
    digest: str                       # of that file
    encoder: ResNet                   # on rank 0 with its weights
    classifier: Optional[Checkpoint]  # a given one, which is tested without training
    train: Optional[Images]           # None with a given classifier
    test: Images


def begin(given: Given, run: Run) -> Start:
    """Find the checkpoints, which rank 0 reads, resolve the settings and load the images.

    Raises a UserError where something is missing or does not fit, or the folder has the classifier of another encoder,
    and a ModuleNotFoundError where a protocol needs a package that is not installed.
    """
    if given["protocol"] in ("lbfgs", "all"):
        importlib.import_module("sklearn.linear_model")  # it is needed late, and must not be missing after the work
    source = run.read(lambda: labelled.read_encoder(given, run))
    with run.together(), reading(source.path):
        own_digest = sha256_of(source.path) if run.process.is_first else ""
    digest = share(own_digest, run.process)
    flag = "pre_classifier_checkpoint_path"
    classifier = run.read(lambda: linear_sgd.load(given[flag], flag, source, digest)) if given[flag] else None
    with run.together():
        if not classifier and given["protocol"] in ("sgd", "all") and run.process.is_first:
            _check_place(run.layout.classifiers, digest)
    with run.together():
        if classifier:
            # The data set may be another one than the classifier's.
            names = ("class_num",) if "dataset_name" in given.chosen else ("class_num", "dataset_name")
            given = given.adopt({name: classifier.info[name] for name in names}, str(classifier.path))
        given = labelled.fill_from_encoder(given, source)
        inputs.stage(given["data_url"], given["dataset_name"], given["train_dataset_path"])
        train = None if classifier else labelled.load_train(given)
        test = labelled.load_test(given)
        known = tuple(classifier.info["classes"]) if classifier else train.classes
        settings = given.resolved(
            class_num=labelled.class_count(given["class_num"], known, test, given["dataset_name"]))
        if "lbfgs" in settings.protocols:
            hold_out(train.labels, settings.seed)  # too few images are an error now, not after the work
        encoder = labelled.load_encoder(source, run.process)
    logger.info("encoder: %s, width x %g, %d features, %s, from %s", settings.encoder, settings.width_multiplier,
                encoder.features, checkpoint.after(source.info["epoch"]), source.path)
    return Start(settings, source, digest, encoder, classifier, train, test)


def _check_place(series: Series, encoder_digest: str) -> None:
    """Raise UserError where a new classifier would replace one of another encoder."""
    for file in reversed(series.files()):
        try:
            newest = checkpoint.load(str(file), checkpoint.CLASSIFIER, "train_output_path")
        except DamagedError as error:
            logger.warning("warning: %s; it will be replaced", error)
            continue
        if newest.info["encoder_digest"] != encoder_digest:
            raise UserError(f"--train_output_path: {series.folder} holds the classifier of another encoder; name "
                            "another folder for this evaluation")
        return

"""What linear_eval.py does beside the evaluation: what it begins with, and the classifier that it keeps."""
import importlib
import json
from typing import Any, Dict, List, Optional, Tuple

from mindspore import Tensor

from src.common.errors import DamagedError, UserError
from src.common.files import reading, sha256_of, writing
from src.common.logs import logger
from src.data.images import Images
from src.distributed.collectives import share
from src.evaluation import labelled, linear_sgd
from src.evaluation.features import Split
from src.evaluation.linear_lbfgs import hold_out
from src.evaluation.results import Outcome
from src.run import checkpoint, records
from src.run.checkpoint import Checkpoint
from src.run.folder import Run
from src.run.layout import EVALUATION, Series
from src.run.records import LINEAR_EVAL, LINEAR_SGD, Record, Sink
from src.settings.given import Given, values_of
from src.settings.scripts import EvalSettings
from src.simclr_model import LinearClassifier


def check_packages(given: Given) -> None:
    """Find out now, before the work, whether a package that only a protocol needs is missing.

    Raises:
        ModuleNotFoundError: it is.
    """
    if given["protocol"] in ("lbfgs", "all"):
        importlib.import_module("sklearn.linear_model")


def find_start(given: Given, run: Run) -> Tuple[Checkpoint, str, Optional[Checkpoint]]:
    """Return the encoder's checkpoint, its digest, and that of a ready classifier; rank 0 alone reads them.

    Raises:
        UserError: there are none, they do not belong together, or the folder has another encoder's classifier.
    """
    source = run.read(lambda: labelled.read_encoder(given, run))
    with run.together(), reading(source.path):
        mine = sha256_of(source.path) if run.process.is_first else ""
    digest = share(mine, run.process)

    def find_classifier() -> Optional[Checkpoint]:
        if given["pre_classifier_checkpoint_path"]:
            return linear_sgd.load(given["pre_classifier_checkpoint_path"], "pre_classifier_checkpoint_path", source,
                                   digest)
        if given["protocol"] in ("sgd", "all"):
            _check_place(run.layout.classifiers, digest)
        return None

    return source, digest, run.read(find_classifier)


def _check_place(series: Series, encoder_digest: str) -> None:
    """Raise UserError where a new classifier would replace one of another encoder."""
    found = None
    for file in reversed(series.files()):
        try:
            found = checkpoint.load(str(file), checkpoint.CLASSIFIER, "train_output_path")
            break
        except DamagedError as error:
            logger.warning("warning: %s; it is going to be replaced", error)
    if found and found.info["encoder_digest"] != encoder_digest:
        raise UserError(f"--train_output_path: {series.folder} holds the classifier of another encoder; name another "
                        "folder for this evaluation")


def fill_from_checkpoints(given: Given, source: Checkpoint, ready: Optional[Checkpoint]) -> Given:
    """Fill in what the checkpoints know: of the encoder and, before it, of a ready classifier.

    Raises:
        UserError: a flag contradicts them.
    """
    if ready:  # the encoder's data set may be another one
        names = ("class_num",) if "dataset_name" in given.chosen else ("class_num", "dataset_name")
        given = given.adopt({name: ready.info[name] for name in names}, str(ready.path))
    return labelled.fill_from_encoder(given, source)


def resolve(given: Given, ready: Optional[Checkpoint], train: Optional[Images], test: Images) -> EvalSettings:
    """Return the settings, when the images are known.

    Raises:
        UserError: the classes do not fit, or there are too few images for a protocol.
    """
    known = tuple(ready.info["classes"]) if ready else train.classes
    settings = given.resolved(
        class_num=labelled.class_count(given["class_num"], known, test, given["dataset_name"]))
    if "lbfgs" in settings.protocols:
        hold_out(train.labels, settings.seed)
    return settings


def begin(settings: EvalSettings, run: Run) -> None:
    """Begin in the run's folder, without the epochs of a linear classifier that was ended before it had a result."""
    run.begin(values_of(settings), EVALUATION)
    _drop_unfinished(run)


def _drop_unfinished(run: Run, quiet: bool = False) -> None:
    """Drop the epochs of linear classifiers that no result comes after; ``quiet`` as for ``records.read``."""
    if not run.process.is_first or not run.layout.records.exists():
        return
    found = records.read(run.layout.records, quiet)
    kept: List[Record] = []
    with_result = set()
    for record in reversed(found):
        if record.get("protocol_id") == LINEAR_SGD:
            with_result.add(record.get("seed"))
        if record["kind"] != records.CLASSIFIER_EPOCH or record.get("seed") in with_result:
            kept.append(record)
    if len(kept) < len(found):
        with writing("train_output_path", run.layout.records):
            records.rewrite(run.layout.records, reversed(kept))


def once(run: Run) -> Sink:
    """Return what adds the results of an evaluation to a run's records, each once.

    One that is the last of its kind, protocol and seed, to the last digit, is not added again, nor are the epochs of
    its classifier: an evaluation that was ended before its end, and is done again, leaves what it leaves when nothing
    befalls it.
    """
    def key(record: Record) -> Tuple[Any, ...]:
        return record["kind"], record.get("protocol"), record.get("seed")

    there = records.read(run.layout.records, quiet=True) if run.layout.records.exists() else []
    last = {key(record): record for record in there}

    def add(record: Record) -> None:
        if json.loads(json.dumps(record)) == last.get(key(record)):
            logger.info("%s has this result already, the same", run.layout.records)
            _drop_unfinished(run, quiet=True)
        else:
            run.records.add(record)

    return add


def describe(settings: EvalSettings, source: Checkpoint, features: int, train: Optional[Images], test: Images) -> None:
    """Log what is about to be done; without training images a given classifier is tested."""
    ways = {"sgd": f"a linear classifier ({settings.epoch_size} epochs of Adam)",
            "lbfgs": "logistic regression by L-BFGS", "knn": "nearest neighbours"}
    how = " and ".join(ways[protocol] for protocol in settings.protocols)
    of_train = f"{how} on representations of {len(train.labels):,} images" if train else "a given classifier"
    seeds = f", with {settings.repeat} seeds" if settings.repeat > 1 else ""
    logger.info("about to evaluate an encoder on %s: %s, tested on %s images%s", settings.dataset_name, of_train,
                f"{len(test.labels):,}", seeds)
    logger.info("encoder: %s, width x %g, %d features, %s, from %s", settings.encoder, settings.width_multiplier,
                features, checkpoint.after(source.info["epoch"]), source.path)


def classify(settings: EvalSettings, seed: int, ready: Optional[Checkpoint], train: Optional[Split], test: Split,
             info: Dict[str, Any], run: Run) -> Outcome:
    """Classify by a linear classifier: one that is ``ready``, or one that is trained here; the first seed's is kept."""
    if ready:
        linear, how = linear_sgd.build(ready), "given classifier"
    else:
        linear, how = LinearClassifier(info["features"], settings.class_num), f"{settings.epoch_size} epochs"
        series = run.layout.classifiers
        earlier = series.files()

        def save(epoch: int) -> None:
            if seed == settings.seed and (epoch % settings.save_checkpoint_epochs == 0
                                          or epoch == settings.epoch_size):
                with writing("train_output_path", series.folder):
                    run.flush_records()
                    checkpoint.save_epoch(series, epoch, linear.get_parameters(), info, settings.keep_checkpoint_max,
                                          earlier)
                earlier.clear()

        linear_sgd.train(linear, train, settings.epoch_size, settings.batch_size, settings.learning_rate, seed,
                         run.records.add, save, settings.print_iter)
    return Outcome(LINEAR_EVAL, LINEAR_SGD, f"{linear_sgd.PROTOCOL}, {how}", linear(Tensor(test.features)).asnumpy())

"""Evaluation of a frozen encoder by what its representations tell of the classes (paper, section 4.1)."""
import dataclasses
import importlib
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Tuple

from mindspore import Tensor

from src import dataset
from src.common.errors import UserError
from src.common.logs import logger
from src.data.images import Images
from src.distributed.collectives import broadcast, share, together
from src.distributed.process_group import Process
from src.evaluation import features
from src.evaluation.classifier import PREFIX, PROTOCOL, build_classifier, info_of, load_classifier, train_classifier
from src.evaluation.features import Split
from src.evaluation.protocols import hold_out, logistic_regression, nearest_neighbours
from src.evaluation.results import Outcome, load_test, load_train, report_all, resolve, resolve_classes
from src.run import checkpoint, staging
from src.run.checkpoint import Checkpoint
from src.run.folder import CLASSIFIERS, RunFolder
from src.settings.encoder_flags import EvalConfig
from src.settings.parsing import adopt
from src.simclr_model import LinearClassifier, encoder_of


def check_place(folder: Path, encoder_digest: str) -> None:
    """Raise UserError where a new classifier would replace one of another encoder."""
    there = checkpoint.of_epochs(folder, PREFIX)
    if there and checkpoint.load(str(there[-1]), PREFIX, "train_output_path").info["encoder_digest"] != encoder_digest:
        raise UserError(f"--train_output_path: {folder} holds the classifier of another encoder; name another folder "
                        "for this evaluation")


def find_start(config: EvalConfig, process: Process) -> Tuple[Checkpoint, str, Optional[Checkpoint]]:
    """Return the encoder's checkpoint, its digest, and the given classifier; rank 0 alone reads them.

    Raises:
        UserError: there are none, they do not belong together, or the folder is another encoder's.
    """
    source = digest = given = None
    with together(process):
        if process.is_first:
            if config.run_cloudbrain:
                staging.fetch_run(config.train_url, Path(config.train_output_path))
            source = checkpoint.load(config.encoder_checkpoint_path, "simclr", "encoder_checkpoint_path")
            digest = checkpoint.digest(source.path)
            if config.pre_classifier_checkpoint_path:
                given = load_classifier(config.pre_classifier_checkpoint_path, "pre_classifier_checkpoint_path", source,
                                        digest)
            elif "sgd" in config.protocols:
                check_place(Path(config.train_output_path) / CLASSIFIERS, digest)
    return checkpoint.shared(source, process), share(digest, process), checkpoint.shared(given, process)


def evaluate(config: EvalConfig, process: Process) -> None:
    """Evaluate an encoder and write accuracies and confusion matrices into the run's folder.

    All ranks encode their share of the images; rank 0 does the rest.

    Raises:
        UserError: data, checkpoints or folder are not what the settings say.
        ModuleNotFoundError: a package that the protocol needs is not installed.
    """
    if "lbfgs" in config.protocols:
        importlib.import_module("sklearn.linear_model")  # its absence is found out now, before the work
    source, digest, given = find_start(config, process)
    with together(process):
        if given and config.dataset_name is None:  # the encoder's may be that of its normalisation
            config = adopt(config, given.info, ("dataset_name",), str(given.path))
        config = adopt(resolve(config, source), source.info["settings"], ("projection_dimension",), str(source.path))
        config = dataclasses.replace(config, device_num=process.world_size)
        if given:
            config = adopt(config, given.info, ("class_num",), str(given.path))
        if config.run_cloudbrain:
            staging.stage_in(config.data_url, dataset.folder_of(config.dataset_name, config.train_dataset_path))
        train, test = None if given else load_train(config), load_test(config)
        # Checkpoints of before there were data sets with classes of their own do not say them.
        config = resolve_classes(config, tuple(given.info.get("classes", test.classes)) if given else train.classes,
                                 test)
        if "lbfgs" in config.protocols:
            hold_out(train.labels, config.seed)  # whether there are images enough, before the work
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
        return Split(rows, images.labels, images.classes)

    with staging.synced(folder.path, config.train_url if process.is_first else None):
        train_split = None if given else represent(train, "train")
        test_split = represent(test, "test")
        with together(process):  # the other ranks wait for rank 0
            if process.is_first:
                judge(config, source, digest, given, train_split, test_split, folder)


def judge(config: EvalConfig, source: Checkpoint, digest: str, given: Optional[Checkpoint], train: Optional[Split],
          test: Split, folder: RunFolder) -> None:
    """Evaluate by every protocol and with every seed that was asked for, and sum up."""
    about = {"dataset": config.dataset_name, "encoder_checkpoint": str(source.path),
             "encoder_epoch": source.info["epoch"]}
    info = info_of(config, test.rows.shape[1], test.classes, digest, source.info["epoch"])
    report_all(outcomes(config, given, train, test, folder, info), test.labels, test.classes, about, folder)


def outcomes(config: EvalConfig, given: Optional[Checkpoint], train: Optional[Split], test: Split, folder: RunFolder,
             info: Dict[str, Any]) -> Iterator[Tuple[int, Outcome]]:
    """Yield every seed's outcome of every protocol that was asked for."""
    for name in config.protocols:
        for seed in config.seeds_of(name):
            if name == "sgd":
                yield seed, linear_classifier(config, seed, given, train, test, folder, info)
            elif name == "lbfgs":
                yield seed, logistic_regression(train, test.rows, config.class_num, seed)
            else:
                yield seed, nearest_neighbours(train, test.rows, config.class_num)


def linear_classifier(config: EvalConfig, seed: int, given: Optional[Checkpoint], train: Optional[Split], test: Split,
                      folder: RunFolder, info: Dict[str, Any]) -> Outcome:
    """Classify by the given classifier, or by one that is trained here; the first seed's is kept."""
    if given:
        classifier, trained = build_classifier(given), "given classifier"
    else:
        classifier, trained = LinearClassifier(info["features"], config.class_num), f"{config.epoch_size} epochs"
        train_classifier(classifier, train, dataclasses.replace(config, seed=seed), folder,
                         info if seed == config.seed else None)
    classifier.set_train(False)
    return Outcome("linear_eval", f"{PROTOCOL}, {trained}", classifier(Tensor(test.rows)).asnumpy(), {})

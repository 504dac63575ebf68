"""Evaluation of a frozen encoder by what its representations tell of the classes (paper, section 4.1)."""
import dataclasses
import importlib
import statistics
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import mindspore as ms
from mindspore import Tensor

from src import checkpoint, cloud, dataset, features
from src.checkpoint import Checkpoint
from src.collective import broadcast, share, together
from src.config import adopt
from src.errors import UserError
from src.evaluation_protocols import Outcome, hold_out, logistic_regression, nearest_neighbours
from src.features import Split
from src.flags import EvalConfig
from src.images import Images
from src.linear_classifier import PREFIX, PROTOCOL, build_classifier, load_classifier, train_classifier
from src.logs import logger
from src.metrics import classification_metrics, wilson_interval
from src.process_group import Process
from src.run_folder import CLASSIFIERS, RunFolder
from src.simclr_model import LinearClassifier, encoder_of


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


def check_place(folder: Path, encoder_digest: str) -> None:
    """Raise UserError where a new classifier would replace one of another encoder."""
    there = checkpoint.of_epochs(folder, PREFIX)
    if there and checkpoint.load(str(there[-1]), PREFIX, "train_output_path").info["encoder_digest"] != encoder_digest:
        raise UserError(f"--train_output_path: {folder} holds the classifier of another encoder; name another folder "
                        "for this evaluation")


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
        config = dataclasses.replace(resolve(config, source, given), device_num=process.world_size)
        if config.run_cloudbrain:
            cloud.stage_in(config.data_url, dataset.folder_of(config.dataset_name, config.train_dataset_path))
        train, test = load_images(config)
        config = resolve_classes(config, train, test, given)
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

    with cloud.synced(folder.path, config.train_url if process.is_first else None):
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
    info = {"kind": "linear_classifier", "class_num": config.class_num, "features": test.rows.shape[1],
            "dataset_name": config.dataset_name, "classes": test.classes, "encoder_digest": digest,
            "encoder_epoch": source.info["epoch"], "mindspore": ms.__version__}
    accuracies: Dict[str, Dict[int, float]] = {}
    for seed, outcome in outcomes(config, given, train, test, folder, info):
        accuracy = report(outcome, seed, test, config, about, folder)
        accuracies.setdefault(outcome.protocol, {})[seed] = accuracy
    summarise(accuracies, len(test.labels), about, folder)


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


def report(outcome: Outcome, seed: int, test: Split, config: EvalConfig, about: Dict[str, Any],
           folder: RunFolder) -> float:
    """Judge every test image once, log the accuracy, add everything to metrics.jsonl and return the accuracy."""
    names = test.classes + tuple(f"class {index}" for index in range(len(test.classes), config.class_num))
    result = classification_metrics(outcome.scores, test.labels, names)
    folder.add_metrics({"kind": outcome.kind, "protocol": outcome.protocol, **about, "seed": seed, **outcome.details,
                        **result})
    for name, accuracy in result["class_accuracy"].items():
        logger.info("  %-12s %s", name, "no images" if accuracy is None else f"{100 * accuracy:.2f} %")
    logger.info("top-1 %.3f %%, top-5 %.3f %% of %d test images", 100 * result["accuracy"],
                100 * result["top5_accuracy"], result["images"])
    return result["accuracy"]


def summarise(accuracies: Dict[str, Dict[int, float]], images: int, about: Dict[str, Any], folder: RunFolder) -> None:
    """Log the table of all protocols, with ``accuracies`` by protocol and seed, and record what was repeated.

    The interval is for the mean accuracy, and the deviation is that of a sample (divided by N - 1).
    """
    means: List[float] = []
    logger.info("%-10s  %-18s  %-18s  %s", "accuracy", "95 % interval", "over seeds", "protocol")
    for protocol, by_seed in accuracies.items():
        values, spread = list(by_seed.values()), ""
        means.append(statistics.fmean(values))
        interval = wilson_interval(means[-1], images)
        if len(values) > 1:
            deviation = statistics.stdev(values)
            spread = f"+- {100 * deviation:.3f} % of {len(values)}"
            folder.add_metrics({"kind": "repeated_eval", "protocol": protocol, **about, "seeds": list(by_seed),
                                "accuracies": values, "accuracy_mean": means[-1], "accuracy_std": deviation,
                                "accuracy_interval": interval, "images": images})
        logger.info("%-10s  %-18s  %-18s  %s", f"{100 * means[-1]:.3f} %",
                    f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f} %", spread, protocol)
    logger.info("Average accuracy: {'Accuracy': %s}", round(means[0], 7))

"""Evaluate an encoder with a linear classifier on its frozen representations.

    python linear_eval.py --encoder_checkpoint_path outputs/checkpoint/latest --train_dataset_path /data/cifar10
"""
import sys

from src.common.script import status_of
from src.run.preparing import prepare
from src.settings.given import values_of
from src.settings.parsing import parse
from src.settings.scripts import EvalSettings


def main() -> None:
    given = parse(EvalSettings, description=__doc__)
    process = prepare(given)

    # MindSpore reads the environment when it is imported, so these imports come after prepare() has set it.
    from src.evaluation import beginning
    from src.evaluation.features import Split, cached
    from src.run.folder import open_run
    from src.run.layout import EVALUATION
    from src.training.following import follow, show

    with open_run(given["train_output_path"], process, given["train_url"]) as run:
        start = beginning.begin(given, run)
        settings, encoder = start.settings, start.encoder
        with run.together():  # an error of one rank ends all
            run.begin(values_of(settings), EVALUATION)
            follow(run, settings.report, settings.tensorboard)
        run.broadcast(encoder.get_parameters())

        # Images -> representations h. Every rank encodes a part of them, and rank 0 gets all.
        def represent(images, split: str) -> Split:
            rows = cached(run.layout.features, encoder, start.digest, images.pixels, settings.batch_size, split,
                          process)
            return Split(rows, images.labels, images.classes)

        train = represent(start.train, "train") if start.train else None
        test = represent(start.test, "test")
        if process.is_first:  # classifiers need no other rank
            evaluate(start, train, test, run)
            show(run, settings.report, train, start.train, test, start.test)  # last, for the map takes its time


def evaluate(start, train, test, run) -> None:
    """Classify the test images' representations by every protocol and with every seed, and record the results."""
    from src.evaluation import linear_sgd
    from src.evaluation.knn import nearest_neighbours
    from src.evaluation.linear_lbfgs import logistic_regression
    from src.evaluation.results import Results

    settings, source = start.settings, start.source
    info = linear_sgd.info_of(settings.class_num, start.encoder.features, settings.dataset_name, test.classes,
                              start.digest, source.info["epoch"])
    save = linear_sgd.saver(run.layout.classifiers, info, settings.save_checkpoint_epochs, settings.epoch_size,
                            settings.keep_checkpoint_max, run.flush_records)
    common = {"dataset": settings.dataset_name, "encoder_checkpoint": str(source.path),
              "encoder_epoch": source.info["epoch"]}
    results = Results(test.labels, test.classes, common, run.records.add)
    for protocol in settings.protocols:
        for seed in settings.seeds[:1] if protocol == "knn" else settings.seeds:  # nothing in kNN is random
            if protocol == "knn":
                outcome = nearest_neighbours(train, test.features, settings.class_num)
            elif protocol == "lbfgs":
                outcome = logistic_regression(train, test.features, settings.class_num, seed)
            elif start.classifier:
                classifier = linear_sgd.build(start.classifier)
                outcome = linear_sgd.outcome_of(classifier, test.features, "given classifier")
            else:
                classifier = linear_sgd.train(
                    train, settings.class_num, settings.epoch_size, settings.batch_size, settings.learning_rate, seed,
                    run.records.add, save if seed == settings.seed else None, settings.print_iter)
                outcome = linear_sgd.outcome_of(classifier, test.features, f"{settings.epoch_size} epochs")
            results.add(seed, outcome)
    results.summarise()


if __name__ == "__main__":
    sys.exit(status_of(main))

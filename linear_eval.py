"""Evaluate an encoder with a linear classifier on its frozen representations.

    python linear_eval.py --encoder_checkpoint_path outputs/checkpoint/latest --train_dataset_path /data/cifar10
"""
import sys

from src.common.script import status_of
from src.run.preparing import prepare
from src.settings.parsing import parse
from src.settings.scripts import EvalSettings


def main() -> None:
    given = parse(EvalSettings, description=__doc__)
    process = prepare(given)

    # MindSpore reads the environment while it is imported, so what imports it comes when that is prepared.
    from src.evaluation import beginning, labelled
    from src.evaluation.features import Split, cached
    from src.evaluation.knn import nearest_neighbours
    from src.evaluation.linear_lbfgs import logistic_regression
    from src.evaluation.linear_sgd import info_of
    from src.evaluation.results import Results
    from src.run import inputs
    from src.run.folder import open_run
    from src.training.following import follow, show

    beginning.check_packages(given)
    with open_run(given["train_output_path"], process, given["train_url"]) as run:
        source, digest, ready = beginning.find_start(given, run)
        with run.together():  # what fails on one rank ends all
            given = beginning.fill_from_checkpoints(given, source, ready)
            inputs.stage(given["data_url"], given["dataset_name"], given["train_dataset_path"])
            train_images = None if ready else labelled.load_train(given)
            test_images = labelled.load_test(given)
            settings = beginning.resolve(given, ready, train_images, test_images)
            encoder = labelled.load_encoder(source, process)
            beginning.begin(settings, run)
            follow(run, settings.report, settings.tensorboard)
        run.broadcast(encoder.get_parameters())
        beginning.describe(settings, source, encoder.features, train_images, test_images)

        # Images -> representations h, each rank its share of them.
        def represent(images, split: str) -> Split:
            rows = cached(run.layout.features, encoder, digest, images.pixels, settings.batch_size, split, process)
            return Split(rows, images.labels, images.classes)

        train = None if ready else represent(train_images, "train")
        test = represent(test_images, "test")
        if not process.is_first:
            return  # classifiers take rank 0 alone, and nobody waits for it

        show(run, settings.report, train, train_images, test, test_images)

        # Representations -> classes, by every protocol and with every seed that was asked for.
        about = {"dataset": settings.dataset_name, "encoder_checkpoint": str(source.path),
                 "encoder_epoch": source.info["epoch"]}
        info = info_of(settings.class_num, encoder.features, settings.dataset_name, test.classes, digest,
                       source.info["epoch"])
        results = Results(test.labels, test.classes, about, beginning.once(run))
        for protocol in settings.protocols:
            for seed in settings.seeds_of(protocol):
                if protocol == "knn":
                    outcome = nearest_neighbours(train, test.features, settings.class_num)
                elif protocol == "lbfgs":
                    outcome = logistic_regression(train, test.features, settings.class_num, seed)
                else:
                    outcome = beginning.classify(settings, seed, ready, train, test, info, run)
                results.add(seed, outcome)
        results.summarise()


if __name__ == "__main__":
    sys.exit(status_of(main))

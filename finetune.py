"""Fine-tune a whole network with labels, all of them or few, or train it from random weights for comparison.

    python finetune.py --encoder_checkpoint_path outputs/checkpoint/latest --train_dataset_path /data/cifar10
"""
import sys

from src.common.script import status_of
from src.run.preparing import prepare
from src.settings.given import values_of
from src.settings.parsing import parse
from src.settings.scripts import FinetuneSettings


def main() -> None:
    given = parse(FinetuneSettings, description=__doc__)
    process = prepare(given)

    # MindSpore reads the environment while it is imported, so what imports it comes when that is prepared.
    import mindspore

    from src.data.views import LabelledViews
    from src.evaluation import labelled
    from src.evaluation.results import Results
    from src.layers.encoder_layers import encoder_layers
    from src.lr_generator import learning_rates
    from src.optimizer import build_optimizer
    from src.resnet import build_encoder
    from src.run import inputs
    from src.run.folder import open_run
    from src.run.layout import FINE_TUNING
    from src.simclr_model import CrossEntropy, ImageClassifier, LinearClassifier
    from src.training import fine_tuning
    from src.training.following import follow
    from src.training.loop import learner_of, train

    with open_run(given["train_output_path"], process, given["train_url"]) as run:
        source = run.read(lambda: labelled.read_encoder(given, run))
        with run.together():  # what fails on one rank ends all
            given = fine_tuning.fill_from_checkpoint(given, source, process.world_size)
            labelled.load_encoder(source, process)  # whether it fits is found out now, before the work
            inputs.stage(given["data_url"], given["dataset_name"], given["train_dataset_path"])
            images, test = labelled.load_train(given), labelled.load_test(given)
            settings = given.resolved(class_num=labelled.class_count(
                given["class_num"], images.classes, test, given["dataset_name"]))
            subsets = fine_tuning.draw_labels(settings, images, process.world_size)
        fingerprints = {"data": inputs.check_same(images.pixels, run, "train_dataset_path", "training"),
                        "test_data": inputs.check_same(test.pixels, run, "eval_dataset_path", "test")}
        training = fine_tuning.begin_or_resume(settings, source, fingerprints, run)
        with run.together():
            run.begin(values_of(settings), FINE_TUNING)
            follow(run, settings.report, settings.tensorboard)

        count = len(subsets[settings.seed])
        fine_tuning.describe(settings, source, count, test)
        about = fine_tuning.about(settings, source, fingerprints, training, count)
        layers = encoder_layers(process, settings.sync_bn, settings.amp_level)
        protocol = fine_tuning.protocol_of(settings, count, len(images.classes), process.world_size, layers.precision)
        results = Results(test.labels, test.classes, about, run.records.add)
        for seed, rows in subsets.items():
            if seed in training.done:
                results.recall(seed, fine_tuning.PROTOCOL_IDS[settings.initial_weights], protocol, training.done[seed])
                continue
            mindspore.set_seed(seed)
            views = LabelledViews(
                images.pixels, images.labels, batch_size=settings.batch_size,
                augmentation=fine_tuning.augmentation_of(settings), seed=seed, workers=settings.num_parallel_workers,
                rank=process.rank, world_size=process.world_size, rows=rows)
            if settings.initial_weights == "pretrained":
                encoder = labelled.load_encoder(source, process, layers)
            else:
                encoder = build_encoder(source.network, layers)
            model = ImageClassifier(encoder, LinearClassifier(encoder.features, settings.class_num))
            rates = learning_rates("cosine", settings.learning_rate, settings.epoch_size, len(views))
            optimizer = build_optimizer("SGD", model.trainable_params(), rates, settings.weight_decay)
            learner = learner_of(model, CrossEntropy(), optimizer, rates, layers.float16_level,
                                 process.world_size, layers.gradient_norm())
            with run.together():
                details = fine_tuning.write_labels(settings, seed, rows, about, run)
            run.broadcast(learner.state())
            train(learner, views, 0, settings.epoch_size, fine_tuning.callbacks(
                settings, learner, model, len(views), seed, training, run), process.device_target)
            outcome = fine_tuning.test_outcome(model, settings, test, protocol, details, run)
            with run.together():
                if process.is_first:
                    if seed == settings.seed:
                        fine_tuning.keep(model, settings, source, test, run)
                    results.add(seed, outcome)
            run.sync()
        if process.is_first:
            results.summarise()


if __name__ == "__main__":
    sys.exit(status_of(main))

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

    # MindSpore reads the environment when it is imported, so these imports come after prepare() has set it.
    from src.evaluation import labelled
    from src.evaluation.results import Results
    from src.layers.encoder_layers import encoder_layers
    from src.run import inputs
    from src.run.folder import open_run
    from src.run.layout import FINE_TUNING
    from src.training import fine_tuning
    from src.training.following import follow

    with open_run(given["train_output_path"], process, given["train_url"]) as run:
        source = run.read(lambda: labelled.read_encoder(given, run))
        given = inputs.choose_precision(given, process)
        with run.together():  # an error of one rank ends all
            given = fine_tuning.fill_from_checkpoint(given, source, process.world_size)
            labelled.load_encoder(source, process)  # weights that do not fit are an error now, before the work
            inputs.stage(given["data_url"], given["dataset_name"], given["train_dataset_path"])
            images, test = labelled.load_train(given), labelled.load_test(given)
            settings = given.resolved(class_num=labelled.class_count(
                given["class_num"], images.classes, test, given["dataset_name"]))
            subsets = fine_tuning.draw_labels(settings, images, process.world_size)
        data = {"data": inputs.check_same(images.pixels, run, "train_dataset_path", "training"),
                "test_data": inputs.check_same(test.pixels, run, "eval_dataset_path", "test")}
        layers, count = encoder_layers(process, settings.sync_bn, settings.amp_level), len(subsets[settings.seed])
        common = fine_tuning.common_of(settings, source, data, count, run)
        protocol = fine_tuning.protocol_of(settings, count, len(images.classes), process.world_size, layers.precision)
        finished = fine_tuning.finished_seeds(settings, common, protocol, run)
        with run.together():
            run.begin(values_of(settings), FINE_TUNING)
            follow(run, settings.report, settings.tensorboard)

        results = Results(test.labels, test.classes, common, run.records.add)
        for seed, accuracy in finished.items():  # by an earlier start, which was interrupted
            results.recall(seed, fine_tuning.PROTOCOL_IDS[settings.initial_weights], protocol, accuracy)
        for seed in (seed for seed in subsets if seed not in finished):
            model = train_with_labels(images, subsets[seed], seed, source, layers, settings, common["training"], run)
            outcome = fine_tuning.test_outcome(model, source, settings, test, protocol, run)
            with run.together():
                if process.is_first:
                    if seed == settings.seed:
                        fine_tuning.keep(model, settings, source, test, run)  # before the record that says so
                    results.add(seed, outcome)
            run.sync()
        if process.is_first:
            results.summarise()


def train_with_labels(images, rows, seed, source, layers, settings, training, run):
    """Return a network that is trained with the labels of the images ``rows``."""
    import mindspore

    from src.data.views import LabelledViews
    from src.evaluation.labelled import load_encoder
    from src.lr_generator import learning_rates
    from src.optimizer import build_optimizer
    from src.resnet import build_encoder
    from src.run.records import FINETUNE
    from src.simclr_model import CrossEntropy, ImageClassifier, LinearClassifier
    from src.training.callbacks import EpochReport, Progress
    from src.training.fine_tuning import augmentation_of
    from src.training.loop import learner_of, train

    process = run.process
    mindspore.set_seed(seed)
    # Labelled images -> random crops of them.
    views = LabelledViews(
        images.pixels, images.labels, batch_size=settings.batch_size, augmentation=augmentation_of(settings), seed=seed,
        workers=settings.num_parallel_workers, rank=process.rank, world_size=process.world_size, rows=rows)
    # Crops -> representations h -> logits.
    is_pretrained = settings.initial_weights == "pretrained"
    encoder = load_encoder(source, process, layers) if is_pretrained else build_encoder(source.network, layers)
    model = ImageClassifier(encoder, LinearClassifier(encoder.features, settings.class_num))
    # Logits and labels -> the loss -> an update of the weights.
    rates = learning_rates("cosine", settings.learning_rate, settings.epoch_size, len(views))
    optimizer = build_optimizer("SGD", model.trainable_params(), rates, settings.weight_decay)
    learner = learner_of(model, CrossEntropy(), optimizer, rates, layers.float16_level, process.world_size,
                         layers.gradient_norm())
    run.broadcast(learner.state())

    global_batch, totals = settings.batch_size * process.world_size, learner.step.totals
    callbacks = [EpochReport(
        FINETUNE, "train_accuracy", totals, model.get_parameters(), rates, global_batch,
        lambda record: run.records.add({**record, "seed": seed, "training": training}))]
    if process.is_first:
        callbacks = [Progress(totals, settings.epoch_size, global_batch), *callbacks]
    train(learner, views, 0, settings.epoch_size, callbacks, process.device_target)
    return model


if __name__ == "__main__":
    sys.exit(status_of(main))

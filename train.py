"""Pretrain an encoder with SimCLR.

    python train.py --train_dataset_path /data/cifar10 --encoder resnet18 --width_multiplier 0.25
"""
import sys

from src.common.logs import logger
from src.common.script import status_of
from src.run.preparing import prepare
from src.settings.given import values_of
from src.settings.parsing import parse
from src.settings.scripts import TrainSettings


def main() -> None:
    given = parse(TrainSettings, description=__doc__)
    process = prepare(given)

    # MindSpore reads the environment while it is imported, so what imports it comes when that is prepared.
    from src import dataset
    from src.data.views import Views
    from src.layers.encoder_layers import encoder_layers
    from src.lr_generator import learning_rates
    from src.nt_xent import NTXent
    from src.optimizer import build_optimizer
    from src.resnet import build_encoder
    from src.run import inputs
    from src.run.folder import open_run
    from src.run.layout import PRETRAINING
    from src.simclr_model import SimCLR, build_head
    from src.training import pretraining
    from src.training.following import follow, show_views
    from src.training.loop import learner_of, train

    with open_run(given["train_output_path"], process, given["train_url"]) as run:
        start = pretraining.find_start(given, run)
        with run.together():  # what fails on one rank ends all
            settings, network = pretraining.resolve(given, start, process.world_size)
            inputs.stage(settings.data_url, settings.dataset_name, settings.train_dataset_path)
            images = dataset.load(settings.dataset_name, settings.train_dataset_path, "pretrain",
                                  num_samples=settings.num_samples, download=settings.download,
                                  side=settings.image_size)
            inputs.check_apart(images, run.layout.path)
            inputs.check_batch(len(images.pixels), settings.batch_size, process.world_size)
        fingerprint = pretraining.check_same_images(images, start, run)

        # Images -> random views of each.
        views = Views(images.pixels, settings.batch_size, settings.augmentation, settings.seed,
                      settings.num_parallel_workers, process.rank, process.world_size, views_per_image=settings.views)
        # Views -> representations h -> embeddings z.
        layers = encoder_layers(process, settings.sync_bn, settings.amp_level)
        encoder = build_encoder(network, layers)
        projection_head = build_head(encoder.features, network, layers.head_norm)
        model = SimCLR(encoder, projection_head)
        # Embeddings -> the contrastive loss, with the views of all devices as negatives or with its own alone.
        if settings.cross_device_negatives:
            loss = NTXent(settings.temperature, process.rank, process.world_size, settings.views)
        else:
            loss = NTXent(settings.temperature, views_per_image=settings.views)
        # The loss -> an update of the weights.
        rates = learning_rates(settings.lr_schedule, settings.learning_rate, settings.epoch_size, len(views),
                               settings.warmup_epochs)
        rates_left = rates[settings.pretrain_epoch_size * len(views):]  # in which a resumed optimizer knows its place
        optimizer = build_optimizer(settings.optimizer, model.trainable_params(), rates_left, settings.weight_decay)
        learner = learner_of(model, loss, optimizer, rates, layers.amp_level, process.world_size,
                             layers.gradient_norm())

        with run.together():
            if process.is_first:
                start.load_into(learner, model)
            run.begin(values_of(settings), PRETRAINING)
            follow(run, settings.report, settings.tensorboard)
        run.broadcast(learner.state())
        with pretraining.saver(settings, network, learner, fingerprint, run) as save:  # beside the training
            pretraining.begin_files(start, settings, run, save)
            show_views(run, settings.report or settings.tensorboard, views)
            first_epoch = start.epoch(settings)
            if first_epoch < settings.epoch_size:
                callbacks = pretraining.callbacks(settings, learner, model, views, images, save, run)
                train(learner, views, first_epoch, settings.epoch_size, callbacks, process.device_target)
        logger.info("done, %d epochs: %s", settings.epoch_size, run.layout.checkpoints.latest)


if __name__ == "__main__":
    sys.exit(status_of(main))

"""Pretrain an encoder with SimCLR.

    python train.py --train_dataset_path /data/cifar10 --encoder resnet18 --width_multiplier 0.25
"""
import sys

from src.common.logs import logger
from src.common.script import status_of
from src.run.preparing import prepare
from src.settings.parsing import parse
from src.settings.scripts import TrainSettings


def main() -> None:
    given = parse(TrainSettings, description=__doc__)
    process = prepare(given)

    # MindSpore reads the environment when it is imported, so these imports come after prepare() has set it.
    from src.data.views import Views
    from src.layers.encoder_layers import encoder_layers
    from src.lr_generator import learning_rates
    from src.nt_xent import NTXent
    from src.optimizer import build_optimizer
    from src.resnet import build_encoder
    from src.run.folder import open_run
    from src.simclr_model import SimCLR, build_head
    from src.training import beginning
    from src.training.loop import learner_of

    with open_run(given["train_output_path"], process, given["train_url"]) as run:
        start, settings, network, images, fingerprint = beginning.begin(given, run)

        # Images -> random views of each.
        views = Views(images.pixels, settings.batch_size, settings.augmentation, settings.seed,
                      settings.num_parallel_workers, process.rank, process.world_size, views_per_image=settings.views)
        # Views -> representations h -> embeddings z. `network` describes the cells `encoder` and `model`.
        layers = encoder_layers(process, settings.sync_bn, settings.amp_level)
        encoder = build_encoder(network, layers)
        model = SimCLR(encoder, build_head(encoder.features, network, layers.head_norm))
        # Embeddings -> the contrastive loss. Negatives are the views of all devices, or those of this device alone.
        rank, world_size = (process.rank, process.world_size) if settings.cross_device_negatives else (0, 1)
        loss = NTXent(settings.temperature, rank, world_size, settings.views)
        # The loss -> an update of the weights.
        rates = learning_rates(settings.lr_schedule, settings.learning_rate, settings.epoch_size, len(views),
                               settings.warmup_epochs)
        # The optimizer counts its updates, which begin after the epochs of --pre_trained_path. A resumed run loads that
        # count, so nothing more is cut off.
        own_rates = rates[settings.pretrain_epoch_size * len(views):]
        optimizer = build_optimizer(settings.optimizer, model.trainable_params(), own_rates, settings.weight_decay)
        learner = learner_of(model, loss, optimizer, rates, layers.float16_level, process.world_size,
                             layers.gradient_norm())

        beginning.open_folder(start, settings, learner, views, run)
        info = beginning.info_of(settings, network, fingerprint, process.world_size)
        pretrain(learner, views, images, start, settings, info, run)
        logger.info("done, %d epochs: %s", settings.epoch_size, run.layout.checkpoints.latest)


def pretrain(learner, views, images, start, settings, info, run) -> None:
    """Train to the last epoch. Epochs are reported, some are measured, and rank 0 saves checkpoints."""
    from src.run.records import PRETRAIN
    from src.run.saver import Saver
    from src.training.beginning import load_test
    from src.training.callbacks import EpochReport, Progress, SaveCheckpoint
    from src.training.loop import train
    from src.training.monitor import Monitor, build_probe, trivial_loss

    process, totals, epochs_done = run.process, learner.step.totals, start.epochs_done(settings)
    # The images whose views meet in one loss, and the loss of a network that tells none of them apart.
    compared = info["global_batch"] if settings.cross_device_negatives else settings.batch_size
    trivial = trivial_loss(compared, settings.views)
    with Saver(run.layout.checkpoints, learner.state(), info, settings.keep_checkpoint_max, before=run.flush_records,
               after=run.sync) as save:
        if process.is_first and not start.resumed:
            save(epochs_done)  # the state before this run's first epoch
            save.wait()  # a folder that cannot be written is noticed now, not after the first epoch
        if epochs_done >= settings.epoch_size:
            return
        ranks = f"{process.world_size} x " if process.world_size > 1 else ""
        logger.info("about to pretrain %s on %d images of %s: %d epochs of %d steps of %s%d images in %d views; %s, "
                    "learning rate up to %g", settings.encoder, len(images.pixels), settings.dataset_name,
                    settings.epoch_size, len(views), ranks, settings.batch_size, settings.views, settings.optimizer,
                    settings.learning_rate)
        logger.info("an untrained network has a loss of about %.2f; the first step compiles the graph: seconds on a "
                    "CPU, minutes on Ascend", trivial)
        probe = build_probe(views, images, load_test(settings, run)) if settings.eval_every else None
        # In this order: the bar closes, a diverged epoch ends the run before it is measured or saved, and an epoch's
        # records are on the disk before its checkpoint.
        callbacks = [
            EpochReport(PRETRAIN, "contrastive_accuracy", totals, learner.model.get_parameters(), learner.rates,
                        info["global_batch"], run.records.add),
            Monitor(learner.model, totals, probe, settings.eval_every, settings.epoch_size, settings.batch_size,
                    trivial, settings.temperature, process, run.records.add)]
        if process.is_first:
            callbacks = [Progress(totals, settings.epoch_size, info["global_batch"]), *callbacks,
                         SaveCheckpoint(save, settings.save_checkpoint_epochs, settings.epoch_size)]
        train(learner, views, epochs_done, settings.epoch_size, callbacks, process.device_target)


if __name__ == "__main__":
    sys.exit(status_of(main))

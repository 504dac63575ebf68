"""What is trained, step by step, and the loop over the epochs: for the contrastive loss and for labels."""
from typing import Any, List, NamedTuple, Optional

import numpy as np
from mindspore import Model, Parameter, amp, nn

from src.data.augmentation import Views, to_dataset
from src.distributed.process_group import Process
from src.layers import mixed_precision
from src.training.callbacks import OverflowReport
from src.training.step import ScaledTrainStep, TrainStep


class Learner(NamedTuple):
    """Everything that a train step is made of."""

    model: nn.Cell
    optimizer: nn.Optimizer
    step: TrainStep
    rates: np.ndarray
    scaler: Optional[amp.DynamicLossScaler] = None

    def state(self) -> List[Parameter]:
        """Return all that resuming needs; the learning rates follow from the settings."""
        own = {parameter.name for parameter in self.model.get_parameters()}
        loss_scale = [self.scaler.scale_value, self.scaler.counter] if self.scaler else []
        return [*self.model.get_parameters(), *loss_scale,
                *(p for p in self.optimizer.get_parameters() if p.name not in own and p.name != "learning_rate")]


def learner_of(model: nn.Cell, loss: nn.Cell, optimizer: nn.Optimizer, rates: np.ndarray, amp_level: str,
               world_size: int) -> Learner:
    """Return the learner of ``model``, which mixed precision changes in place."""
    if amp_level == "O0":
        return Learner(model, optimizer, TrainStep(model, loss, optimizer, world_size), rates)
    scaler = mixed_precision.loss_scaler()
    step = ScaledTrainStep(mixed_precision.in_float16(model, amp_level), loss, optimizer, scaler, world_size)
    return Learner(model, optimizer, step, rates, scaler)


def train_epochs(learner: Learner, views: Views, epochs: int, callbacks: List[Any], process: Process) -> None:
    """Train from the views' next epoch to the last of ``epochs``.

    Raises:
        UserError: an image cannot be read.
        DivergedError: a callback says so.
    """
    start, sinking = views.next_epoch, process.device_target != "CPU"  # the CPU back end has no data sinking
    if learner.scaler:
        callbacks = [*callbacks, OverflowReport(learner.optimizer.global_step, learner.scaler.scale_value, start)]
    try:
        Model(learner.step).train(epochs - start, to_dataset(views, sinking), callbacks=callbacks,
                                  dataset_sink_mode=sinking)
    except RuntimeError:
        if views.error:
            raise views.error from None
        raise

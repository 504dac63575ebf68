"""What is trained, step by step, and the loop over the epochs: for the contrastive loss and for labels."""
from typing import List, NamedTuple, Optional, Sequence

import numpy as np
from mindspore import Model, Parameter, amp, nn
from mindspore.train import Callback

from src.data.views import Views, to_dataset
from src.layers import mixed_precision
from src.training.callbacks import OverflowReport
from src.training.step import ScaledTrainStep, TrainStep


class Learner(NamedTuple):
    """Everything that a train step is made of.

    ``rates`` has the learning rate of every step of the whole run, whatever part of it the optimizer was given.
    """

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


def learner_of(model: nn.Cell, loss: nn.Cell, optimizer: nn.Optimizer, rates: np.ndarray, amp_level: str = "O0",
               world_size: int = 1, gradient_norm: Optional[nn.Cell] = None) -> Learner:
    """Return the learner of ``model``, which mixed precision changes in place; ``gradient_norm`` is the layers'."""
    if amp_level == "O0":
        return Learner(model, optimizer, TrainStep(model, loss, optimizer, world_size, gradient_norm), rates)
    scaler = mixed_precision.loss_scaler()
    step = ScaledTrainStep(mixed_precision.in_float16(model, amp_level), loss, optimizer, scaler, world_size,
                           gradient_norm)
    return Learner(model, optimizer, step, rates, scaler)


class _NewTotals(Callback):
    """The step's totals are those of one epoch."""

    def __init__(self, step: TrainStep):
        super().__init__()
        self.step = step

    def on_train_epoch_begin(self, run_context):
        self.step.begin_epoch()


def train(learner: Learner, views: Views, first_epoch: int, epochs: int, callbacks: Sequence[Callback],
          device_target: str) -> None:
    """Train from ``first_epoch``, counted from 0, to the last of ``epochs``.

    The callbacks see the epochs by their number in the whole run, from 1.

    Raises:
        UserError: an image cannot be read.
        DivergedError: a callback says so.
    """
    sinking = device_target != "CPU"  # the CPU back end has no data sinking
    overflows = [OverflowReport(learner.optimizer.global_step, learner.scaler.scale_value)] if learner.scaler else []
    learner.step.set_train()
    try:
        Model(learner.step).train(epochs, to_dataset(views, first_epoch, sinking), dataset_sink_mode=sinking,
                                  callbacks=[_NewTotals(learner.step), *callbacks, *overflows],
                                  initial_epoch=first_epoch)
    except RuntimeError:
        if views.error:
            raise views.error from None
        raise

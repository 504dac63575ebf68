"""The loop over epochs and steps, for the contrastive loss and for training with labels."""
from typing import List, NamedTuple, Optional, Sequence

import numpy as np
from mindspore import Model, Parameter, amp, nn
from mindspore.train import Callback

from src.common.logs import logger
from src.data.views import Views, to_dataset
from src.layers import mixed_precision
from src.training.callbacks import OverflowReport
from src.training.step import ScaledTrainStep, TrainStep


class Learner(NamedTuple):
    """A train step and its parts.

    ``rates`` holds the learning rate of every step of the run, also of those before the optimizer's first.
    """

    model: nn.Cell
    optimizer: nn.Optimizer
    step: TrainStep
    rates: np.ndarray
    scaler: Optional[amp.DynamicLossScaler] = None

    def state(self) -> List[Parameter]:
        """Return all parameters that resuming needs; the learning rates follow from the settings."""
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
    logger.info("mixed precision %s, loss scale %g", amp_level, scaler.scale_value.asnumpy())
    step = ScaledTrainStep(mixed_precision.in_float16(model, amp_level), loss, optimizer, scaler, world_size,
                           gradient_norm)
    return Learner(model, optimizer, step, rates, scaler)


class _NewTotals(Callback):
    """Sets the step's totals to zero before every epoch."""

    def __init__(self, step: TrainStep):
        super().__init__()
        self.step = step

    def on_train_epoch_begin(self, run_context):
        self.step.begin_epoch()


def train(learner: Learner, views: Views, epochs_done: int, epochs: int, callbacks: Sequence[Callback],
          device_target: str) -> None:
    """Go on after ``epochs_done`` epochs until ``epochs`` are done; callbacks count the epochs from 1.

    Raises a UserError where an image cannot be read, and a DivergedError where a callback has found a loss or a weight
    that is not finite.
    """
    sinking = device_target != "CPU"  # the CPU back end has no data sinking
    overflows = [OverflowReport(learner.optimizer.global_step, learner.scaler.scale_value)] if learner.scaler else []
    learner.step.set_train()
    try:
        # OverflowReport may raise after the epoch was saved: where every step overflowed, no weight has changed.
        Model(learner.step).train(epochs, to_dataset(views, epochs_done, sinking), dataset_sink_mode=sinking,
                                  callbacks=[_NewTotals(learner.step), *callbacks, *overflows],
                                  initial_epoch=epochs_done)
    except RuntimeError:
        if views.error:  # MindSpore has replaced it by an error of its own
            raise views.error from None
        raise

"""One step of training."""
from typing import NamedTuple, Optional

import numpy as np
from mindspore import Parameter, Tensor, amp, nn, ops
from mindspore import dtype as mstype

from src.distributed.collectives import MeanOverRanks, SumOfEach
from src.layers.encoder_layers import GradientNorm
from src.optimizer import Optimizer


class Totals(NamedTuple):
    """Sums over the steps of an epoch so far."""

    loss: float
    accuracy: float       # as the loss function gives it
    finite: float         # the number of steps before the first loss that is not finite
    gradient_norm: float  # of all gradients as one vector, over the steps with an update
    updates: float        # the number of steps with an update: those without an overflow


class TrainStep(nn.Cell):
    """Views (N, 3, side, side), uint8 -> the loss of the global batch; each call updates the weights once.

    Or images (B, 3, side, side) and labels (B,): further inputs go to ``loss``, after the network's output.
    ``totals`` holds the sums of ``Totals`` since ``begin_epoch``, on the device. On several devices (``world_size``)
    the gradients are averaged by all-reduces, and every rank has the loss and the totals of the global batch.
    """

    def __init__(self, model: nn.Cell, loss: nn.Cell, optimizer: Optimizer, world_size: int = 1,
                 gradient_norm: Optional[nn.Cell] = None):
        super().__init__(auto_prefix=False)  # parameter names stay the model's own
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.totals = Parameter(Tensor(np.zeros(len(Totals._fields), np.float32)), name="totals", requires_grad=False)
        self.one = Tensor(np.ones(1, np.float32))
        self.gradient_norm = gradient_norm or GradientNorm()
        self.value_and_grad = ops.value_and_grad(self.forward, None, optimizer.parameters, has_aux=True)
        self.share = 1 / world_size  # scales the loss, and so the gradients: their sum over ranks is then the mean
        self.average, self.sum_gradients = nn.Identity(), nn.Identity()
        if world_size > 1:
            self.average, self.sum_gradients = MeanOverRanks(world_size), SumOfEach()

    def begin_epoch(self) -> None:
        """Set the totals to zero."""
        self.totals.set_data(Tensor(np.zeros(len(Totals._fields), np.float32)))

    def forward(self, images, *labels):
        loss, accuracy = self.loss(self.model(images), *labels)
        return self.scaled(loss), loss, accuracy

    def scaled(self, loss):
        """Return the loss that is differentiated."""
        return self.share * loss

    def construct(self, images, *labels):
        (_, loss, accuracy), gradients = self.value_and_grad(images, *labels)
        gradients = self.sum_gradients(gradients)
        norm = self.gradient_norm(gradients).reshape(1)
        measured = self.average(ops.stack([loss, accuracy]))
        loss = ops.depend(measured[0], self.optimizer(gradients))
        return ops.depend(loss, self.add_up(measured, norm, self.one))

    def add_up(self, measured, norm, updates):
        """Add a step's loss and accuracy (2,), gradient norm (1,) and number of updates (1,), 0 or 1, to the totals."""
        # The sum of losses stays NaN or infinite once it is, so no later step counts as finite.
        finite = ops.isfinite(self.totals[:1] + measured[:1]).astype(mstype.float32)
        return ops.assign_add(self.totals, ops.concat([measured, finite, norm, updates]))


class ScaledTrainStep(TrainStep):
    """A train step for a network in float16, whose small gradients would vanish.

    The loss is scaled up before the gradients are computed, and they are scaled down before the update. After an
    overflow there is no update: ``scaler`` halves the scale, and weights, optimizer, its count of steps and with it the
    learning rate stay as they are.
    """

    # No branch skips the update; the optimizer gets a factor of 0. A branch would make the host wait for the device in
    # every step, and on Ascend it does not compile where few cores are visible.


    def __init__(self, model: nn.Cell, loss: nn.Cell, optimizer: Optimizer, scaler: amp.LossScaler,
                 world_size: int = 1, gradient_norm: Optional[nn.Cell] = None):
        super().__init__(model, loss, optimizer, world_size, gradient_norm)
        self.multiply = ops.MulNoNan()  # 0 whatever is multiplied by 0
        self.scaler = scaler

    def scaled(self, loss):
        return self.scaler.scale(loss)

    def construct(self, images, *labels):
        (_, loss, accuracy), gradients = self.value_and_grad(images, *labels)
        gradients = self.sum_gradients(gradients)
        # An Ascend in saturation mode notices only its own overflows, so the ranks share them.
        overflow = 1 - amp.all_finite(gradients).astype(mstype.float32)
        measured = self.average(ops.stack([loss, accuracy, overflow]))
        finite = ops.equal(measured[2], 0)
        factor = self.share * finite.astype(mstype.float32) / self.scaler.scale_value
        loss = ops.depend(measured[0], self.optimizer(gradients, factor))
        norm = self.multiply(self.gradient_norm(gradients).reshape(1), factor.reshape(1))
        loss = ops.depend(loss, self.scaler.adjust(finite))
        return ops.depend(loss, self.add_up(measured[:2], norm, finite.astype(mstype.float32).reshape(1)))

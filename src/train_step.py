"""One step of pretraining."""
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.nt_xent import NTXent
from src.simclr_model import SimCLR


class TrainStep(nn.Cell):
    """Views (2B, 3, side, side), uint8 -> loss; one update of the weights.

    ``totals`` sums loss and contrastive accuracy up on the device until somebody sets it to zero.
    """

    def __init__(self, model: SimCLR, loss: NTXent, optimizer: nn.Optimizer):
        super().__init__(auto_prefix=False)  # parameter names stay the model's own
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.totals = Parameter(Tensor(np.zeros(2, np.float32)), name="totals", requires_grad=False)
        self.value_and_grad = ops.value_and_grad(self.forward, None, optimizer.parameters, has_aux=True)

    def forward(self, views):
        return self.loss(self.model(views))

    def construct(self, views):
        (loss, accuracy), gradients = self.value_and_grad(views)
        loss = ops.depend(loss, self.optimizer(gradients))
        return ops.depend(loss, ops.assign_add(self.totals, ops.stack([loss, accuracy])))

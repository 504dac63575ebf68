"""One of two ranks in mixed precision, and what it finds; tests/test_mixed_precision.py starts it.

The only argument is the beginning of the name of the file to write.
"""
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.distributed import environment  # noqa: E402

process = environment.prepare("CPU", 0, distributed=True)

import numpy as np  # noqa: E402
from mindspore import Parameter, Tensor, nn  # noqa: E402
from small_network import SmallNetwork  # noqa: E402

from src.distributed.collectives import broadcast  # noqa: E402
from src.layers.batch_norm import batch_norm  # noqa: E402
from src.layers.mixed_precision import in_float16, loss_scaler  # noqa: E402
from src.nt_xent import NTXent  # noqa: E402
from src.optimizer import build_optimizer  # noqa: E402
from src.training.step import ScaledTrainStep  # noqa: E402


class Steep(nn.Cell):
    """Outputs z -> a loss whose gradient is ``slope``, and an accuracy."""

    def __init__(self):
        super().__init__()
        self.slope = Parameter(Tensor(np.array(1, np.float32)), name="slope", requires_grad=False)

    def construct(self, z):
        return (z * self.slope).sum(), z.sum()


def overflow_on_one_rank():
    """Rank 1 alone overflows, in the second of three steps: weight, scale and updates after each."""
    model, loss, scaler = nn.Dense(1, 1, weight_init="ones", has_bias=False), Steep(), loss_scaler()
    parameters = [*model.trainable_params(), Parameter(Tensor(np.zeros(1, np.float32)), name="unused")]
    optimizer = build_optimizer("SGD", parameters, np.full(3, 0.25, np.float32), 0.0)
    step = ScaledTrainStep(model, loss, optimizer, scaler, process.world_size)
    found = []
    for slope in (1, 1e38 if process.rank else 1, 1):  # 1e38 x 2^16 is infinite
        loss.slope.set_data(Tensor(np.array(slope, np.float32)))
        step(Tensor(np.ones((1, 1), np.float32)))
        found.append([float(model.weight.asnumpy()[0, 0]), float(scaler.scale_value.asnumpy()),
                      int(optimizer.global_step.asnumpy()[0])])
    return found


def losses(level):
    """The losses of 5 updates with global batch norm, on images and weights that depend on the rank alone."""
    model = SmallNetwork(batch_norm(True, process))
    rng = np.random.default_rng(0)
    for parameter in model.trainable_params():
        if parameter.ndim > 1:
            fan_in = parameter.size // parameter.shape[0]
            parameter.set_data(Tensor((rng.normal(size=parameter.shape) * (2 / fan_in) ** 0.5).astype(np.float32)))
    broadcast(model.get_parameters(), process)
    views = Tensor(np.random.default_rng(process.rank).integers(0, 256, (16, 3, 32, 32), np.uint8))
    optimizer = build_optimizer("Adam", model.trainable_params(), np.full(5, 3e-3, np.float32), 0.0)
    network = model if level == "O0" else in_float16(model, level)
    step = ScaledTrainStep(network, NTXent(8, 0.5, process.rank, 2), optimizer, loss_scaler(), 2)
    step.set_train()
    found = []
    while len(found) < 5:
        loss = float(step(views).asnumpy())
        if int(optimizer.global_step.asnumpy()[0]) > len(found):  # else the gradients overflowed
            found.append(loss)
    assert all(np.isfinite(parameter.asnumpy()).all() for parameter in model.get_parameters())
    return found


result = {"overflow": overflow_on_one_rank(), **{level: losses(level) for level in ("O0", "O2", "O3")}}
Path(f"{sys.argv[1]}{process.rank}").write_text(json.dumps(result))

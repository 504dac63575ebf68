"""One of two ranks, the second of which alone overflows, in the second of three steps: what each makes of it.

tests/test_mixed_precision.py starts it with the name of the file to write.
"""
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src import environment  # noqa: E402

process = environment.prepare("CPU", 0, distributed=True)

import numpy as np  # noqa: E402
from mindspore import Parameter, Tensor, nn  # noqa: E402

from src.mixed_precision import loss_scaler  # noqa: E402
from src.optimizer import build_optimizer  # noqa: E402
from src.train_step import ScaledTrainStep  # noqa: E402


class Steep(nn.Cell):
    """Outputs z -> a loss whose gradient is ``slope``, and an accuracy."""

    def __init__(self):
        super().__init__()
        self.slope = Parameter(Tensor(np.array(1, np.float32)), name="slope", requires_grad=False)

    def construct(self, z):
        return (z * self.slope).sum(), z.sum()


model, loss, scaler = nn.Dense(1, 1, weight_init="ones", has_bias=False), Steep(), loss_scaler()
optimizer = build_optimizer("SGD", model.trainable_params(), np.full(3, 0.25, np.float32), 0.0)
step = ScaledTrainStep(model, loss, optimizer, scaler, process.world_size)
found = []
for slope in (1, 1e38 if process.rank else 1, 1):  # 1e38 x 2^16 is infinite
    loss.slope.set_data(Tensor(np.array(slope, np.float32)))
    step(Tensor(np.ones((1, 1), np.float32)))
    found.append([float(model.weight.asnumpy()[0, 0]), float(scaler.scale_value.asnumpy()),
                  int(optimizer.global_step.asnumpy()[0])])
Path(f"{sys.argv[1]}{process.rank}").write_text(json.dumps(found))

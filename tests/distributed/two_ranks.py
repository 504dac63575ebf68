"""One of two ranks, and what it finds without a script of the project; test_two_ranks.py starts it.

The only argument is the beginning of the name of the file to write.
"""
import json
import sys
import tracemalloc
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[level]) for level in (1, 2)]

from src.device import environment  # noqa: E402

process = environment.prepare("CPU", 0, distributed=True)

import numpy as np  # noqa: E402
from mindspore import Parameter, Tensor, amp, nn, ops  # noqa: E402
from mindspore import dtype as mstype  # noqa: E402
from small_network import SmallNetwork  # noqa: E402

from src.common.errors import UserError  # noqa: E402
from src.data.images import channels_first  # noqa: E402
from src.distributed.collectives import broadcast  # noqa: E402
from src.evaluation.features import extract  # noqa: E402
from src.layers.batch_norm import batch_norm  # noqa: E402
from src.layers.mixed_precision import FIRST_SCALE, in_float16, loss_scaler  # noqa: E402
from src.nt_xent import NTXent  # noqa: E402
from src.optimizer import build_optimizer  # noqa: E402
from src.training.step import ScaledTrainStep  # noqa: E402

# --- mixed precision ---

class Steep(nn.Cell):
    """Outputs z -> a loss whose gradient is ``slope``, and an accuracy."""

    def __init__(self):
        super().__init__()
        self.slope = Parameter(Tensor(np.array(1, np.float32)), name="slope", requires_grad=False)

    def construct(self, z):
        return (z * self.slope).sum(), z.sum()


def overflow_on_one_rank(slope):
    """Rank 1 alone overflows, by ``slope`` in the second of three steps: weight, scale and updates after each."""
    model, loss, scaler = nn.Dense(1, 1, weight_init="ones", has_bias=False), Steep(), loss_scaler()
    parameters = [*model.trainable_params(), Parameter(Tensor(np.zeros(1, np.float32)), name="unused")]
    optimizer = build_optimizer("SGD", parameters, np.full(3, 0.25, np.float32), 0.0)
    step = ScaledTrainStep(model, loss, optimizer, scaler, process.world_size)
    found = []
    for mine in (1, slope if process.rank else 1, 1):
        loss.slope.set_data(Tensor(np.array(mine, np.float32)))
        step(Tensor(np.ones((1, 1), np.float32)))
        found.append([float(model.weight.asnumpy()[0, 0]), float(scaler.scale_value.asnumpy()),
                      int(optimizer.global_step.asnumpy()[0])])
    return found


def overflow_seen_by_one_rank():
    """The same on an Ascend in saturation mode: the gradients that the others get are finite."""
    def all_finite(gradients):  # of sums over the ranks, scaled
        return (gradients[0] < (200 * FIRST_SCALE if process.rank else 1e30)).all()

    mindspores, amp.all_finite = amp.all_finite, all_finite
    found = overflow_on_one_rank(1000)
    amp.all_finite = mindspores
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
    step = ScaledTrainStep(network, NTXent(0.5, process.rank, 2), optimizer, loss_scaler(), 2)
    step.set_train()
    found = []
    while len(found) < 5:
        loss = float(step(views).asnumpy())
        if int(optimizer.global_step.asnumpy()[0]) > len(found):  # else the gradients overflowed
            found.append(loss)
    assert all(np.isfinite(parameter.asnumpy()).all() for parameter in model.get_parameters())
    return found


# --- representations ---

class Pixels(nn.Cell):
    """In place of an encoder: images (N, 3, 8, 8) -> their pixels, 16 times, (N, 3072)."""

    features = 16 * 3 * 8 * 8

    def construct(self, images):
        return ops.tile(images.astype(mstype.float32).reshape(images.shape[0], -1), (1, 16))


class Torn:
    """Images one of which cannot be read."""

    def __init__(self, pixels, torn):
        self.pixels = pixels
        self.torn = torn

    @property
    def shape(self):
        return self.pixels.shape

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, rows):
        if self.torn in rows:
            raise UserError(f"image {self.torn} is torn")
        return self.pixels[rows]


ENCODER = Pixels()
IMAGES = np.random.default_rng(0).integers(0, 256, (500, 8, 8, 3), np.uint8)  # the same on both ranks


def representations():
    """Whether they are right on rank 0, their shape, and how much memory was taken, in shares of the whole matrix."""
    extract(ENCODER, IMAGES[:4], 4, process)  # compiles
    tracemalloc.start()
    found = extract(ENCODER, IMAGES, 4, process)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    expected = np.tile(channels_first(IMAGES).reshape(len(IMAGES), -1), (1, 16))
    return {"right": bool(np.array_equal(found, expected)), "shape": found.shape, "memory": peak / (4 * expected.size)}


def torn(row):
    """What is said where image ``row`` of 20 cannot be read."""
    try:
        extract(ENCODER, Torn(IMAGES[:20], row), 4, process)
    except UserError as error:
        return str(error)
    return "nothing"


result = {"overflow": overflow_on_one_rank(1e38),  # x 2^16 is infinite
          "overflow of one": overflow_seen_by_one_rank(), **{level: losses(level) for level in ("O0", "O2", "O3")},
          "representations": representations(), "torn": {row: torn(row) for row in range(20)}}
Path(f"{sys.argv[1]}{process.rank}").write_text(json.dumps(result))

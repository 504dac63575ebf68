"""What the tests of the CPU's own layers compute, in the processes of cpu_layers.py."""
import functools
from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from src.distributed.process_group import Process
from src.layers.cpu import library
from src.layers.encoder_layers import encoder_layers, mindspore_layers
from src.nt_xent import NTXent
from src.optimizer import build_optimizer
from src.resnet import build_encoder
from src.simclr_model import SimCLR, build_head
from src.training.step import TrainStep


class Outcome(NamedTuple):
    """Outputs and gradients of the inputs, gradients and values of the parameters by name, and types of these."""

    outputs: list
    inputs: list
    gradients: dict
    state: dict
    types: dict


class Weighted(nn.Cell):
    """Inputs of a layer -> the sum of its outputs times ``slopes``, which are their gradients, and the outputs."""

    def __init__(self, layer, dtype):
        super().__init__()
        self.layer = layer
        self.dtype = dtype

    def construct(self, slopes, *inputs):
        outputs = self.layer(*[x.astype(self.dtype) for x in inputs])
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        total = 0.0
        for output, slope in zip(outputs, slopes):
            total += (output.astype(mstype.float32) * slope).sum()
        return total, outputs


@functools.cache
def layers_of(kind, bfloat16=False):
    """Return the layers ``own`` or ``mindspore``; the former in bfloat16 even where it is emulated."""
    if kind == "mindspore":
        return mindspore_layers()
    loaded = library.load()._replace(has_bfloat16=True)
    return encoder_layers(Process("CPU", cpu_library=loaded), amp_level="O2" if bfloat16 else "O0")


def array(tensor):
    return tensor.astype(mstype.float32).asnumpy() if tensor.dtype == mstype.bfloat16 else tensor.asnumpy()


def run_layer(name, arguments, values, inputs, slopes, training=True, bfloat16=False):
    """Return the Outcome of the layer ``name`` with ``arguments``, for ``values`` of its parameters."""
    layer = getattr(layers_of("own", bfloat16), name)(*arguments[0], **arguments[1])
    for key, value in values.items():
        getattr(layer, key).set_data(Tensor(value))
    dtype = mstype.bfloat16 if bfloat16 and name != "enter" else mstype.float32
    cell = Weighted(layer, dtype).set_train(training)
    weights = {key: getattr(layer, key) for key in values if getattr(layer, key).requires_grad}
    gradient = ops.value_and_grad(cell, tuple(range(1, 1 + len(inputs))), list(weights.values()) or None, has_aux=True)
    (_, outputs), parts = gradient(tuple(map(Tensor, slopes)), *map(Tensor, inputs))
    of_inputs, of_weights = parts if weights else (parts, ())
    of_inputs = of_inputs if isinstance(of_inputs, tuple) else (of_inputs,)
    gradients = dict(zip(weights, of_weights))
    types = {"outputs": {str(output.dtype) for output in outputs},
             "gradients": {str(value.dtype) for value in gradients.values()}}
    return Outcome([array(output) for output in outputs], [array(value) for value in of_inputs],
                   {key: array(value) for key, value in gradients.items()},
                   {key: getattr(layer, key).asnumpy() for key in values}, types)


def gradient_norm(shapes, seed):
    """Return the length of random arrays as one vector, by the layers and by NumPy."""
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(0, rng.uniform(0.01, 100), shape).astype(np.float32) for shape in shapes]
    norm = layers_of("own").gradient_norm()(tuple(map(Tensor, arrays)))
    return float(norm.asnumpy()), float(np.sqrt(sum(np.square(array, dtype=np.float64).sum() for array in arrays)))


class Step(nn.Cell):
    """Views -> the contrastive loss, and the representations."""

    def __init__(self, model):
        super().__init__()
        self.model, self.loss = model, NTXent()

    def construct(self, views):
        h = self.model.encoder(views)
        return self.loss(self.model.projection_head(h))[0], h


def new_model(kind, network, bfloat16=False):
    layers = layers_of(kind, bfloat16)
    ms.set_seed(3)
    encoder = build_encoder(network, layers)
    return SimCLR(encoder, build_head(encoder.features, network, layers.head_norm))


def run_step(kind, network, views, bfloat16=False):
    """Return a network's initial weights, and loss, h, gradients, running statistics and inferred h of one step.

    The step takes random parameters of batch norm: initially the last gamma of every block is 0, and hides the block.
    """
    model, rng = new_model(kind, network, bfloat16), np.random.default_rng(1)
    initial = {parameter.name: parameter.asnumpy().copy() for parameter in model.get_parameters()}
    for parameter in model.get_parameters():
        if parameter.ndim == 1:
            parameter.set_data(Tensor(rng.uniform(0.5, 1.5, parameter.shape).astype(np.float32)))
    weights = list(model.trainable_params())
    (loss, h), gradients = ops.value_and_grad(Step(model).set_train(), None, weights, has_aux=True)(Tensor(views))
    state = {p.name: p.asnumpy() for p in model.get_parameters() if not p.requires_grad}
    inferred = model.encoder.set_train(False)(Tensor(views))
    return {"initial": initial, "loss": float(loss.asnumpy()), "h": h.asnumpy(), "inferred": inferred.asnumpy(),
            "gradients": {weight.name: value.asnumpy() for weight, value in zip(weights, gradients)}, "state": state}


def train_step(kind, network, views):
    """Return the loss of a step of training, weight decay and update included."""
    model = new_model(kind, network)
    optimizer = build_optimizer("Adam", model.trainable_params(), np.ones(1, np.float32), 1e-4)
    return float(TrainStep(model, NTXent(), optimizer).set_train()(Tensor(views)).asnumpy())

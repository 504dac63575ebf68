"""A ResNet is found in the weights of every promised project, and no other network is taken for one."""
import numpy as np
import pytest
from torch_layouts import (
    DEPTHS,
    LAYOUTS,
    LIGHTLY,
    RESNET18,
    WIDTH,
    any_bits,
    encoder_alone,
    lightly_names,
    numbered,
    prefixed,
    same_bits,
    shapes_of,
)

from src.common.errors import UserError
from src.weights.torch_names import recognise


@pytest.mark.parametrize("name", DEPTHS)
def test_encoder_and_width_are_recognised(name):
    weights = {key: np.empty(shape, np.float32) for key, shape in shapes_of(name, 0.15625).items()}
    assert recognise(weights, "x").settings == {"encoder": name, "width_multiplier": 0.15625}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(layout):
    make, batch_norm, left_out = LAYOUTS[layout]
    weights = any_bits(RESNET18)
    given = make(weights)
    recognised = recognise(given, "x")
    head = {name: value for name, value in recognised.weights.items() if name.startswith("projection_head.")}
    same_bits({name: value for name, value in recognised.weights.items() if name not in head}, encoder_alone(weights))
    settings = {"encoder": "resnet18", "width_multiplier": WIDTH}
    if batch_norm is not None:
        settings.update(projection_dimension=8, head_batch_norm=batch_norm)
        assert sorted(head) == [f"projection_head.{name}" for name in (
            ["bn1.bias", "bn1.running_mean", "bn1.running_var", "bn1.weight", "dense1.weight", "dense2.bias",
             "dense2.weight"] if batch_norm else ["dense1.bias", "dense1.weight", "dense2.bias", "dense2.weight"])]
        assert head["projection_head.dense2.bias"].shape == (8,)
    assert recognised.settings == settings and (batch_norm is not None) == bool(head)
    assert sorted(recognised.left_out.split(", ")) == sorted(left_out.split(", "))


def without(weights, start):
    return {name: value for name, value in weights.items() if not name.startswith(start)}


@pytest.mark.parametrize("change, culprit", [
    (lambda w: {}, "no ResNet"),
    (lambda w: {"a.weight": w["fc.bias"]}, "no ResNet .* a.weight"),
    (lambda w: prefixed("backbone.", lightly_names(numbered(w, LIGHTLY))), "backbone.2, .* no ReLU"),
    (lambda w: without(w, "conv1."), "conv1.weight is missing"),
    (lambda w: {**w, "conv1.weight": w["fc.bias"]}, r"conv1.weight is \(10,\)"),
    (lambda w: {**w, "layer4.1.conv2.weight": w["conv1.weight"]}, "layer4.1.conv2.weight is"),
    (lambda w: without(w, "layer3.1"), r"\[2, 2, 1, 2\] basic blocks"),
], ids=["nothing", "another network", "lightly's without ReLU", "no stem", "flat", "other shapes", "other depths"])
def test_other_networks_are_refused(change, culprit):
    with pytest.raises(UserError, match=f"^x .*{culprit}"):
        recognise(change(any_bits(RESNET18)), "x")


def test_numbers_are_those_that_pytorch_gives():
    torch = pytest.importorskip("torch")
    from torch_resnet import ResNet
    children = list(ResNet("resnet18", WIDTH).children())[:-1]
    weights = {name: value.numpy() for name, value in torch.nn.Sequential(*children).state_dict().items()}
    assert recognise(weights, "x").settings == {"encoder": "resnet18", "width_multiplier": WIDTH}

"""What the converter's tests share: weights in NumPy with the names and shapes of other projects, written down anew."""
import sys
from unittest import mock

import numpy as np
import pytest

import convert as script
from src.common.errors import UserError

WIDTH = 0.0625  # 4, 8, 16 and 32 channels
DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
TO_MINDSPORE = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def shapes_of(name, width=WIDTH, kernel=3):
    """Return {name: shape} of an encoder and its classifier."""
    base, bottleneck = int(64 * width), name in ("resnet50", "resnet101")
    shapes = {"conv1.weight": (base, 3, kernel, kernel), **norm("bn1", base)}
    inputs = base
    for stage, depth in enumerate(DEPTHS[name]):
        inner = base * 2**stage
        outputs = 4 * inner if bottleneck else inner
        for index in range(depth):
            block = f"layer{stage + 1}.{index}"
            convs = ([(inner, inputs, 1), (inner, inner, 3), (outputs, inner, 1)] if bottleneck else
                     [(inner, inputs, 3), (inner, inner, 3)])
            for number, (fan_out, fan_in, side) in enumerate(convs, 1):
                shapes[f"{block}.conv{number}.weight"] = (fan_out, fan_in, side, side)
                shapes.update(norm(f"{block}.bn{number}", fan_out))
            if index == 0 and (stage or bottleneck):
                shapes[f"{block}.downsample.0.weight"] = (outputs, inputs, 1, 1)
                shapes.update(norm(f"{block}.downsample.1", outputs))
            inputs = outputs
    return {**shapes, "fc.weight": (10, inputs), "fc.bias": (10,)}


def norm(name, channels):
    return {**{f"{name}.{part}": (channels,) for part in TO_MINDSPORE}, f"{name}.num_batches_tracked": ()}


def filled(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {name: np.array(7, np.int64) if name.endswith("tracked") else
            rng.uniform(0.5, 1.5, shape).astype(np.float32) if len(shape) == 1 else
            rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}


def any_bits(shapes, seed=0):
    """Every pattern of bits that weights may have: denormal numbers and negative zeros as well."""
    rng, found = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        if not name.endswith("tracked"):
            bits = rng.integers(0, 2**32, shape, np.uint32)
            bits[~np.isfinite(bits.view(np.float32))] ^= 1 << 23  # of the exponent
            found[name] = (bits & (0x7FFFFFFF if name.endswith("running_var") else 0xFFFFFFFF)).view(np.float32)
    return found


def encoder_alone(weights):
    return {name: value for name, value in weights.items() if not name.startswith("fc.") and value.ndim}


def head_of(features, dimension, names, batch_norm=False):
    first, middle, last = names
    shapes = {f"{first}.weight": (features, features), f"{last}.weight": (dimension, features),
              f"{last}.bias": (dimension,)}
    shapes.update(norm(middle, features) if batch_norm else {f"{first}.bias": (features,)})
    return filled(shapes, 3)


def mindspore_name(name):
    stem, _, last = name.rpartition(".")
    is_norm = stem.split(".")[-1].startswith("bn") or stem.endswith("downsample.1")
    return f"{stem}.{TO_MINDSPORE[last]}" if is_norm else name


def same_bits(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].shape == second[name].shape
        assert np.array_equal(first[name].view(np.uint32), second[name].view(np.uint32)), name


def convert(source, target, *flags):
    """Run convert.py in this process; what it would report as an error is raised."""
    arguments = ["--source_path", str(source), "--target_path", str(target), "--device_target", "CPU", *flags]
    with mock.patch.object(sys, "argv", ["convert.py", *arguments]):
        script.main()


def fails(source, target, *flags):
    before = sorted(target.parent.parent.rglob("*"))
    with pytest.raises(UserError) as error:
        convert(source, target, *flags)
    assert "\n" not in str(error.value)
    assert sorted(target.parent.parent.rglob("*")) == before
    return str(error.value)


# --- layouts ---

def numbered(weights, order):
    return {".".join([str(order.index(name.split(".")[0])), *name.split(".")[1:]]): value
            for name, value in weights.items() if not name.startswith("fc.")}


def prefixed(prefix, weights):
    return {prefix + name: value for name, value in weights.items()}


def without_fc(weights):
    return {name: value for name, value in weights.items() if not name.startswith("fc.")}


RESNET18 = shapes_of("resnet18")
TORCHVISION = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
LIGHTLY = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")  # lightly's own ResNet


def lightly_names(weights):
    return {name.replace("downsample", "shortcut").replace("fc.", "linear."): value for name, value in weights.items()}


def solo_learn(weights, encoder):
    return {**prefixed(f"{encoder}.", encoder_alone(weights)),
            **prefixed(f"momentum_{encoder}.", encoder_alone(filled(RESNET18, 9))),
            **head_of(64, 8, ("projector.0", "", "projector.2")), "classifier.weight": np.ones((10, 32), np.float32)}


LAYOUTS = {
    "torchvision": lambda w: w,
    "DataParallel": lambda w: prefixed("module.", w),
    "reference": lambda w: {**prefixed("encoder.", encoder_alone(w)),
                            **head_of(32, 8, [f"projection_head.{part}" for part in ("dense1", "bn1", "dense2")])},
    "reference, batch norm": lambda w: {
        **prefixed("encoder.", w),
        **head_of(32, 8, [f"projection_head.{part}" for part in ("dense1", "bn1", "dense2")], True)},
    "lightly, numbered": lambda w: {
        **prefixed("backbone.", numbered(w, TORCHVISION)),
        **head_of(32, 8, [f"projection_head.layers.{part}" for part in "013"], True)},
    "lightly, its own ResNet": lambda w: {
        **prefixed("backbone.", lightly_names(w)),
        **head_of(32, 8, [f"projection_head.layers.{part}" for part in "002"])},
    "lightly, last batch norm": lambda w: {
        **prefixed("backbone.", w), **head_of(32, 8, [f"projection_head.layers.{part}" for part in "013"], True),
        "projection_head.layers.4.weight": np.ones(8, np.float32)},
    "solo-learn": lambda w: solo_learn(w, "backbone"),
    "solo-learn, older": lambda w: solo_learn(w, "encoder"),
    "solo-learn, a head like ours": lambda w: {
        **prefixed("encoder.", encoder_alone(w)), **head_of(32, 8, ("projector.0", "", "projector.2"))},
    "compiled": lambda w: prefixed("_orig_mod.module.", {**prefixed("encoder.", encoder_alone(w)), **head_of(
        32, 8, [f"projection_head.{part}" for part in ("dense1", "bn1", "dense2")])}),
    "in a module": lambda w: prefixed("model.", prefixed("backbone.", w)),
    "MoCo v1": lambda w: prefixed("module.", {
        **prefixed("encoder_q.", w), **prefixed("encoder_k.", filled(RESNET18, 9)),
        "queue": np.ones((8, 4), np.float32), "queue_ptr": np.zeros(1, np.int64)}),
    "MoCo v2": lambda w: prefixed("module.", {
        **prefixed("encoder_q.", {**without_fc(w), **head_of(32, 8, ("fc.0", "", "fc.2"))}),
        **prefixed("encoder_k.", {**without_fc(w), **head_of(32, 8, ("fc.0", "", "fc.2"))})}),
    "MoCo v3": lambda w: prefixed("module.", {
        **prefixed("base_encoder.", {**without_fc(w), **head_of(64, 8, ("fc.0", "fc.1", "fc.3"), True)}),
        **prefixed("momentum_encoder.", filled(RESNET18, 9)), "predictor.0.weight": np.ones((4, 4), np.float32)}),
}
HEADS = {"reference": False, "reference, batch norm": True, "lightly, numbered": True, "lightly, its own ResNet": False,
         "MoCo v2": False, "solo-learn, a head like ours": False, "compiled": False}
SOLO_LEARN = ("solo-learn", "solo-learn, older", "solo-learn, a head like ours")
LEFT_OUT = {
    "torchvision": "fc.weight, fc.bias",
    "DataParallel": "module.fc.weight, module.fc.bias",
    "in a module": "model.backbone.fc.weight, model.backbone.fc.bias",
    "reference, batch norm": "encoder.fc.weight, encoder.fc.bias",
    "lightly, its own ResNet": "backbone.linear.weight, backbone.linear.bias",
    "lightly, last batch norm": "backbone.fc.weight, backbone.fc.bias, projection_head.* (8)",
    "solo-learn": "momentum_backbone.* (100), projector.0.weight, projector.2.weight, projector.2.bias, "
                  "projector.0.bias, classifier.weight",
    "solo-learn, older": "momentum_encoder.* (100), projector.0.weight, projector.2.weight, projector.2.bias, "
                         "projector.0.bias, classifier.weight",
    "MoCo v1": "module.encoder_q.fc.weight, module.encoder_q.fc.bias, module.encoder_k.* (102), module.queue, "
               "module.queue_ptr",
    "MoCo v2": "module.encoder_k.* (104)",
    "MoCo v3": "module.base_encoder.* (7), module.momentum_encoder.* (102), module.predictor.0.weight",
}

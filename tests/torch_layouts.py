"""Weights in NumPy with the names and shapes that other projects give a ResNet, for the tests of convert.py."""
import numpy as np

WIDTH = 0.0625  # 4, 8, 16 and 32 channels
DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
TO_MINDSPORE = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def shapes_of(name, width=WIDTH, kernel=3):
    """Return {name: shape} of torchvision's ResNet ``name``, classifier included."""
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


def any_bits(shapes, seed=0):
    """Return finite float32 values of every bit pattern, denormal numbers and negative zeros as well."""
    rng, weights = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        if name.endswith("tracked"):
            weights[name] = np.array(7, np.int64)
            continue
        bits = rng.integers(0, 2**32, shape, np.uint32)
        bits[~np.isfinite(bits.view(np.float32))] ^= 1 << 23  # of the exponent
        weights[name] = (bits & (0x7FFFFFFF if name.endswith("running_var") else 0xFFFFFFFF)).view(np.float32)
    return weights


def encoder_alone(weights):
    return {name: value for name, value in weights.items() if not name.startswith("fc.") and value.ndim}


def head_of(*layers, features=32, batch_norm=False):
    """Return a projection head to 8 dimensions with these names for its layers."""
    shapes = {f"{layers[0]}.weight": (features, features), f"{layers[-1]}.weight": (8, features),
              f"{layers[-1]}.bias": (8,)}
    shapes.update(norm(layers[1], features) if batch_norm else {f"{layers[0]}.bias": (features,)})
    return any_bits(shapes, 3)


def mindspore_name(name):
    stem, _, last = name.rpartition(".")
    is_norm = stem.split(".")[-1].startswith("bn") or stem.endswith("downsample.1")
    return f"{stem}.{TO_MINDSPORE[last]}" if is_norm else name


def same_bits(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].shape == second[name].shape
        assert np.array_equal(first[name].view(np.uint32), second[name].view(np.uint32)), name


# --- how other projects name the parts of a ResNet ---

TORCHVISION = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
LIGHTLY = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")  # lightly's own ResNet has no child for the ReLU


def numbered(weights, order):
    """Name the parts as an nn.Sequential of them does."""
    return {".".join([str(order.index(name.split(".")[0])), *name.split(".")[1:]]): value
            for name, value in without_fc(weights).items()}


def prefixed(prefix, weights):
    return {prefix + name: value for name, value in weights.items()}


def without_fc(weights):
    return {name: value for name, value in weights.items() if not name.startswith("fc.")}


def lightly_names(weights):
    return {name.replace("downsample", "shortcut").replace("fc.", "linear."): value for name, value in weights.items()}


RESNET18 = shapes_of("resnet18")
COPY = any_bits(RESNET18, 9)  # the moving average of an encoder

# How a file names the weights; whether the head is taken, and with batch norm; what the log says is left out.
LAYOUTS = {
    "torchvision": (lambda w: w, None, "fc (2 tensors)"),
    "compiled, parallel, with batch norm": (lambda w: prefixed("_orig_mod.module.", {
        **prefixed("encoder.", w), **head_of(*(f"projection_head.{part}" for part in ("dense1", "bn1", "dense2")),
                                             batch_norm=True)}), True, "_orig_mod.module.encoder.fc (2 tensors)"),
    "a training script": (lambda w: {
        **prefixed("state_dict.", w), "optimizer.state.0.momentum": w["conv1.weight"],
        "optimizer.state.1.momentum": w["fc.bias"]}, None, "state_dict.fc (2 tensors), optimizer (2 tensors)"),
    "lightly, numbered": (lambda w: {
        **prefixed("backbone.", numbered(w, TORCHVISION)),
        **head_of(*(f"projection_head.layers.{part}" for part in "013"), batch_norm=True)}, True, ""),
    "lightly, its own ResNet": (lambda w: {
        **prefixed("backbone.", lightly_names(w)), **head_of(*(f"projection_head.layers.{part}" for part in "02"))},
        False, "backbone.linear (2 tensors)"),
    "lightly, another head": (lambda w: {
        **prefixed("backbone.", without_fc(w)),
        **head_of(*(f"projection_head.layers.{part}" for part in "013"), batch_norm=True),
        "projection_head.layers.4.weight": np.ones(8, np.float32)}, None, "projection_head (8 tensors)"),
    "solo-learn": (lambda w: {
        **prefixed("momentum_backbone.", encoder_alone(COPY)), **prefixed("backbone.", encoder_alone(w)),
        **head_of("projector.0", "projector.2", features=64), "classifier.weight": np.ones((10, 32), np.float32)},
        None, "momentum_backbone (100 tensors), projector (4 tensors), classifier"),
    "MoCo v1": (lambda w: prefixed("module.", {
        **prefixed("encoder_k.", COPY), **prefixed("encoder_q.", w), "queue": np.ones((8, 4), np.float32),
        "queue_ptr": np.zeros(1, np.int64)}), None, "module.encoder_k (102 tensors), module.encoder_q.fc (2 tensors), "
        "module.queue, module.queue_ptr"),
    "MoCo v2": (lambda w: {"state_dict." + name: value for name, value in prefixed("module.", {
        **prefixed("encoder_q.", {**without_fc(w), **head_of("fc.0", "fc.2")}),
        **prefixed("encoder_k.", {**without_fc(COPY), **head_of("fc.0", "fc.2")})}).items()}, False,
        "state_dict.module.encoder_k (104 tensors)"),
    "MoCo v3": (lambda w: prefixed("module.", {
        **prefixed("base_encoder.", {**without_fc(w), **head_of("fc.0", "fc.1", "fc.3", features=64,
                                                                batch_norm=True)}),
        **prefixed("momentum_encoder.", COPY), "predictor.0.weight": np.ones((4, 4), np.float32)}), None,
        "module.base_encoder.fc (7 tensors), module.momentum_encoder (102 tensors), module.predictor"),
}

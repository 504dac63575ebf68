"""The encoders against parameter counts of the literature and a forward pass in NumPy float64."""
import numpy as np
import pytest
from mindspore import Tensor, nn

from src.dataset import DATA_SETS
from src.resnet import ENCODERS, Pixels, build_encoder, default_stem
from src.simclr_model import ImageClassifier, LinearClassifier, ProjectionHead, SimCLR, stem_of


@pytest.mark.parametrize("name, side, count", [
    ("resnet50", 32, 23_500_352),
    # torchvision's counts without the classifier
    ("resnet18", 224, 11_176_512),
    ("resnet34", 224, 21_284_672),
    ("resnet50", 224, 23_508_032),
    ("resnet101", 224, 42_500_160),
])
def test_parameter_counts(name, side, count):
    assert sum(parameter.size for parameter in build_encoder(name, stem=default_stem(side)).trainable_params()) == count


@pytest.mark.parametrize("name, width, features", [
    ("resnet18", 0.25, 128), ("resnet34", 1, 512), ("resnet50", 0.5, 1024), ("resnet50", 2, 4096)])
def test_feature_widths(name, width, features):
    assert build_encoder(name, width).features == features


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_blocks_begin_as_the_identity(name):
    """The last batch norm of every block has gamma 0, every other one gamma 1."""
    encoder = build_encoder(name, 0.0625)
    last = "bn2" if name == "resnet18" else "bn3"
    gammas = {p.name: p.asnumpy() for p in encoder.get_parameters() if "gamma" in p.name}
    zero = {key for key, gamma in gammas.items() if (gamma == 0).all()}
    assert zero == {key for key in gammas if key.endswith(f"{last}.gamma")}
    assert len(zero) == sum(ENCODERS[name][1])
    assert all((gamma == 1).all() for key, gamma in gammas.items() if key not in zero)


# --- forward pass in NumPy ---

def convolve(x, weight, stride):
    pad = weight.shape[2] // 2
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", windows, weight, optimize=True)


class Reference:
    """A ResNet in inference mode, float64, with the parameters of a MindSpore one."""

    def __init__(self, encoder, name, stem):
        self.parameters = {p.name: p.asnumpy().astype(np.float64) for p in encoder.get_parameters()}
        self.depths = ENCODERS[name][1]
        self.convolutions = 2 if name in ("resnet18", "resnet34") else 3
        self.stem = stem

    def norm(self, x, name):
        gamma, beta, mean, variance = (self.parameters[f"{name}.{part}"][:, None, None]
                                       for part in ("gamma", "beta", "moving_mean", "moving_variance"))
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    def block(self, x, name, stride):
        strided = 1 if self.convolutions == 2 else 2  # torchvision: the stride is at the first 3x3 convolution
        out = x
        for index in range(1, self.convolutions + 1):
            out = convolve(out, self.parameters[f"{name}.conv{index}.weight"], stride if index == strided else 1)
            out = self.norm(out, f"{name}.bn{index}")
            if index < self.convolutions:
                out = np.maximum(out, 0)
        if f"{name}.downsample.0.weight" in self.parameters:
            x = self.norm(convolve(x, self.parameters[f"{name}.downsample.0.weight"], stride), f"{name}.downsample.1")
        return np.maximum(out + x, 0)

    def __call__(self, images):
        x = convolve(images.astype(np.float64) / 255, self.parameters["conv1.weight"], 1 if self.stem == "cifar" else 2)
        x = np.maximum(self.norm(x, "bn1"), 0)
        if self.stem == "imagenet":
            x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
            x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))[:, :, ::2, ::2].max((4, 5))
        for stage, depth in enumerate(self.depths):
            for index in range(depth):
                x = self.block(x, f"layer{stage + 1}.{index}", 2 if stage and not index else 1)
        return x.mean((2, 3))


@pytest.mark.parametrize("name, side, stem", [
    ("resnet18", 32, "cifar"), ("resnet50", 32, "cifar"), ("resnet18", 40, "imagenet"), ("resnet18", 32, "strided")])
def test_forward_pass(name, side, stem):
    encoder = build_encoder(name, 0.0625, stem)
    rng = np.random.default_rng(0)
    for parameter in encoder.get_parameters():
        if parameter.ndim == 1:  # batch norm, which is nearly idle in a fresh network
            parameter.set_data(Tensor(rng.uniform(0.5, 1.5, parameter.shape).astype(np.float32)))
    images = rng.integers(0, 256, (2, 3, side, side), dtype=np.uint8)
    expected = Reference(encoder, name, stem)(images)
    encoder.set_train(False)
    assert np.abs(encoder(Tensor(images)).asnumpy() - expected).max() / np.abs(expected).max() < 1e-5


def test_pixels_become_normalised_floats():
    data_set = DATA_SETS["cifar10"]
    images = np.arange(0, 252, 21, dtype=np.uint8).reshape(1, 3, 2, 2)
    plain = Pixels()(Tensor(images)).asnumpy()
    assert np.allclose(plain, images / 255, atol=1e-7)
    normalised = Pixels(data_set.mean, data_set.std)(Tensor(images)).asnumpy()
    expected = (images / 255 - np.reshape(data_set.mean, (3, 1, 1))) / np.reshape(data_set.std, (3, 1, 1))
    assert np.allclose(normalised, expected, atol=1e-6)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_projection_head(batch_norm):
    head = ProjectionHead(6, 4, nn.BatchNorm2d if batch_norm else None)
    head.set_train()
    h = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    hidden = h @ head.dense1.weight.asnumpy().T
    if batch_norm:
        hidden = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5)
    else:
        hidden = hidden + head.dense1.bias.asnumpy()
    expected = np.maximum(hidden, 0) @ head.dense2.weight.asnumpy().T + head.dense2.bias.asnumpy()
    assert np.allclose(head(Tensor(h)).asnumpy(), expected, atol=1e-5)


def test_parameter_names_are_fixed():
    """Checkpoints depend on them."""
    encoder = build_encoder("resnet18", 0.0625)
    names = [parameter.name for parameter in SimCLR(encoder, ProjectionHead(encoder.features, 8)).get_parameters()]
    assert names[0] == "encoder.conv1.weight"
    assert "encoder.layer2.0.downsample.0.weight" in names
    assert names[-4:] == [f"projection_head.{name}" for name in
                          ("dense1.weight", "dense1.bias", "dense2.weight", "dense2.bias")]
    names = [parameter.name for parameter in LinearClassifier(4, 2).get_parameters()]
    assert names == ["mean", "scale", "linear.weight", "linear.bias"]


@pytest.mark.parametrize("settings, stem", [
    ({"dataset_name": "cifar10"}, "cifar"), ({"dataset_name": "stl10"}, "imagenet"),
    ({"dataset_name": "imagefolder", "image_size": 32}, "cifar"),
    ({"dataset_name": "cifar10", "stem": "strided"}, "strided")])
def test_settings_of_before_there_was_a_choice_have_the_stem_of_their_images(settings, stem):
    assert stem_of(settings) == stem


def test_classifier_standardises_and_gives_logits():
    class Flat(nn.Cell):
        def construct(self, images):
            return images.mean((2, 3))

    rng = np.random.default_rng(0)
    classifier = LinearClassifier(3, 4)
    rows = rng.normal(5, 3, (100, 3)).astype(np.float32)
    classifier.fit_scale(rows)
    classifier.linear.weight.set_data(Tensor(rng.normal(size=(4, 3)).astype(np.float32)))
    images = rng.normal(size=(2, 3, 4, 4)).astype(np.float32)
    standard = (images.mean((2, 3)) - rows.mean(0)) / rows.std(0)
    expected = standard @ classifier.linear.weight.asnumpy().T
    assert np.allclose(ImageClassifier(Flat(), classifier)(Tensor(images)).asnumpy(), expected, atol=1e-5)

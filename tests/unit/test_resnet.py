"""The encoders against parameter counts of the literature and a forward pass in NumPy float64."""
import numpy as np
import pytest
from mindspore import Tensor, nn
from numpy_resnet import Reference

from src.dataset import DATA_SETS
from src.resnet import ENCODERS, PixelsToFloat, build_encoder
from src.settings.network import Network, default_stem
from src.simclr_model import ImageClassifier, LinearClassifier, ProjectionHead, SimCLR


@pytest.mark.parametrize("name, side, count", [
    ("resnet50", 32, 23_500_352),
    ("resnet34", 224, 21_284_672),  # from here on torchvision's counts without the classifier
    ("resnet101", 224, 42_500_160),
])
def test_parameter_counts(name, side, count):
    encoder = build_encoder(Network(name, stem=default_stem(side)))
    assert sum(parameter.size for parameter in encoder.trainable_params()) == count


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_blocks_begin_as_the_identity(name):
    """The last batch norm of every block has gamma 0, every other one gamma 1."""
    encoder = build_encoder(Network(name, 0.0625))
    last = "bn2" if name == "resnet18" else "bn3"
    gammas = {p.name: p.asnumpy() for p in encoder.get_parameters() if "gamma" in p.name}
    zero = {key for key, gamma in gammas.items() if (gamma == 0).all()}
    assert zero == {key for key in gammas if key.endswith(f"{last}.gamma")}
    assert len(zero) == sum(ENCODERS[name][1])
    assert all((gamma == 1).all() for key, gamma in gammas.items() if key not in zero)


# --- forward pass in NumPy ---

@pytest.mark.long
@pytest.mark.parametrize("name, side, stem", [
    ("resnet50", 32, "cifar"), ("resnet18", 40, "imagenet"), ("resnet18", 32, "strided")])
def test_forward_pass(name, side, stem):
    encoder = build_encoder(Network(name, 0.0625, stem))
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
    plain = PixelsToFloat()(Tensor(images)).asnumpy()
    assert np.allclose(plain, images / 255, atol=1e-7)
    normalised = PixelsToFloat(data_set.mean, data_set.std)(Tensor(images)).asnumpy()
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
    encoder = build_encoder(Network("resnet18", 0.0625))
    names = [parameter.name for parameter in SimCLR(encoder, ProjectionHead(encoder.features, 8)).get_parameters()]
    assert names[0] == "encoder.conv1.weight"
    assert "encoder.layer2.0.downsample.0.weight" in names
    assert names[-4:] == [f"projection_head.{name}" for name in
                          ("dense1.weight", "dense1.bias", "dense2.weight", "dense2.bias")]
    names = [parameter.name for parameter in LinearClassifier(4, 2).get_parameters()]
    assert names == ["mean", "scale", "linear.weight", "linear.bias"]


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

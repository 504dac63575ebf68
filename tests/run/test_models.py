"""The encoder and classifier in models/: the scripts and PyTorch read them, and they are as good as their card says."""
import hashlib
import re
import sys

import mindspore as ms
import numpy as np
import pytest
from helpers import ROOT, call_script, done, of_kind
from mindspore import Tensor

from src import dataset
from src.data.images import channels_first
from src.resnet import build_encoder
from src.run import records
from src.weights import encoders

pytestmark = pytest.mark.long

FOLDER = ROOT / "models" / "cifar10_resnet18_cpu"
ENCODER, CLASSIFIER = FOLDER / "encoder.safetensors", FOLDER / "linear_classifier.ckpt"
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Encoder and classifier as one model: 100 images -> probabilities."""
    folder = tmp_path_factory.mktemp("exported")
    done(call_script("export.py", "--ckpt_simclr_encoder", ENCODER, "--ckpt_linear_classifier", CLASSIFIER,
                     "--file_name", "simclr", "--batch_size", "100", cwd=folder))
    return ms.nn.GraphCell(ms.load(str(folder / "simclr.mindir")))


def test_the_card_is_of_these_files():
    for file in (ENCODER, CLASSIFIER):
        assert hashlib.sha256(file.read_bytes()).hexdigest() in CARD, file
    assert ENCODER.stat().st_size < 12e6


def test_they_are_as_good_as_the_card_says(exported, cifar10_dir, tmp_path):
    """On real images: all there are, which may be fewer than the card's 10,000."""
    said = float(re.search(r"\*\*([\d.]+) %\*\*", CARD)[1]) / 100
    test = dataset.load("cifar10", cifar10_dir, "test")
    count = len(test.labels) // 100 * 100
    answers = np.concatenate([exported(Tensor(images))[0].asnumpy().argmax(1)
                              for images in np.split(channels_first(test.pixels[:count]), count // 100)])
    accuracy = (answers == test.labels[:count]).mean()
    assert abs(accuracy - said) < 4 * (said * (1 - said) / count) ** 0.5
    done(call_script("linear_eval.py", "--encoder_checkpoint_path", ENCODER, "--pre_classifier_checkpoint_path",
                     CLASSIFIER, "--train_dataset_path", cifar10_dir, "--train_output_path", tmp_path, cwd=tmp_path))
    (record,) = of_kind(records.LINEAR_EVAL, tmp_path)
    assert record["images"] == len(test.labels) and record["accuracy"] == pytest.approx(accuracy, abs=1.01 / count)


def test_pytorch_has_the_same_features():
    pytest.importorskip("torch")
    import torch
    from safetensors.torch import load_file
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import torch_reference

    source = encoders.load(str(ENCODER), "test")
    network = source.network
    ours = build_encoder(network)
    encoders.load_weights(ours, source)
    theirs = torch_reference.ResNet(network.encoder, network.width_multiplier, network.stem,
                                    network.mean or (0.0,) * 3, network.std or (1.0,) * 3)
    missing, unexpected = theirs.load_state_dict(load_file(str(ENCODER)), strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 32, 32), np.uint8)
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(images)).numpy()
    assert np.abs(ours.set_train(False)(Tensor(images)).asnumpy() - expected).max() < 1e-4 * np.abs(expected).max()

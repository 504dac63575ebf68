"""convert.py: weights come from PyTorch and go back bit by bit, with the same features, for all scripts."""
import re
import sys
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import safetensors.numpy as safetensors
from helpers import call_script, done, equal, of_kind, refused, start_script, values, write_cifar
from mindspore import Tensor
from torch_layouts import (
    RESNET18,
    WIDTH,
    any_bits,
    encoder_alone,
    head_of,
    mindspore_name,
    prefixed,
    same_bits,
    shapes_of,
)

from src import dataset
from src.resnet import build_encoder
from src.run import checkpoint, records
from src.settings.network import Network
from src.weights import encoders, torch_files


def convert(folder, source, target, *flags):
    return done(call_script("convert.py", "--source_path", source, "--target_path", target, *flags, cwd=folder))


def refuse(folder, source, target, message, *flags):
    before = sorted(folder.rglob("*"))
    refused(call_script("convert.py", "--source_path", source, "--target_path", target, *flags, cwd=folder), message)
    assert sorted(folder.rglob("*")) == before


def trained(model):
    """Give a network of PyTorch weights as after a training, and return their state dict."""
    import torch
    rng = np.random.default_rng(0)
    weights = {name: torch.from_numpy((rng.uniform(0.5, 1.5, value.shape) if value.ndim == 1 else
                                       rng.normal(0, 0.2, value.shape)).astype(np.float32))
               for name, value in model.state_dict().items() if value.ndim}
    model.load_state_dict(weights, strict=False)
    return model.eval().state_dict()


@pytest.mark.parametrize("name, cifar_stem, normalize", [
    ("resnet18", True, True), pytest.param("resnet50", False, False, marks=pytest.mark.long)])
def test_features_agree_with_pytorch(tmp_path, random_images, name, cifar_stem, normalize):
    torch = pytest.importorskip("torch")
    from torch_resnet import ResNet
    model = ResNet(name, WIDTH, cifar_stem)
    torch.save({"epoch": 3, "state_dict": trained(model)}, tmp_path / "in.pth.tar")
    stem = "cifar" if cifar_stem else "imagenet"
    convert(tmp_path, "in.pth.tar", "out.ckpt", "--normalize", normalize, "--stem", stem)
    converted = checkpoint.load(str(tmp_path / "out.ckpt"), "simclr", "test")
    encoder = build_encoder(converted.network)
    encoders.load_weights(encoder, converted)
    images = np.ascontiguousarray(random_images(3).pixels.transpose(0, 3, 1, 2))
    pixels = torch.from_numpy(images).float() / 255
    if normalize:
        data_set = dataset.DATA_SETS["cifar10"]
        pixels = (pixels - torch.tensor(data_set.mean).view(3, 1, 1)) / torch.tensor(data_set.std).view(3, 1, 1)
    with torch.no_grad():
        expected = model.features(pixels).numpy()
    features = encoder.set_train(False)(Tensor(images)).asnumpy()
    assert np.abs(features - expected).max() < 1e-5 * np.abs(expected).max()


def test_safetensors_round_trip_keeps_every_bit_and_the_description(tmp_path):
    """With the head of this project, too."""
    layers = [f"projection_head.{part}" for part in ("dense1", "bn1", "dense2")]
    encoder, head = any_bits(shapes_of("resnet50")), head_of(*layers, features=128, batch_norm=True)
    safetensors.save_file({**prefixed("encoder.", encoder), **head}, str(tmp_path / "in.safetensors"))
    convert(tmp_path, "in.safetensors", "out.ckpt", "--dataset_name", "shapes", "--stem", "strided", "--normalize",
            "False", "--pretrain_epoch_size", "3")
    given = {**prefixed("encoder.", encoder_alone(encoder)), **head}
    same_bits(values(tmp_path / "out.ckpt"),
              {mindspore_name(name): value for name, value in given.items() if value.ndim})
    network = checkpoint.load(str(tmp_path / "out.ckpt"), "simclr", "test").network
    assert (network.projection_dimension, network.head_batch_norm) == (8, True)
    convert(tmp_path, "out.ckpt", "new/back.safetensors")
    same_bits(safetensors.load_file(tmp_path / "new" / "back.safetensors"), encoder_alone(encoder))
    convert(tmp_path, "new/back.safetensors", "again.ckpt")  # without flags
    again = checkpoint.load(str(tmp_path / "again.ckpt"), "simclr", "test")
    assert again.network == Network("resnet50", WIDTH, "strided", 32)
    assert (again.info["epoch"], again.info["settings"]) == (3, {"dataset_name": "shapes"})
    refuse(tmp_path, "new/back.safetensors", "new.ckpt", "--stem: got cifar", "--stem", "cifar")


def test_pickles_round_trip_to_the_bit(tmp_path):
    torch = pytest.importorskip("torch")
    from torch_resnet import ResNet
    weights = any_bits(RESNET18)
    torch.save({name: torch.from_numpy(value) for name, value in weights.items()}, tmp_path / "in.ckpt")
    convert(tmp_path, "in.ckpt", "out.ckpt")
    for name in ("back.pth", "back.pt"):
        convert(tmp_path, "out.ckpt", name)
        back = torch.load(tmp_path / name, weights_only=True)
        same_bits({name: value.numpy() for name, value in back.items()}, encoder_alone(weights))
    model = ResNet("resnet18", WIDTH)
    model.fc = torch.nn.Identity()
    model.load_state_dict(back)  # strictly


@pytest.mark.parametrize("change, flags, culprit", [
    (lambda w: {**w, "bn1.bias": np.ones(4, np.float16)}, (), "bn1.bias is .*float16.*float32"),
    (lambda w: {name: value for name, value in w.items() if name != "bn1.bias"}, (), "bn1.bias is missing"),
    (lambda w: {**w, "conv2.weight": w["conv1.weight"]}, (), "conv2.weight is unknown"),  # a deeper stem, as of CLIP
    (lambda w: any_bits(shapes_of("resnet18", kernel=7)), (), "--dataset_name: got cifar10.* 7x7"),
    (lambda w: w, ("--stem", "imagenet"), "--stem: got imagenet.* 3x3"),
    (lambda w: w, ("--encoder", "resnet50"), "--encoder: got resnet50"),
    (lambda w: w, ("--image_size", "64"), "64 pixels"),
])
def test_what_does_not_fit_is_named(tmp_path, change, flags, culprit):
    safetensors.save_file(change(any_bits(RESNET18)), str(tmp_path / "in.safetensors"))
    refuse(tmp_path, "in.safetensors", "new/out.ckpt", culprit, *flags)


@pytest.mark.parametrize("torch, culprit", [(None, "needs PyTorch; pip install torch"),
                                            (SimpleNamespace(__version__="2.5.1+cpu"), "2.5.1.* 2.6 or later")])
def test_pickles_take_a_pytorch_that_runs_no_code(tmp_path, monkeypatch, torch, culprit):
    (tmp_path / "x.pth").write_bytes(b"a pickle")
    monkeypatch.setitem(sys.modules, "torch", torch)
    refuse(tmp_path, "x.pth", "new/out.ckpt", f"--source_path: x.pth.*{culprit}")


# --- the scripts ---

@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a small CIFAR-10, ``weights.ckpt`` from PyTorch, and ``described.safetensors``, made of that."""
    torch = pytest.importorskip("torch")
    from torch_resnet import ResNet
    folder = write_cifar(tmp_path_factory.mktemp("work"), train=40, test=20)
    torch.save(trained(ResNet("resnet18", WIDTH)), folder / "weights.pth")
    result = start_script("convert.py", "--source_path", "weights.pth", "--target_path", "weights.ckpt", cwd=folder)
    assert re.search(r"weights.pth: resnet18, width x 0.0625, .*; left out: fc \(2 tensors\)\n", done(result))
    assert result.stderr == ""
    convert(folder, "weights.ckpt", "described.safetensors")
    return folder


def test_a_run_is_not_resumed_from_converted_weights(work):
    folder = work / "resumed" / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "latest").symlink_to(work / "weights.ckpt")
    refused(call_script("train.py", "--resume", "--train_dataset_path", ".", "--train_output_path", "resumed",
                        cwd=work), "--resume: .*weights.ckpt")


@pytest.mark.long
def test_the_scripts_take_either_file(work):
    """With the same encoder; a training gives it a fresh head."""
    found, images = [], np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32), np.uint8)
    for file in ("weights.ckpt", "described.safetensors"):
        data = ("--train_dataset_path", ".", "--epoch_size", "1", "--batch_size", "20", "--train_output_path")
        done(call_script("linear_eval.py", "--encoder_checkpoint_path", file, *data, f"of_{file}", cwd=work))
        (record,) = of_kind(records.LINEAR_EVAL, work / f"of_{file}")
        assert record["encoder_epoch"] is None
        done(call_script("export.py", "--ckpt_simclr_encoder", file, "--ckpt_linear_classifier",
                         f"of_{file}/linear_classifier/latest", "--file_format", "ONNX", "--file_name",
                         f"of_{file}/model", cwd=work))
        session = onnxruntime.InferenceSession(str(work / f"of_{file}" / "model.onnx"))
        found.append((record["confusion"], *(output.tolist() for output in session.run(None, {"images": images}))))
        done(call_script("train.py", "--pre_trained_path", file, *data, f"trained_{file}", "--projection_dimension",
                         "8", "--eval_every", "0", cwd=work))
        begun = values(work / f"trained_{file}" / "checkpoint" / "checkpoint_simclr-0.ckpt")
        given = values(work / "weights.ckpt")
        equal(given, {name: begun[name] for name in given})
        assert begun["projection_head.dense1.weight"].any()
    assert found[0] == found[1]


def test_a_file_without_a_description_is_no_encoder(work):
    with_description, description = torch_files.read(str(work / "described.safetensors"), "test")
    assert description["dataset_name"] == "cifar10"
    safetensors.save_file(with_description, str(work / "bare.safetensors"))
    refused(call_script("export.py", "--ckpt_simclr_encoder", "bare.safetensors", "--file_name", "never", cwd=work),
            "--ckpt_simclr_encoder: bare.safetensors .* convert.py")

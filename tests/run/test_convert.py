"""The converter with PyTorch's own files and networks, and the scripts on what it writes."""
import logging
import re

import mindspore as ms
import numpy as np
import pytest
import safetensors.numpy as safetensors
from helpers import call_script, done, of_kind, refused, start_script, values, write_cifar
from mindspore import Tensor
from safetensors import safe_open as safetensors_open
from torch_layouts import RESNET18, WIDTH, any_bits, convert, encoder_alone, fails, filled, same_bits

from src import dataset
from src.resnet import build_encoder
from src.run import checkpoint, records
from src.weights import encoders


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def model_of(torch):
    from torch_resnet import ResNet

    def make(name, cifar_stem=True):
        model = ResNet(name, WIDTH, cifar_stem)
        weights = filled({key: tuple(value.shape) for key, value in model.state_dict().items()})
        model.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
        return model.eval()
    return make


@pytest.mark.long
@pytest.mark.parametrize("name, cifar_stem, normalize", [
    ("resnet18", True, True), ("resnet34", True, False), ("resnet50", True, True), ("resnet18", False, True)])
def test_features_agree_with_pytorch(tmp_path, torch, model_of, random_images, request, name, cifar_stem, normalize):
    if not cifar_stem:
        request.getfixturevalue("large_images")
    model = model_of(name, cifar_stem)
    torch.save(model.state_dict(), tmp_path / "in.pth")
    convert(tmp_path / "in.pth", tmp_path / "out.ckpt", "--normalize", str(normalize))
    found = checkpoint.load(str(tmp_path / "out.ckpt"), "simclr", "test")
    encoder = build_encoder(found.network)
    encoders.load_weights(encoder, found)
    encoder.set_train(False)
    images = np.ascontiguousarray(random_images(3).pixels.transpose(0, 3, 1, 2))
    images = images if cifar_stem else images.repeat(2, 2).repeat(2, 3)
    pixels = torch.from_numpy(images).float() / 255
    if normalize:
        data_set = dataset.DATA_SETS["cifar10"]
        pixels = (pixels - torch.tensor(data_set.mean).view(3, 1, 1)) / torch.tensor(data_set.std).view(3, 1, 1)
    with torch.no_grad():
        expected = model.features(pixels).numpy()
    assert np.abs(encoder(Tensor(images)).asnumpy() - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("nest", [
    lambda state: state, lambda state: {"epoch": 3, "arch": "resnet18", "state_dict": state},
    lambda state: {"model": {"state_dict": state}, "optimizer": {}}])
@pytest.mark.parametrize("suffix", ["pth", "pt"])
def test_pickles_round_trip_to_the_bit(tmp_path, torch, model_of, caplog, nest, suffix):
    weights = any_bits(RESNET18)
    state = {name: torch.from_numpy(value) for name, value in weights.items()}
    torch.save(nest(state), tmp_path / "in.pth.tar")
    with caplog.at_level(logging.INFO, "simclr"):
        convert(tmp_path / "in.pth.tar", tmp_path / "out.ckpt")
        convert(tmp_path / "out.ckpt", tmp_path / f"back.{suffix}")
    assert ("left out: epoch, arch (beside state_dict)" in caplog.text) == ("epoch" in nest(state))
    back = torch.load(tmp_path / f"back.{suffix}", weights_only=True)
    same_bits({name: value.numpy() for name, value in back.items()}, encoder_alone(weights))
    model = model_of("resnet18")
    model.fc = torch.nn.Identity()
    model.load_state_dict(back)  # strictly


def test_pickles_that_are_refused(tmp_path, torch):
    source, target = tmp_path / "in.pth", tmp_path / "new" / "out.ckpt"
    source.write_bytes(b"no pickle")
    assert "in.pth is no file of tensors alone that PyTorch can read (Unsupported operand" in fails(source, target)
    source.write_bytes(b"")
    assert "that PyTorch can read (EOFError)" in fails(source, target)
    torch.save(torch.nn.Linear(2, 2), source)
    assert re.search(r"\(Unsupported (global|class).*Linear.*\); save the state dict", fails(source, target))
    ours = tmp_path / "ours.ckpt"
    checkpoint.save(ours, [], {"holds": "simclr"})
    assert fails(ours, target).endswith("(a checkpoint of this project goes to a target for PyTorch)")
    torch.save({"net": {"a": torch.zeros(1)}, "epoch": 3}, source)
    assert "no state dict of tensors, alone or under state_dict or model, but net, epoch;" in fails(source, target)
    torch.save([1, 2], source)
    assert "no state dict of tensors, alone or under state_dict or model, but list;" in fails(source, target)
    torch.save({"conv1.weight": torch.zeros(2, dtype=torch.bfloat16)}, source)
    assert "conv1.weight is torch.bfloat16, takes float32" in fails(source, target)


# --- the scripts; without PyTorch ---

@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a small CIFAR-10 and converted weights without a head, ``weights.ckpt``."""
    folder = write_cifar(tmp_path_factory.mktemp("work"), train=40, test=20)
    safetensors.save_file(filled(RESNET18), str(folder / "weights.safetensors"))
    result = start_script("convert.py", "--source_path", "weights.safetensors", "--target_path", "weights.ckpt",
                          cwd=folder)
    assert result.stderr == ""
    assert done(result).splitlines() == [
        "weights.safetensors: resnet18, width x 0.0625, CIFAR stem (3x3)",
        "no projection head: enough for linear_eval.py and export.py",
        "pixels: red, green, blue, from 0 to 1, less (0.4914, 0.4822, 0.4465), divided by (0.247, 0.2435, 0.2616)",
        "left out: fc.bias, fc.weight",
        "left out: 20 num_batches_tracked, PyTorch's counts of batches, on which nothing here depends",
        "written: weights.ckpt"]
    return folder


def test_a_refusal_of_a_process(work):
    before = sorted(work.rglob("*"))
    refused(start_script("convert.py", "--source_path", "weights.safetensors", "--target_path", "new/w.ckpt", "--stem",
                         "imagenet", cwd=work), "--stem: got imagenet, the ImageNet stem .* has the CIFAR stem")
    assert sorted(work.rglob("*")) == before


@pytest.mark.long
def test_converted_weights_are_evaluated(work):
    out = done(call_script("linear_eval.py", "--encoder_checkpoint_path", "weights.ckpt", "--train_dataset_path", ".",
                           "--epoch_size", "1", "--batch_size", "20", "--train_output_path", "evaluated", cwd=work))
    assert re.search("^encoder: resnet18, width x 0.0625, 32 features, after an unknown number of epochs, from ",
                     out, re.M)
    (record,) = of_kind(records.LINEAR_EVAL, work / "evaluated")
    assert record["encoder_epoch"] is None


@pytest.mark.long
def test_converted_weights_are_exported(work):
    done(call_script("export.py", "--ckpt_simclr_encoder", "weights.ckpt", "--file_name", "encoder", cwd=work))
    assert ms.nn.GraphCell(ms.load(str(work / "encoder.mindir")))(
        Tensor(np.zeros((1, 3, 32, 32), np.uint8))).shape == (1, 32)


@pytest.mark.long
def test_training_takes_converted_weights_with_a_fresh_head(work):
    out = done(call_script("train.py", "--pre_trained_path", "weights.ckpt", "--train_dataset_path", ".",
                           "--epoch_size", "1", "--batch_size", "20", "--train_output_path", "tuned",
                           "--projection_dimension", "8", "--eval_every", "0", cwd=work))
    assert re.search("^weights from .*, after an unknown number of epochs; projection head and optimizer begin anew$",
                     out, re.M)
    begun = checkpoint.load(str(work / "tuned" / "checkpoint" / "checkpoint_simclr-0.ckpt"), "simclr", "test")
    given = values(work / "weights.ckpt")
    same_bits(given, {name: begun.parameters[name].asnumpy() for name in given})
    assert all(name.startswith("encoder.") for name in given)
    assert begun.network.mean and begun.network.projection_dimension == 8
    assert begun.parameters["projection_head.dense1.weight"].asnumpy().any()


def test_a_run_is_not_resumed_from_converted_weights(work):
    folder = work / "resumed" / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "latest").symlink_to(work / "weights.ckpt")
    refused(call_script("train.py", "--resume", "--train_dataset_path", ".", "--train_output_path", "resumed",
                        cwd=work),
            "^train.py: --resume: .*weights.ckpt was converted or fine-tuned, and is no run of train.py; "
            "begin one with its weights: --pre_trained_path, and another --train_output_path\n$")


@pytest.fixture(scope="module")
def told(work):
    """``told.safetensors``, which convert.py has written, and so tells of its network."""
    done(call_script("convert.py", "--source_path", "weights.ckpt", "--target_path", "told.safetensors", cwd=work))
    return work


@pytest.mark.long
def test_an_encoder_is_evaluated_and_exported_from_the_file_that_pytorch_reads(told):
    evaluated = []
    for file in ("weights.ckpt", "told.safetensors"):
        output = f"from_{file}"
        out = done(call_script("linear_eval.py", "--encoder_checkpoint_path", file, "--train_dataset_path", ".",
                               "--epoch_size", "1", "--batch_size", "20", "--train_output_path", output, cwd=told))
        assert re.search("^encoder: resnet18, width x 0.0625, 32 features, after an unknown number of epochs, from "
                         f".*{file}$", out, re.M)
        (record,) = of_kind(records.LINEAR_EVAL, told / output)
        evaluated.append(record["confusion"])
        done(call_script("export.py", "--ckpt_simclr_encoder", file, "--ckpt_linear_classifier",
                         f"{output}/linear_classifier/latest", "--file_name", f"{output}/model", cwd=told))
    assert evaluated[0] == evaluated[1]
    images = Tensor(np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32), np.uint8))
    one, two = (ms.nn.GraphCell(ms.load(str(told / f"from_{file}" / "model.mindir")))(images)[0].asnumpy()
                for file in ("weights.ckpt", "told.safetensors"))
    assert np.array_equal(one, two)
    refused(call_script("export.py", "--ckpt_simclr_encoder", "weights.ckpt", "--ckpt_linear_classifier",
                        "from_told.safetensors/linear_classifier/latest", "--file_name", "never", cwd=told),
            "--ckpt_linear_classifier: .*")


@pytest.mark.long
def test_training_begins_with_the_weights_of_that_file(told):
    done(call_script("train.py", "--pre_trained_path", "told.safetensors", "--train_dataset_path", ".",
                     "--epoch_size", "1", "--batch_size", "20", "--train_output_path", "told_run",
                     "--projection_dimension", "8", "--eval_every", "0", cwd=told))
    begun, given = values(told / "told_run" / "checkpoint" / "checkpoint_simclr-0.ckpt"), values(told / "weights.ckpt")
    same_bits(given, {name: begun[name] for name in given})


@pytest.mark.parametrize("file, message", [
    ("weights.safetensors", "weights.safetensors does not tell how its network takes images, .* with convert.py"),
    ("nothing.safetensors", "no file nothing.safetensors; name one with PyTorch's weights"),
    ("damaged.safetensors", "damaged.safetensors is not a safetensors file"),
    ("shorter.safetensors", "shorter.safetensors does not fit the network: layer4.1.bn2.weight is missing")])
def test_files_that_are_no_encoders_are_refused(told, file, message):
    (told / "damaged.safetensors").write_bytes((told / "told.safetensors").read_bytes()[:5000])
    with safetensors_open(told / "told.safetensors", "numpy") as there:
        weights = {name: there.get_tensor(name) for name in there.keys()  # noqa: SIM118 - it is no dict
                   if name != "layer4.1.bn2.weight"}
        safetensors.save_file(weights, str(told / "shorter.safetensors"), metadata=there.metadata())
    refused(call_script("export.py", "--ckpt_simclr_encoder", file, "--file_name", "never", cwd=told),
            f"^export.py: --ckpt_simclr_encoder: {message}")

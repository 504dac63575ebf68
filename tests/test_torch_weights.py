"""Weights of PyTorch: their features, every bit, every prefix, every error; without PyTorch."""
import json
import logging
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy as safetensors
from mindspore import Tensor
from test_resnet import Reference
from torch_layouts import (
    DEPTHS,
    HEADS,
    LAYOUTS,
    LEFT_OUT,
    RESNET18,
    WIDTH,
    any_bits,
    config,
    encoder_alone,
    fails,
    filled,
    head_of,
    mindspore_name,
    prefixed,
    same_bits,
    shapes_of,
)

from src.common.errors import UserError
from src.run import checkpoint
from src.simclr_model import encoder_of, simclr_of
from src.tasks.converting import convert
from src.tasks.torch_weights import recognise, summary


@pytest.fixture
def converted(tmp_path):
    """Write weights, convert them and load the checkpoint."""
    def call(weights, *flags):
        safetensors.save_file(weights, str(tmp_path / "in.safetensors"))
        path = convert(config(tmp_path / "in.safetensors", tmp_path / "out.ckpt", *flags))
        return checkpoint.load(str(path), "simclr", "test")
    return call



@pytest.mark.parametrize("name", DEPTHS)
@pytest.mark.parametrize("width", [WIDTH, 0.15625])
def test_encoder_and_width_are_recognised(name, width):
    weights = {key: np.empty(shape, np.float32) for key, shape in shapes_of(name, width).items()}
    found = recognise(weights, "x")
    assert found.settings == {"encoder": name, "width_multiplier": width}
    assert found.left_out == ["fc.weight", "fc.bias"]


def test_features_agree_with_numpy(converted, random_images):
    weights = filled(RESNET18)
    found = converted(weights, "--normalize", "False")
    assert found.info["settings"] == {"dataset_name": "cifar10", "image_size": 32, "normalize": False, "stem": "cifar",
                                      "encoder": "resnet18", "width_multiplier": WIDTH}
    assert (found.info["epoch"], found.info["converted_from"]) == (None, "in.safetensors")
    encoder = encoder_of(found.info["settings"])
    checkpoint.load_into(encoder.get_parameters(), checkpoint.part(found.parameters, "encoder."), "x")
    encoder.set_train(False)

    renamed = [SimpleNamespace(name=mindspore_name(name), asnumpy=lambda value=value: value)
               for name, value in encoder_alone(weights).items()]
    images = np.ascontiguousarray(random_images(2).pixels.transpose(0, 3, 1, 2))
    expected = Reference(SimpleNamespace(get_parameters=lambda: renamed), "resnet18", "cifar")(images)
    assert np.abs(encoder(Tensor(images)).asnumpy() - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_safetensors_round_trip_keeps_every_bit(converted, tmp_path, name):
    weights = any_bits(shapes_of(name))
    found = converted(weights)
    there = {parameter: value.asnumpy() for parameter, value in found.parameters.items()}
    same_bits(there, {f"encoder.{mindspore_name(key)}": value for key, value in encoder_alone(weights).items()})
    convert(config(tmp_path / "out.ckpt", tmp_path / "new" / "back.safetensors"))
    same_bits(safetensors.load_file(tmp_path / "new" / "back.safetensors"), encoder_alone(weights))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_prefix(converted, caplog, layout):
    weights = filled(RESNET18)
    given = LAYOUTS[layout](weights)
    with caplog.at_level(logging.INFO, "simclr"):
        found = converted(given)
    there = {name: value.asnumpy() for name, value in found.parameters.items()}
    same_bits({name: value for name, value in there.items() if name.startswith("encoder.")},
              {f"encoder.{mindspore_name(key)}": value for key, value in encoder_alone(weights).items()})
    settings = found.info["settings"]
    if layout in HEADS:
        assert (settings["projection_dimension"], settings["head_batch_norm"]) == (8, HEADS[layout])
        model = simclr_of(settings)
        checkpoint.load_into(model.get_parameters(), found.parameters, "x")
        expected = encoder_alone(head_of(32, 8, ("dense1", "bn1", "dense2"), HEADS[layout]))
        same_bits({name: value for name, value in there.items() if name.startswith("projection_head.")},
                  {f"projection_head.{mindspore_name(key)}": value for key, value in expected.items()})
    else:
        assert not {"projection_dimension", "head_batch_norm"} & set(settings)
        assert "no projection head" in caplog.text
    lines = [record.getMessage()[10:] for record in caplog.records if record.getMessage().startswith("left out: ")]
    counted = sum(name.endswith("num_batches_tracked") for name in given)
    counts = [f"{counted} num_batches_tracked, PyTorch's counts of batches, on which nothing here depends"]
    assert lines[-1:] == counts if counted else not any("tracked" in line for line in lines)
    names = [sorted(line.split(", ")) for line in lines if line not in counts]
    assert names == [sorted(LEFT_OUT[layout].split(", "))] if layout in LEFT_OUT else names == []
    assert ("pad their first convolution by 2" in caplog.text) == (layout == "solo-learn")


def test_stem_of_larger_images(converted, large_images):
    found = converted(filled(shapes_of("resnet18", kernel=7)))
    assert found.parameters["encoder.conv1.weight"].shape == (4, 3, 7, 7)


def test_the_stem_can_be_named(converted):
    """Weights do not tell the stride."""
    found = converted(filled(RESNET18), "--stem", "strided")
    assert found.info["settings"]["stem"] == "strided"
    assert encoder_of(found.info["settings"]).conv1.stride == (2, 2)
    found = converted(filled(shapes_of("resnet18", kernel=7)), "--stem", "imagenet")
    assert found.info["settings"]["dataset_name"] == "cifar10"
    assert found.parameters["encoder.conv1.weight"].shape == (4, 3, 7, 7)
    with pytest.raises(UserError, match=r"--stem: got imagenet, the ImageNet stem \(7x7\), but .* CIFAR stem \(3x3\)"):
        converted(filled(RESNET18), "--stem", "imagenet")


def test_the_size_of_images_is_kept(converted):
    found = converted(filled(RESNET18), "--dataset_name", "imagefolder", "--image_size", "32")
    assert (found.info["settings"]["image_size"], found.info["settings"]["stem"]) == (32, "cifar")
    with pytest.raises(UserError, match=r"got cifar10 \(32 pixels\), but --image_size asks for 64 pixels"):
        converted(filled(RESNET18), "--image_size", "64")


def test_summaries_are_short():
    assert summary(["fc.weight", "fc.bias", "queue", *(f"k.{index}" for index in range(9))]) == (
        "fc.weight, fc.bias, queue, k.* (9)")


def without(*names):
    return lambda w: {name: value for name, value in w.items() if name not in names}


@pytest.mark.parametrize("change, message", [
    (without("bn1.running_var", "layer1.0.bn1.bias"), r"in.safetensors does not fit the network: bn1.running_var is "
     "missing; layer1.0.bn1.bias is missing"),
    (lambda w: {name: value for name, value in w.items() if "bn2" not in name}, "is missing; and 29 more"),
    (lambda w: {**w, "layer1.0.se.weight": w["fc.bias"]}, "layer1.0.se.weight is unknown"),
    (lambda w: {**w, "bn1.bias": w["fc.bias"]}, "bn1.bias is ((10,), 'float32') instead of ((4,), 'float32')"),
    (lambda w: {**w, "bn1.bias": w["bn1.bias"].astype(np.float16)}, "bn1.bias is ((4,), 'float16') instead of"),
    (without("layer4.0.conv1.weight"), "does not fit a ResNet: layer4.0.conv1.weight is missing"),
    (without("conv1.weight"), "does not fit a ResNet: conv1.weight is missing"),
    (lambda w: {**w, "conv1.weight": w["fc.bias"]}, "does not fit a ResNet: conv1.weight is (10,)"),
    (lambda w: {name: value for name, value in w.items() if not name.startswith("layer3.1")},
     "has the stages BasicBlock [2, 2, 1, 2], takes one of resnet18 (BasicBlock [2, 2, 2, 2]), resnet34"),
    (lambda w: prefixed("net.", w), "holds no ResNet by torchvision's names, alone or after encoder., backbone., "
     "encoder_q., base_encoder., but net.bn1.bias, net.bn1.running_mean, net.bn1.running_var and 99 more"),
    (lambda w: {}, "holds no ResNet by torchvision's names, .* but nothing"),
    (lambda w: filled(shapes_of("resnet18", kernel=7)), "--dataset_name: got cifar10, whose images of 32 pixels take "
     "the CIFAR stem (3x3), but .*in.safetensors has the ImageNet stem (7x7)"),
])
def test_what_does_not_fit_is_named(tmp_path, change, message):
    safetensors.save_file(change(filled(RESNET18)), str(tmp_path / "in.safetensors"))
    error = fails(tmp_path / "in.safetensors", tmp_path / "new" / "out.ckpt")
    assert re.search(re.escape(message).replace(r"\.\*", ".*"), error), error


def test_flags_that_contradict(tmp_path, converted):
    converted(filled(RESNET18), "--normalize", "False", "--pretrain_epoch_size", "3")
    given, out, back = (tmp_path / name for name in ("in.safetensors", "out.ckpt", "back.safetensors"))
    assert "--encoder: got resnet50, but" in fails(given, out, "--encoder", "resnet50")
    assert "--width_multiplier: got 1.0, but" in fails(given, out, "--width_multiplier", "1")
    assert "--normalize: got True, but" in fails(out, back, "--normalize", "True")
    assert "--pretrain_epoch_size: got 4, but" in fails(out, back, "--pretrain_epoch_size", "4")
    assert "--target_path: " in fails(out, out) and "is the source itself" in fails(given, given)


def test_this_projects_files_tell_what_weights_do_not(tmp_path, converted):
    converted(filled(RESNET18), "--dataset_name", "shapes", "--stem", "strided", "--normalize", "False",
              "--pretrain_epoch_size", "3")
    out, back, again = (tmp_path / name for name in ("out.ckpt", "back.safetensors", "again.ckpt"))
    convert(config(out, back))
    convert(config(back, again))
    first, second = (checkpoint.load(str(path), "simclr", "test").info for path in (out, again))
    assert first["settings"] == second["settings"] and (first["epoch"], second["epoch"]) == (3, 3)
    expected = {"dataset_name": "shapes", "stem": "strided", "normalize": False}
    assert {name: second["settings"][name] for name in expected} == expected
    assert "--stem: got cifar, but" in fails(back, again, "--stem", "cifar")
    assert "--normalize: got True, but" in fails(back, again, "--normalize", "True")


def test_sources_that_are_none(tmp_path):
    target, file = tmp_path / "new" / "out.ckpt", tmp_path / "in.safetensors"
    assert "--source_path: no file nowhere.pth" in fails("nowhere.pth", target)
    assert "--source_path: got a.onnx, takes a file of PyTorch (.pth" in fails("a.onnx", target)
    file.write_bytes(b"no tensors")
    assert "in.safetensors is not a safetensors file" in fails(file, target)
    assert "--source_path: no checkpoint at nowhere" in fails("nowhere", tmp_path / "new" / "out.pth")
    safetensors.save_file({"bn1.bias": np.ones(4, np.float32)}, str(file))
    file.write_bytes(file.read_bytes()[:-4])
    assert "in.safetensors is not a safetensors file" in fails(file, target)


def test_bfloat16_is_refused(tmp_path):
    """NumPy has this type only where ml_dtypes is installed, so the error has two forms."""
    header, end = {}, 0
    for name, shape in RESNET18.items():
        start, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    (tmp_path / "in.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))
    error = fails(tmp_path / "in.safetensors", tmp_path / "new" / "out.ckpt")
    assert re.search("is of a type that NumPy does not have, takes float32|'bfloat16'. instead of .*'float32'", error)


def test_places_that_cannot_be_written(tmp_path):
    safetensors.save_file(filled(RESNET18), str(tmp_path / "in.safetensors"))
    (tmp_path / "file").write_text("")
    assert "--target_path: cannot write" in fails(tmp_path / "in.safetensors", tmp_path / "file" / "out.ckpt")
    convert(config(tmp_path / "in.safetensors", tmp_path / "out.ckpt"))
    assert "--target_path: cannot write" in fails(tmp_path / "out.ckpt", tmp_path / "file" / "out.safetensors")


@pytest.mark.parametrize("package, source", [("safetensors", "in.safetensors"), ("torch", "in.pth")])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package, source):
    (tmp_path / source).write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    assert f"needs the package {package}, which is not installed here; pip install {package}" in fails(
        tmp_path / source, tmp_path / "new" / "out.ckpt")


@pytest.mark.parametrize("package, suffix", [("torch", "pth"), ("safetensors.numpy", "safetensors")])
def test_writing_names_a_missing_package(tmp_path, converted, monkeypatch, package, suffix):
    converted(filled(RESNET18))
    monkeypatch.setitem(sys.modules, package, None)
    error = fails(tmp_path / "out.ckpt", tmp_path / "new" / f"back.{suffix}")
    assert error.startswith("--target_path: ") and f"needs the package {package.split('.')[0]}" in error

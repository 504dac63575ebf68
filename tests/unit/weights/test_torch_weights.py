"""Weights of PyTorch: their features, every bit, every prefix, every error; without PyTorch."""
import json
import logging
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy as safetensors
from hypothesis import given
from hypothesis import strategies as st
from mindspore import Tensor
from torch_layouts import (
    DEPTHS,
    HEADS,
    LAYOUTS,
    LEFT_OUT,
    LIGHTLY,
    RESNET18,
    SOLO_LEARN,
    WIDTH,
    any_bits,
    convert,
    encoder_alone,
    fails,
    filled,
    head_of,
    lightly_names,
    mindspore_name,
    numbered,
    prefixed,
    same_bits,
    shapes_of,
    without_fc,
)

from src.common.errors import UserError
from src.resnet import build_encoder
from src.run import checkpoint
from src.settings.network import Network
from src.simclr_model import SimCLR, build_head
from src.weights.torch_weights import read, recognise, summary


@pytest.fixture
def converted(tmp_path):
    """Write weights, convert them and load the checkpoint."""
    def call(weights, *flags):
        safetensors.save_file(weights, str(tmp_path / "in.safetensors"))
        (tmp_path / "out.ckpt").unlink(missing_ok=True)
        convert(tmp_path / "in.safetensors", tmp_path / "out.ckpt", *flags)
        return checkpoint.load(str(tmp_path / "out.ckpt"), checkpoint.ENCODER, "test")
    return call


@pytest.mark.parametrize("name", DEPTHS)
@pytest.mark.parametrize("width", [WIDTH, 0.15625])
def test_encoder_and_width_are_recognised(name, width):
    weights = {key: np.empty(shape, np.float32) for key, shape in shapes_of(name, width).items()}
    found = recognise(weights, "x")
    assert found.settings == {"encoder": name, "width_multiplier": width}
    assert found.left_out == ["fc.weight", "fc.bias"]


def test_features_agree_with_numpy(converted, random_images):
    from numpy_resnet import Reference
    weights = filled(RESNET18)
    found = converted(weights, "--normalize", "False")
    assert found.network == Network("resnet18", WIDTH, "cifar", 32)
    assert found.info["settings"] == {"dataset_name": "cifar10"}
    assert (found.info["epoch"], found.info["converted_from"]) == (None, "in.safetensors")
    encoder = build_encoder(found.network)
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
    convert(tmp_path / "out.ckpt", tmp_path / "new" / "back.safetensors")
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
    network = found.network
    if layout in HEADS:
        assert (network.projection_dimension, network.head_batch_norm) == (8, HEADS[layout])
        encoder = build_encoder(network)
        model = SimCLR(encoder, build_head(encoder.features, network))
        checkpoint.load_into(model.get_parameters(), found.parameters, "x")
        expected = encoder_alone(head_of(32, 8, ("dense1", "bn1", "dense2"), HEADS[layout]))
        same_bits({name: value for name, value in there.items() if name.startswith("projection_head.")},
                  {f"projection_head.{mindspore_name(key)}": value for key, value in expected.items()})
    else:
        assert network == network.without_head
        assert "no projection head" in caplog.text
    lines = [record.getMessage()[10:] for record in caplog.records if record.getMessage().startswith("left out: ")]
    counted = sum(name.endswith("num_batches_tracked") for name in given)
    counts = [f"{counted} num_batches_tracked, PyTorch's counts of batches, on which nothing here depends"]
    assert lines[-1:] == counts if counted else not any("tracked" in line for line in lines)
    names = [sorted(line.split(", ")) for line in lines if line not in counts]
    assert names == [sorted(LEFT_OUT[layout].split(", "))] if layout in LEFT_OUT else names == []
    assert ("solo-learn" in caplog.text) == (layout in SOLO_LEARN)


@given(st.sampled_from(sorted(LAYOUTS)), st.lists(st.sampled_from(["module.", "model.", "_orig_mod."])).map("".join))
def test_wrappers_in_any_order_change_no_more_than_names_left_out(layout, wrapper):
    given_weights = LAYOUTS[layout](filled(RESNET18))
    bare, wrapped = recognise(given_weights, "x"), recognise(prefixed(wrapper, given_weights), "x")
    assert wrapped.left_out == [wrapper + name for name in bare.left_out]
    same_bits(wrapped.weights, bare.weights)
    assert wrapped._replace(weights={}, left_out=[]) == bare._replace(weights={}, left_out=[])
    lengths = [summary(found.left_out).count(",") for found in (bare, wrapped)]
    assert lengths[0] == lengths[1]


def test_what_only_some_names_have_is_no_wrapper():
    given_weights = {**prefixed("model.", filled(RESNET18)), "criterion.weight": np.ones(1, np.float32)}
    with pytest.raises(UserError, match="^x holds no ResNet .* but model.conv1.weight, model.bn1.weight, "):
        recognise(given_weights, "x")


def test_an_encoder_without_its_first_relu_is_refused():
    cut = prefixed("backbone.", numbered(lightly_names(without_fc(filled(RESNET18))), LIGHTLY))
    with pytest.raises(UserError) as error:
        recognise(prefixed("model.", cut), "x")
    assert re.fullmatch("x has its first stage at model.backbone.2, right after the batch norm, .* and so no ReLU "
                        "between them; takes a ResNet with that ReLU, .*; train .*", str(error.value)), str(error.value)


@pytest.mark.parametrize("left_out, numbers", [((), "0, 1, 4, 5, 6, 7"), (("relu", "maxpool"), "0, 1, 2, 3, 4, 5")])
def test_numbers_are_those_that_pytorch_gives(left_out, numbers):
    """The ReLU that has no place in the Sequential is one that the cut network does not have."""
    torch = pytest.importorskip("torch")
    from torch_resnet import ResNet
    children = [child for name, child in ResNet("resnet18", WIDTH).named_children() if name not in left_out]
    cut = torch.nn.Sequential(*children[:-1])
    weights = {name: value.numpy() for name, value in cut.state_dict().items()}
    assert ", ".join(dict.fromkeys(name.split(".")[0] for name in weights)) == numbers
    if left_out:
        with pytest.raises(UserError, match="^x has its first stage at 2, right after the batch norm"):
            recognise(weights, "x")
    else:
        assert recognise(weights, "x").settings == {"encoder": "resnet18", "width_multiplier": WIDTH}


def test_stem_of_larger_images(converted, large_images):
    found = converted(filled(shapes_of("resnet18", kernel=7)))
    assert found.parameters["encoder.conv1.weight"].shape == (4, 3, 7, 7)


def test_the_stem_can_be_named(converted):
    """Weights do not tell the stride."""
    found = converted(filled(RESNET18), "--stem", "strided")
    assert found.network.stem == "strided"
    assert build_encoder(found.network).conv1.stride == (2, 2)
    found = converted(filled(shapes_of("resnet18", kernel=7)), "--stem", "imagenet")
    assert (found.info["settings"]["dataset_name"], found.network.stem) == ("cifar10", "imagenet")
    assert found.parameters["encoder.conv1.weight"].shape == (4, 3, 7, 7)
    with pytest.raises(UserError, match=r"--stem: got imagenet, the ImageNet stem \(7x7\), but .* CIFAR stem \(3x3\)"):
        converted(filled(RESNET18), "--stem", "imagenet")


def test_the_size_of_images_is_kept(converted):
    found = converted(filled(RESNET18), "--dataset_name", "imagefolder", "--image_size", "32")
    assert (found.network.image_size, found.network.stem) == (32, "cifar")
    with pytest.raises(UserError, match=r"got cifar10 \(32 pixels\), but --image_size asks for 64 pixels"):
        converted(filled(RESNET18), "--image_size", "64")


def test_summaries_are_short():
    assert summary(["fc.weight", "fc.bias", "queue", *(f"k.{index}" for index in range(9))]) == (
        "fc.weight, fc.bias, queue, k.* (9)")
    assert summary(["module.model.queue", *(f"module.model.k.{index}" for index in range(9))]) == (
        "module.model.queue, module.model.k.* (9)")


def without(*names):
    return lambda w: {name: value for name, value in w.items() if name not in names}


@pytest.mark.parametrize("change, message", [
    (without("bn1.running_var", "layer1.0.bn1.bias"), r"in.safetensors does not fit the network: bn1.running_var is "
     "missing; layer1.0.bn1.bias is missing"),
    (lambda w: {name: value for name, value in w.items() if "bn2" not in name}, "is missing; and 29 more"),
    (lambda w: {**w, "layer1.0.se.weight": w["fc.bias"]}, "layer1.0.se.weight is unknown"),
    (lambda w: {**w, "scale": w["fc.bias"]}, "scale is unknown"),
    (lambda w: {**w, "bn1.bias": w["fc.bias"]}, "bn1.bias is ((10,), 'float32') instead of ((4,), 'float32')"),
    (lambda w: {**w, "bn1.bias": w["bn1.bias"].astype(np.float16)}, "bn1.bias is ((4,), 'float16') instead of"),
    (without("layer4.0.conv1.weight"), "does not fit a ResNet: layer4.0.conv1.weight is missing"),
    (without("conv1.weight"), "does not fit a ResNet: conv1.weight is missing"),
    (lambda w: {**w, "conv1.weight": w["fc.bias"]}, "does not fit a ResNet: conv1.weight is (10,)"),
    (lambda w: {name: value for name, value in w.items() if not name.startswith("layer3.1")},
     "has the stages BasicBlock [2, 2, 1, 2], takes one of resnet18 (BasicBlock [2, 2, 2, 2]), resnet34"),
    (lambda w: prefixed("model.net.", w), "holds no ResNet by torchvision's names, alone or after encoder., backbone., "
     "encoder_q., base_encoder. (with module., model. or _orig_mod. before all names or none), but "
     "model.net.bn1.bias, model.net.bn1.running_mean, model.net.bn1.running_var and 99 more"),
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
    assert "--encoder: got resnet50, but" in fails(given, tmp_path / "new.ckpt", "--encoder", "resnet50")
    assert "--width_multiplier: got 1.0, but" in fails(given, tmp_path / "new.ckpt", "--width_multiplier", "1")
    assert "--normalize: got True, but" in fails(out, back, "--normalize", "True")
    assert "--pretrain_epoch_size: got 4, but" in fails(out, back, "--pretrain_epoch_size", "4")
    assert "--target_path: " in fails(out, out) and "is the source itself" in fails(given, given)
    assert f"--target_path: {out} is there; name another file" in fails(given, out)


def test_this_projects_files_tell_what_weights_do_not(tmp_path, converted):
    converted(filled(RESNET18), "--dataset_name", "shapes", "--stem", "strided", "--normalize", "False",
              "--pretrain_epoch_size", "3")
    out, back, again = (tmp_path / name for name in ("out.ckpt", "back.safetensors", "again.ckpt"))
    convert(out, back)
    convert(back, again)
    first, second = (checkpoint.load(str(path), checkpoint.ENCODER, "test") for path in (out, again))
    assert first.network == second.network and (first.info["epoch"], second.info["epoch"]) == (3, 3)
    assert (second.network.stem, second.network.mean) == ("strided", None)
    assert second.info["settings"] == {"dataset_name": "shapes"}
    assert "--stem: got cifar, but" in fails(back, tmp_path / "new.ckpt", "--stem", "cifar")
    assert "--normalize: got True, but" in fails(back, tmp_path / "new.ckpt", "--normalize", "True")


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
    convert(tmp_path / "in.safetensors", tmp_path / "out.ckpt")
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


@pytest.mark.parametrize("version", ["1.13.1", "2.5.1+cpu"])
def test_pickles_are_not_given_to_a_pytorch_that_may_run_them(tmp_path, monkeypatch, version):
    (tmp_path / "x.pth").write_bytes(b"a pickle")
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(__version__=version))
    with pytest.raises(UserError, match=r"^--source_path: .*x.pth: PyTorch .* may run code .*take 2.6 or later"):
        read(str(tmp_path / "x.pth"), "source_path")

"""Checkpoints and weights that are damaged, foreign or hostile, given to every script that reads them."""
import json
import pickle
import shutil
import struct

import mindspore as ms
import numpy as np
import pytest
from helpers import call_script, done, write_cifar
from mindspore import Parameter, Tensor, nn
from PIL import Image
from refusals import case, link_loop, pipe, refuse, refuse_in_a_process

INFO, SETTINGS = "simclr_info", "simclr_settings"
ELSEWHERE = ("--train_dataset_path", "data", "--train_output_path", "out", "--batch_size", "10")
READERS = {
    "export": ("export.py", "--file_name", "out", "--ckpt_simclr_encoder"),
    "predict": ("predict.py", "x.png"),
    "linear_eval": ("linear_eval.py", *ELSEWHERE, "--encoder_checkpoint_path"),
    "finetune": ("finetune.py", *ELSEWHERE, "--encoder_checkpoint_path"),
    "train": ("train.py", *ELSEWHERE, "--pre_trained_path"),
    "convert": ("convert.py", "--target_path", "out.pth", "--source_path"),
}


def reading(script, file):
    """Return the command by which a script reads the encoder in ``file``."""
    return ("predict.py", file, "x.png") if script == "predict" else (*READERS[script], file)


@pytest.fixture
def place(tmp_path):
    """A folder with an image and a small CIFAR-10."""
    Image.new("RGB", (40, 40)).save(tmp_path / "x.png")
    write_cifar(tmp_path / "data", 20, 10)
    return tmp_path


@pytest.fixture(scope="module")
def encoder(finished):
    return finished / "run" / "checkpoint" / "checkpoint_simclr-3.ckpt"


@pytest.fixture(scope="module")
def classifier(finished):
    return finished / "run" / "linear_classifier" / "linear_classifier-12.ckpt"


def forge(file, source, change_info=lambda info: None, **changes):
    """Write a checkpoint with another info or other values, whose checksum is right; None takes a parameter away."""
    parameters = ms.load_checkpoint(str(source))
    info = json.loads(parameters.pop(INFO))
    text = change_info(info) or json.dumps(info)
    for name, change in changes.items():
        value = change(parameters.pop(name).asnumpy().copy())
        if value is not None:
            parameters[name] = Parameter(Tensor(value), name=name)
    ms.save_checkpoint([{"name": name, "data": value} for name, value in parameters.items()], str(file),
                       crc_check=True, append_dict={INFO: text})


def entry(name, value, part=None):
    def change(info):
        (info[part] if part else info)[name] = value
    return change


# --- what is no checkpoint ---

def flipped(path, data):
    path.write_bytes(data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])


FILES = [
    case("truncated", lambda path, data: path.write_bytes(data[:len(data) // 2]), "is not a checkpoint"),
    case("text", lambda path, data: path.write_text("epoch: 3\n"), "is not a checkpoint"),
    case("foreign", lambda path, data: ms.save_checkpoint(nn.Dense(2, 2), str(path), crc_check=True),
         "was not written by this project"),
    case("pipe", lambda path, data: pipe(path), "no checkpoint at"),
    case("link loop", lambda path, data: link_loop(path), "no checkpoint at"),
    case("folder without latest", lambda path, data: path.mkdir(), "no checkpoint at"),
    case("folder with a latest that loops", lambda path, data: (path.mkdir(), link_loop(path / "latest")),
         "no checkpoint at"),
]


@pytest.mark.parametrize("make, culprit", FILES)
def test_what_is_no_checkpoint(place, encoder, make, culprit):
    make(place / "x.ckpt", encoder.read_bytes())
    refuse(reading("export", "x.ckpt"), place, "--ckpt_simclr_encoder: .*x.ckpt", culprit)


@pytest.mark.parametrize("script", READERS)
def test_a_damaged_checkpoint_for_any_script(place, encoder, script):
    flipped(place / "x.ckpt", encoder.read_bytes())
    refuse(reading(script, "x.ckpt"), place, "(--[a-z_]+|MODEL): .*x.ckpt is damaged", "copy it again")


@pytest.mark.parametrize("script", READERS)
def test_a_classifier_is_no_encoder(place, classifier, script):
    refuse(reading(script, classifier), place, f"{classifier} holds a linear_classifier", "takes a simclr checkpoint")


@pytest.mark.parametrize("change, culprit", [
    case("no JSON", lambda info: "{", "Expecting property name"),
    case("no network", lambda info: info.pop("network") and None, "'network' is missing"),
    case("another kind", entry("holds", "everything"), "everything"),
    case("no epoch", entry("epoch", "3"), "epoch is '3'"),
    case("huge width", entry("width_multiplier", 1e9, "network"), "width_multiplier is 1000000000.0, takes")])
def test_an_info_that_makes_no_sense(place, encoder, change, culprit):
    forge(place / "x.ckpt", encoder, change)
    refuse(reading("export", "x.ckpt"), place, f"--ckpt_simclr_encoder: x.ckpt: .*{culprit}", "take another file")


# --- weights that cannot be used ---

WEIGHT, VARIANCE = "encoder.conv1.weight", "encoder.bn1.moving_variance"


@pytest.mark.parametrize("script", READERS)
def test_weights_that_are_no_numbers(place, encoder, script):
    forge(place / "x.ckpt", encoder, **{WEIGHT: lambda values: np.where(np.arange(3) == 2, np.nan, values)})
    refuse(reading(script, "x.ckpt"), place, f"x.ckpt .*{WEIGHT}.* no finite numbers", "train again")


@pytest.mark.parametrize("name, change, culprit", [
    case("negative variance", VARIANCE, lambda values: -values, "has negative values"),
    case("shape", WEIGHT, lambda values: values[:, :1], "instead of"),
    case("missing", WEIGHT, lambda values: None, "is missing"),
    case("type", WEIGHT, lambda values: values.astype(np.float16), "Float16")])
def test_weights_that_cannot_be_used(place, encoder, name, change, culprit):
    forge(place / "x.ckpt", encoder, **{name: change})
    refuse(reading("export", "x.ckpt"), place, "x.ckpt ", f"{name[len('encoder.'):]} .*{culprit}")


@pytest.mark.parametrize("flag, command", [
    ("--ckpt_linear_classifier", READERS["export"]), ("--pre_classifier_checkpoint_path", READERS["linear_eval"])])
@pytest.mark.parametrize("change, culprit", [
    case("an encoder", None, "holds a simclr"),
    case("of another encoder", entry("encoder_digest", "0" * 64), "was trained on another encoder"),
    case("of fewer features", entry("features", 31), "does not fit the network")])
def test_classifiers(place, encoder, classifier, flag, command, change, culprit):
    forge(place / "x.ckpt", classifier if change else encoder, change or (lambda info: None))
    refuse((*command, encoder, flag, "x.ckpt"), place, "x.ckpt", culprit)


# --- weights for PyTorch ---

@pytest.fixture(scope="module")
def safe(encoder, tmp_path_factory):
    """A .safetensors file that convert.py has written."""
    folder = tmp_path_factory.mktemp("safe")
    done(call_script("convert.py", "--source_path", encoder, "--target_path", "safe.safetensors", cwd=folder))
    return folder / "safe.safetensors"


def with_header(change):
    """Return what writes a file with a changed header."""
    def make(path, data):
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8:8 + size])
        change(header)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size:])
    return make


def described(**changes):
    """Return what writes a file with other settings of its network."""
    def change(header):
        settings = {**json.loads(header["__metadata__"][SETTINGS]), **changes}
        header["__metadata__"][SETTINGS] = json.dumps({name: value for name, value in settings.items() if value != ""})
    return with_header(change)


NO_SAFETENSORS = "is not a safetensors file"
SAFETENSORS = [
    case("truncated", lambda path, data: path.write_bytes(data[:-1]), NO_SAFETENSORS),
    case("text", lambda path, data: path.write_text("no weights here"), NO_SAFETENSORS),
    case("header of 2^63 bytes", lambda path, data: path.write_bytes(struct.pack("<Q", 2**63) + data[8:]),
         NO_SAFETENSORS),
    case("flat", with_header(lambda header: header["conv1.weight"].update(shape=[108])), "conv1.weight is"),
    case("NaN", lambda path, data: path.write_bytes(data[:-4] + np.float32(np.nan).tobytes()), "no finite numbers"),
    case("no metadata", with_header(lambda header: header.pop("__metadata__")), "convert.py"),
    case("no data set", described(dataset_name=""), "'dataset_name' is missing"),
    case("unknown stem", described(stem="x"), "stem is 'x'"),
    case("mean of two", described(mean=[1.0, 2.0]), "mean"),
]


@pytest.mark.parametrize("make, culprit", SAFETENSORS)
def test_safetensors(place, safe, make, culprit):
    make(place / "x.safetensors", safe.read_bytes())
    refuse(reading("export", "x.safetensors"), place, "--ckpt_simclr_encoder: x.safetensors", culprit)


@pytest.mark.parametrize("script", ["linear_eval", "finetune", "train", "predict", "convert"])
def test_damaged_safetensors_for_any_script(place, safe, script):
    (place / "x.safetensors").write_bytes(safe.read_bytes()[:-1])
    command = ("convert.py", "--target_path", "out.ckpt", "--source_path", "x.safetensors")
    refuse(command if script == "convert" else reading(script, "x.safetensors"), place, "x.safetensors", NO_SAFETENSORS)


def test_a_file_describes_a_network_and_nothing_else(place, safe):
    """Other flags, such as where to write, are the user's."""
    described(target_path="elsewhere.ckpt")(place / "x.safetensors", safe.read_bytes())
    done(call_script("convert.py", "--source_path", "x.safetensors", "--target_path", "out.ckpt", cwd=place))
    assert (place / "out.ckpt").is_file() and not (place / "elsewhere.ckpt").exists()


class Malicious:
    """Makes a file wherever it is unpickled."""

    def __reduce__(self):
        return open, ("made-by-a-pickle", "w")


def torch_save(value):
    def make(path):
        import torch
        torch.save(value(torch), path)
    return make


@pytest.mark.parametrize("make", [
    case("text", lambda path: path.write_text("no pickle")),
    case("malicious", lambda path: path.write_bytes(pickle.dumps(Malicious()))),
    case("malicious in PyTorch's form", torch_save(lambda torch: {"state_dict": {"conv1.weight": Malicious()}})),
    case("a module", torch_save(lambda torch: torch.nn.Linear(2, 2))),
    case("numbers", torch_save(lambda torch: [1, 2])),
    case("another network", torch_save(lambda torch: {"a.weight": torch.zeros(2)})),
    case("sparse", torch_save(lambda torch: {"conv1.weight": torch.zeros(2, 2).to_sparse()})),
    case("half", torch_save(lambda torch: {"layer1.0.conv1.weight": torch.zeros(2, dtype=torch.bfloat16)})),
    case("pipe", pipe)])
def test_pickles(place, make):
    pytest.importorskip("torch")
    make(place / "x.pth")
    refuse(("convert.py", "--source_path", "x.pth", "--target_path", "out.ckpt"), place, "--source_path: .*x.pth")


@pytest.mark.parametrize("target, culprit", [
    ("x.png", "x.png"), ("x.safetensors", "x.safetensors"), ("x.png/out.ckpt", "cannot write")])
def test_places_where_nothing_is_written(place, safe, target, culprit):
    shutil.copyfile(safe, place / "x.safetensors")
    refuse(("convert.py", "--source_path", "x.safetensors", "--target_path", target), place, "--target_path: ", culprit)


def test_processes(place, encoder):
    """MindSpore's own libraries have nothing to add, and crash over nothing."""
    (place / "x.ckpt").write_bytes(encoder.read_bytes()[:-999] + bytes(999))
    refuse_in_a_process(reading("export", "x.ckpt"), place, "x.ckpt is not a checkpoint", "take a checkpoint of")

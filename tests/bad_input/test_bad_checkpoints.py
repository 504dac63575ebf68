"""Checkpoints and weights that are damaged, foreign or hostile, given to every script that reads them."""
import json
import os
import pickle
import shutil
import struct
import zipfile

import mindspore as ms
import numpy as np
import pytest
from helpers import write_cifar
from mindspore import Parameter, Tensor, nn
from PIL import Image
from refusals import case, device, link_loop, pipe, refuse, refuse_in_a_process

from src.run.layout import Layout
from src.weights import torch_files

INFO = "simclr_info"
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


def parts_of(file):
    """Return the parameters of a checkpoint, and the text of its info."""
    parameters = ms.load_checkpoint(str(file))
    return parameters, parameters.pop(INFO)


def forge(file, parameters, text):
    """Write a checkpoint whose checksum is right."""
    ms.save_checkpoint([{"name": name, "data": value} for name, value in parameters.items()], str(file),
                       crc_check=True, append_dict=None if text is None else {INFO: text})


def with_info(file, source, change):
    """Write a checkpoint with another info, ``change`` of it, which may also be a text."""
    parameters, text = parts_of(source)
    info = json.loads(text)
    found = change(info)
    forge(file, parameters, found if isinstance(found, str) else json.dumps(info if found is None else found))


def with_values(file, source, name, change):
    """Write a checkpoint with other values of one parameter; None takes it away."""
    parameters, text = parts_of(source)
    value = change(parameters.pop(name).asnumpy().copy())
    if value is not None:
        parameters[name] = Parameter(Tensor(value), name=name)
    forge(file, parameters, text)


def assigned(values, index, value):
    values[index] = value
    return values


# --- what is no checkpoint ---

NO_CHECKPOINT = "is not a checkpoint that MindSpore can read", "take one of train.py"
DAMAGED = "is damaged: its bytes do not have the checksum", "copy it again"
NOT_OURS = "was not written by this project", "take a checkpoint of train.py"
NOT_THERE = "no checkpoint at|is not there", "give a .ckpt file or a run's checkpoint folder|name an ONNX"


def zipped(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data.pkl", b"x" * 100)


def flipped(path, data):
    path.write_bytes(data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])


def foreign(path):
    ms.save_checkpoint(nn.Dense(2, 2), str(path), crc_check=True)


def tensor_for_info(path):
    forge(path, {INFO: Parameter(Tensor([1.0]), name=INFO)}, None)


FILES = [
    case("truncated", lambda path, data: path.write_bytes(data[:len(data) // 2]), *NO_CHECKPOINT),
    case("truncated by one", lambda path, data: path.write_bytes(data[:-1]), *NO_CHECKPOINT),
    case("a flipped bit", flipped, *DAMAGED),
    case("random bytes", lambda path, data: path.write_bytes(np.random.default_rng(0).bytes(4096)), *NO_CHECKPOINT),
    case("zeros", lambda path, data: path.write_bytes(bytes(4096)), *NO_CHECKPOINT),
    case("empty", lambda path, data: path.write_bytes(b""), "is not a checkpoint|was not written", "train.py"),
    case("text", lambda path, data: path.write_text("epoch: 3\n"), *NO_CHECKPOINT),
    case("JSON", lambda path, data: path.write_text('{"holds": "simclr"}'), *NO_CHECKPOINT),
    case("ZIP", lambda path, data: zipped(path), *NO_CHECKPOINT),
    case("checksum alone", lambda path, data: path.write_bytes(b"crc_num" + bytes(10)), *NO_CHECKPOINT),
    case("foreign", lambda path, data: foreign(path), *NOT_OURS),
    case("a tensor for the info", lambda path, data: tensor_for_info(path), *NOT_OURS),
    case("pipe", lambda path, data: pipe(path), *NOT_THERE),
    case("device", lambda path, data: device(path), *NOT_THERE),
    case("link loop", lambda path, data: link_loop(path), *NOT_THERE),
    case("dangling link", lambda path, data: path.symlink_to("nowhere"), *NOT_THERE),
    case("folder without latest", lambda path, data: path.mkdir(), *NOT_THERE),
    case("folder with a dangling latest", lambda path, data: (path.mkdir(), (path / "latest").symlink_to("gone.ckpt")),
         *NOT_THERE),
    case("folder with a latest that loops", lambda path, data: (path.mkdir(), link_loop(path / "latest")), *NOT_THERE),
    case("folder with a folder", lambda path, data: (path / "latest").mkdir(parents=True), *NOT_THERE),
]


@pytest.mark.parametrize("script", ["export", "predict"])
@pytest.mark.parametrize("make, culprit, remedy", FILES)
def test_what_is_no_checkpoint(place, encoder, script, make, culprit, remedy):
    make(place / "x.ckpt", encoder.read_bytes())
    refuse(reading(script, "x.ckpt"), place, f": x.ckpt.*({culprit})|({culprit}) x.ckpt", remedy)


@pytest.mark.parametrize("script", READERS)
@pytest.mark.parametrize("make, culprit, remedy", [FILES[index] for index in (0, 2, 10, 12)])
def test_what_is_no_checkpoint_for_any_script(place, encoder, script, make, culprit, remedy):
    make(place / "x.ckpt", encoder.read_bytes())
    refuse(reading(script, "x.ckpt"), place, f"(--[a-z_]+|MODEL): .*({culprit})", remedy)


def test_a_path_that_is_too_long(place):
    refuse(reading("export", "x" * 300 + ".ckpt"), place, "--ckpt_simclr_encoder: .*x.ckpt", "takes a path")
    refuse(reading("predict", "x" * 300 + ".ckpt"), place, "MODEL: x+.ckpt: .*File name too long", "check that")


# --- an info that makes no sense ---

def setting(name, value, part="network"):
    def change(info):
        info[part][name] = value
    return change


def entry(name, value):
    def change(info):
        info[name] = value
    return change


def without(name, part=None):
    def change(info):
        del (info[part] if part else info)[name]
    return change


INFOS = [
    case("no JSON", lambda info: "{", "Expecting property name"),
    case("empty", lambda info: "", "Expecting value"),
    case("a list", lambda info: "[1]", "no JSON object"),
    case("a number", lambda info: "3", "no JSON object"),
    case("null", lambda info: "null", "no JSON object"),
    case("deep nesting", lambda info: "[" * 100_000, "recursion"),
    case("control characters", lambda info: '{"holds": "\\u001b[31m\\nx"}', "holds is"),
    case("an endless number", lambda info: '{"holds": ' + "9" * 5000 + "}", "digits"),
    case("no holds", without("holds"), "'kind' is missing"),
    case("another holds", entry("holds", "everything"), "holds is 'everything'"),
    case("no network", without("network"), "'network' is missing"),
    case("a list for the network", entry("network", [1]), "list"),
    case("null for the network", entry("network", None), "None"),
    case("no encoder", without("encoder", "network"), "encoder"),
    case("an unknown encoder", setting("encoder", "resnet9"), "encoder is 'resnet9', takes one of resnet18"),
    case("a list for the encoder", setting("encoder", ["resnet18"]), "encoder is"),
    case("negative width", setting("width_multiplier", -1), "width_multiplier is -1, takes a number"),
    case("no width", setting("width_multiplier", 0), "width_multiplier is 0"),
    case("huge width", setting("width_multiplier", 1e9), "width_multiplier is 1000000000.0, takes"),
    case("NaN for the width", setting("width_multiplier", float("nan")), "width_multiplier is nan"),
    case("a text for the width", setting("width_multiplier", "0.0625"), "width_multiplier is '0.0625'"),
    case("a boolean for the width", setting("width_multiplier", True), "width_multiplier is True"),
    case("an unknown stem", setting("stem", "x"), "stem is 'x', takes one of cifar"),
    case("a text for the side", setting("image_size", "32"), "image_size is '32'"),
    case("no side", setting("image_size", 0), "image_size is 0, takes an integer of at least"),
    case("half a side", setting("image_size", 32.5), "image_size is 32.5"),
    case("mean of two", setting("mean", [0.5, 0.5]), "mean is"),
    case("mean of texts", setting("mean", ["a", "b", "c"]), "mean is"),
    case("mean without deviation", setting("std", None), "mean is|std is"),
    case("infinite mean", setting("mean", [0.5, 0.5, float("inf")]), "mean is"),
    case("no deviation", setting("std", [0.2, 0, 0.2]), "std is"),
    case("negative deviation", setting("std", [0.2, -1, 0.2]), "std is"),
    case("tiny deviation", setting("std", [0.2, 1e-300, 0.2]), "std is"),
    case("a text for the head", setting("projection_dimension", "8"), "projection_dimension is '8'"),
    case("negative head", setting("projection_dimension", -8), "projection_dimension is -8"),
    case("a number for a switch", setting("head_batch_norm", 1), "head_batch_norm is 1, takes True or False"),
    case("null for a switch", setting("head_batch_norm", None), "head_batch_norm is None"),
    case("no settings", without("settings"), "'settings' is missing"),
    case("a text for the settings", entry("settings", "x"), "'str' object"),
    case("no data set", without("dataset_name", "settings"), "'dataset_name' is missing"),
    case("an unknown data set", setting("dataset_name", "../../etc", "settings"), "dataset_name is"),
    case("no epoch", without("epoch"), "'epoch' is missing"),
    case("a text for the epoch", entry("epoch", "3"), "epoch is '3'"),
    case("a negative epoch", entry("epoch", -1), "epoch is -1"),
    case("a run without epoch", entry("epoch", None), "epoch is None"),
    case("an old info that is none", lambda info: {"kind": "simclr", "settings": {}}, "is missing"),
    case("an old info of no data set", lambda info: {"kind": "simclr", "settings": {"dataset_name": [1]}},
         "unhashable"),
]


@pytest.mark.parametrize("change, culprit", INFOS)
def test_what_a_checkpoint_says_of_itself(place, encoder, change, culprit):
    with_info(place / "x.ckpt", encoder, change)
    refuse(reading("export", "x.ckpt"), place, f"--ckpt_simclr_encoder: x.ckpt: what it says of itself .*{culprit}",
           "take another file, or make it again")


@pytest.mark.parametrize("script", READERS)
def test_what_a_checkpoint_says_of_itself_to_any_script(place, encoder, script):
    with_info(place / "x.ckpt", encoder, setting("width_multiplier", None))
    refuse(reading(script, "x.ckpt"), place, "x.ckpt: what it says of itself .*width_multiplier is None, takes a",
           "take another file, or make it again")


@pytest.mark.parametrize("change, culprit", [
    case("no temperature", without("temperature", "settings"), "'temperature' is missing"),
    case("a text for a number", setting("learning_rate", "fast", "settings"), "learning_rate is 'fast'"),
    case("no global batch", entry("global_batch", 0), "global_batch is 0"),
    case("no fingerprint", without("data"), "'data' is missing")])
def test_a_run_to_resume(place, copied, change, culprit):
    """None of its checkpoints makes sense, and none is damaged: nothing is taken away."""
    folder = Layout(copied / "run").checkpoints.folder
    for file in folder.glob("*-*.ckpt"):
        with_info(place / "x.ckpt", file, change)
        shutil.move(place / "x.ckpt", file)
    refuse(("train.py", "--resume", "--train_dataset_path", "data", "--train_output_path", "run"), copied, culprit,
           "take another file, or make it again")


@pytest.mark.parametrize("size, culprit", [
    case("wider", setting("width_multiplier", 16), "conv2.weight is .* instead of"),
    case("deeper", setting("encoder", "resnet101"), "conv2.weight is missing"),
    case("larger head", setting("projection_dimension", 10**5), "dense2.weight is .* instead of")])
@pytest.mark.parametrize("script", ["export", "train", "convert"])
def test_a_network_that_no_memory_holds_is_not_built(place, encoder, script, size, culprit):
    with_info(place / "x.ckpt", encoder, size)
    refuse(reading(script, "x.ckpt"), place, f"x.ckpt does not fit the network: .*{culprit}", "instead of|missing")


def test_images_that_no_memory_holds(place, encoder):
    with_info(place / "x.ckpt", encoder, setting("image_size", 10**6))
    refuse(reading("export", "x.ckpt"), place, "x.ckpt: a batch of 1 images of 1000000 x 1000000|image_size is 1000000",
           "smaller --batch_size|takes an integer")


def test_a_batch_that_no_memory_holds_between_two_layers(place, encoder, monkeypatch):
    shutil.copyfile(encoder, place / "x.ckpt")
    monkeypatch.setattr(os, "sysconf", lambda name: 1000)  # a machine of a MB
    refuse((*reading("export", "x.ckpt"), "--batch_size", 1000), place,
           "x.ckpt: a batch of 1000 images takes more than", "smaller --batch_size")


# --- weights that are of no use ---

WEIGHT, VARIANCE = "encoder.conv1.weight", "encoder.bn1.moving_variance"
VALUES = [
    case("NaN", WEIGHT, lambda values: assigned(values, (0, 0, 0, 0), np.nan), "no finite numbers", "train again"),
    case("infinity", WEIGHT, lambda values: assigned(values, (-1, -1, -1, -1), -np.inf), "no finite numbers",
         "train again"),
    case("negative variance", VARIANCE, lambda values: assigned(values, 1, -1e-3), "has negative values",
         "train again"),
    case("NaN for a variance", VARIANCE, lambda values: assigned(values, 1, np.nan), "no finite numbers",
         "train again"),
    case("shape", WEIGHT, lambda values: values[:, :1], "instead of", r"\(4, 3, 3, 3\)"),
    case("missing", WEIGHT, lambda values: None, "is missing", "does not fit the network"),
    case("type", WEIGHT, lambda values: values.astype(np.float16), "Float16", "instead of"),
    case("whole numbers", VARIANCE, lambda values: values.astype(np.int32), "Int32", "instead of"),
]


@pytest.mark.parametrize("script", READERS)
@pytest.mark.parametrize("name, change, culprit, remedy", VALUES)
def test_weights_that_are_of_no_use(place, encoder, script, name, change, culprit, remedy):
    with_values(place / "x.ckpt", encoder, name, change)
    refuse(reading(script, "x.ckpt"), place, f"x.ckpt.*{name[len('encoder.'):]}.*{culprit}", remedy)


# --- one where another is expected ---

@pytest.mark.parametrize("script", READERS)
def test_a_classifier_is_no_encoder(place, classifier, script):
    refuse(reading(script, classifier), place, f"{classifier} holds a linear_classifier", "takes a simclr checkpoint")


CLASSIFIERS = [
    case("an encoder", None, "holds a simclr", "takes a linear_classifier"),
    case("of another encoder", entry("encoder_digest", "0" * 64), "was trained on another encoder", "name the encoder"),
    case("no number of classes", without("class_num"), "'class_num' is missing", "make it again"),
    case("too many names", entry("classes", ["x"] * 11), "classes is", "make it again"),
    case("names that are none", entry("classes", [1, 2]), "classes is", "make it again"),
    case("a text for the names", entry("classes", "cats"), "classes is 'cats'", "make it again"),
    case("huge", entry("class_num", 2**30), "class_num is 1073741824", "make it again"),
    case("no features", entry("features", 0), "features is 0", "make it again"),
    case("an unknown data set", entry("dataset_name", "x"), "dataset_name is 'x'", "takes one of cifar10"),
    case("a number for the digest", entry("encoder_digest", 3), "encoder_digest is 3", "make it again"),
]


@pytest.mark.parametrize("flag, command", [
    ("--ckpt_linear_classifier", ("export.py", "--file_name", "out", "--ckpt_simclr_encoder")),
    ("--pre_classifier_checkpoint_path", ("linear_eval.py", *ELSEWHERE, "--encoder_checkpoint_path"))])
@pytest.mark.parametrize("change, culprit, remedy", CLASSIFIERS)
def test_classifiers(place, encoder, classifier, flag, command, change, culprit, remedy):
    if change:
        with_info(place / "x.ckpt", classifier, change)
    else:
        shutil.copyfile(encoder, place / "x.ckpt")
    refuse((*command, encoder, flag, "x.ckpt"), place, f"x.ckpt.*{culprit}", remedy)


def test_a_classifier_that_does_not_fit_what_it_says(place, encoder, classifier):
    with_info(place / "x.ckpt", classifier, entry("features", 31))
    refuse((*READERS["export"], encoder, "--ckpt_linear_classifier", "x.ckpt"), place,
           "x.ckpt does not fit the network",
           "instead of")


# --- weights for PyTorch ---

@pytest.fixture(scope="module")
def safe(encoder, tmp_path_factory):
    """A .safetensors file that convert.py has written."""
    from helpers import call_script, done
    folder = tmp_path_factory.mktemp("safe")
    done(call_script("convert.py", "--source_path", encoder, "--target_path", "safe.safetensors", cwd=folder))
    return folder / "safe.safetensors"


def header_of(data):
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8:8 + size]), data[8 + size:]


def with_header(change):
    """Return what writes a file with a changed header, which may also be a text."""
    def make(path, data):
        header, values = header_of(data)
        found = change(header)
        text = (found if isinstance(found, str) else json.dumps(header)).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + values)
    return make


def with_told(change):
    """Return what writes a file that tells something else of its network."""
    def change_header(header):
        told = json.loads(header["__metadata__"][torch_files.DESCRIPTION])
        found = change(told)
        header["__metadata__"][torch_files.DESCRIPTION] = found if isinstance(found, str) else json.dumps(told)
    return with_header(change_header)


def told(name, value):
    return with_told(lambda settings: settings.update({name: value}))


def with_tensor(name, index, value):
    def make(path, data):
        header, values = header_of(data)
        begin, _ = header[name]["data_offsets"]
        content = bytearray(values)
        content[begin + 4 * index:begin + 4 * index + 4] = np.float32(value).tobytes()
        path.write_bytes(data[:len(data) - len(values)] + content)
    return make


def with_entry(name, **changes):
    return with_header(lambda header: header[name].update(changes))


NO_SAFETENSORS = "is not a safetensors file", "copy or download it again"
MAKES_NO_SENSE = "take another file, or make it again"
SAFETENSORS = [
    case("empty", lambda path, data: path.write_bytes(b""), *NO_SAFETENSORS),
    case("truncated header", lambda path, data: path.write_bytes(data[:100]), *NO_SAFETENSORS),
    case("truncated", lambda path, data: path.write_bytes(data[:-1]), *NO_SAFETENSORS),
    case("longer", lambda path, data: path.write_bytes(data + b"x"), *NO_SAFETENSORS),
    case("text", lambda path, data: path.write_text("no weights here"), *NO_SAFETENSORS),
    case("header beyond the file", lambda path, data: path.write_bytes(struct.pack("<Q", 10**6) + data[8:]),
         *NO_SAFETENSORS),
    case("header of 2^63 bytes", lambda path, data: path.write_bytes(struct.pack("<Q", 2**63) + data[8:]),
         *NO_SAFETENSORS),
    case("header that is no JSON", with_header(lambda header: "{" * 100), *NO_SAFETENSORS),
    case("header of another kind", with_header(lambda header: "[1, 2]"), *NO_SAFETENSORS),
    case("deep nesting", with_header(lambda header: "[" * 10_000), *NO_SAFETENSORS),
    case("unknown type", with_entry("conv1.weight", dtype="F7"), *NO_SAFETENSORS),
    case("bfloat16", with_entry("conv1.weight", dtype="BF16", shape=[8, 3, 3, 3]),
         "conv1.weight (is .*bfloat16|has a type that NumPy does not have)", "float32"),
    case("offsets out of range", with_entry("conv1.weight", data_offsets=[0, 2**40]), *NO_SAFETENSORS),
    case("offsets that overlap", with_entry("conv1.weight", data_offsets=[4, 436]), *NO_SAFETENSORS),
    case("offsets the wrong way", with_entry("conv1.weight", data_offsets=[432, 0]), *NO_SAFETENSORS),
    case("huge shape", with_entry("conv1.weight", shape=[2**62, 2**62]), *NO_SAFETENSORS),
    case("other shape", with_entry("conv1.weight", shape=[3, 4, 3, 3]), "conv1.weight is", "instead of"),
    case("flat", with_entry("conv1.weight", shape=[108]), "does not fit a ResNet", "conv1.weight is"),
    case("name twice", with_header(lambda header: json.dumps(header)[:-1] + ', "conv1.weight": ' + json.dumps(
        {**header["conv1.weight"], "data_offsets": [0, 432]}) + "}"), *NO_SAFETENSORS),
    case("control characters", with_header(lambda header: header.update(
        {"\x1b[31m\nx": header.pop("layer4.1.bn2.weight")})), "layer4.1.bn2.weight is missing",
         r"\\x1b\[31m\\nx is unknown"),
    case("NaN", with_tensor("conv1.weight", 3, np.nan), "no finite numbers", "train again"),
    case("negative variance", with_tensor("bn1.running_var", 1, -1), "has negative values", "train again"),
    case("no metadata", with_header(lambda header: header.pop("__metadata__") and None), "does not tell how",
         "convert.py"),
    case("foreign metadata", with_header(lambda header: header.update({"__metadata__": {"format": "pt"}})),
         "does not tell how", "convert.py"),
    case("metadata of numbers", with_header(lambda header: header.update({"__metadata__": {"a": 1}})), *NO_SAFETENSORS),
    case("no JSON", with_told(lambda settings: "{"), "what it says of itself", MAKES_NO_SENSE),
    case("a list", with_told(lambda settings: "[1]"), "what it says of itself", MAKES_NO_SENSE),
    case("nested", with_told(lambda settings: "[" * 100_000), "what it says of itself", MAKES_NO_SENSE),
    case("no data set", with_told(lambda settings: settings.pop("dataset_name") and None), "'dataset_name' is missing",
         MAKES_NO_SENSE),
    case("unknown data set", told("dataset_name", "\x1b[31m"), "dataset_name is", MAKES_NO_SENSE),
    case("a text for the epochs", told("pretrain_epoch_size", "9"), "epoch is '9'", MAKES_NO_SENSE),
    case("negative epochs", told("pretrain_epoch_size", -9), "epoch is -9", MAKES_NO_SENSE),
    case("unknown stem", told("stem", "x"), "stem is 'x'", MAKES_NO_SENSE),
    case("a text for the side", told("image_size", "32"), "image_size is '32'", MAKES_NO_SENSE),
    case("mean of two", told("mean", [1, 2]), "mean is", MAKES_NO_SENSE),
    case("deviation alone", told("mean", None), "std is|mean is", MAKES_NO_SENSE),
]


@pytest.mark.parametrize("make, culprit, remedy", SAFETENSORS)
def test_safetensors(place, safe, make, culprit, remedy):
    make(place / "x.safetensors", safe.read_bytes())
    refuse(reading("export", "x.safetensors"), place, f"--ckpt_simclr_encoder: x.safetensors.*({culprit})", remedy)


@pytest.mark.parametrize("make, culprit, remedy", [
    found for found in SAFETENSORS if found.id not in ("no metadata", "foreign metadata", "control characters")])
def test_safetensors_to_convert(place, safe, make, culprit, remedy):
    make(place / "x.safetensors", safe.read_bytes())
    refuse(("convert.py", "--source_path", "x.safetensors", "--target_path", "out.ckpt"), place,
           f"--source_path: x.safetensors.*({culprit})", remedy)


@pytest.mark.parametrize("script", ["linear_eval", "finetune", "train", "predict"])
@pytest.mark.parametrize("make, culprit, remedy", [
    found for found in SAFETENSORS if found.id in ("truncated", "NaN", "negative variance", "no data set")])
def test_safetensors_for_other_scripts(place, safe, script, make, culprit, remedy):
    make(place / "x.safetensors", safe.read_bytes())
    refuse(reading(script, "x.safetensors"), place, f"x.safetensors.*({culprit})", remedy)


def test_what_a_file_tells_is_nothing_but_a_network(place, safe):
    """Other flags, such as where to write, are the user's."""
    told("target_path", "elsewhere.ckpt")(place / "x.safetensors", safe.read_bytes())
    from helpers import call_script, done
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


NO_PICKLE = "is not a file of tensors that PyTorch can read", "save the state dict"
PICKLES = [
    case("empty", lambda path: path.write_bytes(b""), *NO_PICKLE),
    case("text", lambda path: path.write_text("no pickle"), *NO_PICKLE),
    case("random bytes", lambda path: path.write_bytes(np.random.default_rng(1).bytes(2000)), *NO_PICKLE),
    case("malicious", lambda path: path.write_bytes(pickle.dumps(Malicious())), *NO_PICKLE),
    case("malicious in PyTorch's form", torch_save(lambda torch: Malicious()), *NO_PICKLE),
    case("malicious in a dictionary", torch_save(lambda torch: {"state_dict": {"conv1.weight": Malicious()}}),
         *NO_PICKLE),
    case("a module", torch_save(lambda torch: torch.nn.Linear(2, 2)), *NO_PICKLE),
    case("ZIP of something else", zipped, *NO_PICKLE),
    case("numbers", torch_save(lambda torch: [1, 2]), "holds no ResNet", "save a state dict"),
    case("no weights", torch_save(lambda torch: {}), "holds no ResNet", "save a state dict"),
    case("another network", torch_save(lambda torch: {"a.weight": torch.zeros(2)}), "holds no ResNet",
         "save a state dict"),
    case("sparse", torch_save(lambda torch: {"conv1.weight": torch.zeros(2, 2).to_sparse()}), "conv1.weight has a type",
         "save the weights as float32"),
    case("half", torch_save(lambda torch: {"layer1.0.conv1.weight": torch.zeros(2, dtype=torch.bfloat16)}),
         "has a type",
         "save the weights as float32"),
    case("no sizes", torch_save(lambda torch: {name: torch.zeros(0, 0, 0, 0) for name in (
        "conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight")}), "x.pth", "take"),
    case("pipe", pipe, "no file x.pth", "name one with PyTorch's weights"),
    case("folder", lambda path: path.mkdir(), "no file x.pth", "name one with PyTorch's weights"),
    case("link loop", link_loop, "no file x.pth", "name one with PyTorch's weights"),
]


@pytest.mark.parametrize("make, culprit, remedy", PICKLES)
def test_pickles(place, make, culprit, remedy):
    pytest.importorskip("torch")
    make(place / "x.pth")
    refuse(("convert.py", "--source_path", "x.pth", "--target_path", "out.ckpt"), place, f"--source_path: .*{culprit}",
           remedy)


@pytest.mark.parametrize("make, culprit", [
    case("folder", lambda path: path.mkdir(), "out.ckpt exists already"),
    case("file", lambda path: path.write_text("mine"), "out.ckpt exists already"),
    case("dangling link", lambda path: path.symlink_to("nowhere"), "out.ckpt exists already"),
    case("link to the source", lambda path: path.symlink_to("x.safetensors"), "out.ckpt exists already")])
def test_places_of_converted_files(place, safe, make, culprit):
    shutil.copyfile(safe, place / "x.safetensors")
    make(place / "out.ckpt")
    refuse(("convert.py", "--source_path", "x.safetensors", "--target_path", "out.ckpt"), place,
           f"--target_path: {culprit}", "name another file")


@pytest.mark.parametrize("target, suffix", [("x.png/out", ".ckpt"), ("x.png/out", ".pth"), ("/proc/out", ".ckpt"),
                                            ("x" * 250, ".pth")])
def test_places_where_nothing_can_be_written(place, safe, encoder, target, suffix):
    if suffix == ".pth":
        pytest.importorskip("torch")
    refuse(("convert.py", "--source_path", safe if suffix == ".ckpt" else encoder, "--target_path", target + suffix),
           place, f"--target_path: cannot write to {target}", "a place that can be written")


# --- as processes: MindSpore's and PyTorch's own libraries have nothing to add ---

@pytest.mark.parametrize("script, make, culprit, remedy", [
    case("random bytes", "export", FILES[3].values[0], *NO_CHECKPOINT),
    case("zeros", "linear_eval", FILES[4].values[0], *NO_CHECKPOINT),
    case("ZIP", "predict", FILES[8].values[0], *NO_CHECKPOINT),
    case("a flipped bit", "finetune", flipped, *DAMAGED),
    case("NaN", "train", lambda path, data: (path.write_bytes(data), with_values(
        path, path, WEIGHT, lambda values: values * np.nan)), "no finite numbers", "train again")])
def test_processes(place, encoder, script, make, culprit, remedy):
    make(place / "x.ckpt", encoder.read_bytes())
    refuse_in_a_process(reading(script, "x.ckpt"), place, f"x.ckpt.*{culprit}", remedy)


def test_a_malicious_pickle_in_a_process(place):
    pytest.importorskip("torch")
    (place / "x.pth").write_bytes(pickle.dumps(Malicious()))
    refuse_in_a_process(("convert.py", "--source_path", "x.pth", "--target_path", "out.ckpt"), place,
                        f"--source_path: x.pth {NO_PICKLE[0]}", NO_PICKLE[1])

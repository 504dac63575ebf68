"""export.py: the files give what the live model gives, and nothing is written that does not fit."""
import importlib.util
import re
import sys

import mindspore as ms
import numpy as np
import onnxruntime
import pytest
from helpers import TEST_LABELS, call_script, done, features_of, of_kind, refused, start_script

from src.data.shapes import draw
from src.deploy import predicting
from src.run import records

IMAGES = np.ascontiguousarray(draw(37, 9).pixels.transpose(0, 3, 1, 2))  # the test images
ENCODER = ("export.py", "--ckpt_simclr_encoder", "run/checkpoint/latest", "--batch_size", "37")
CLASSIFIER = (*ENCODER, "--ckpt_linear_classifier", "run/linear_classifier/linear_classifier-12.ckpt")


def same_accuracy(probabilities, run):
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    (record,) = of_kind(records.LINEAR_EVAL, run)
    assert (probabilities.argmax(1) == TEST_LABELS).mean() == pytest.approx(record["accuracy"])


def same_features(features, run):
    assert np.allclose(features, features_of(run, "test"), atol=1e-5)


def exported(start, finished, folder, *more):
    """Export the classifier, check what is said, and return the file."""
    folder = folder / "mödels + more"
    result = start(*CLASSIFIER, "--file_name", folder / "classifier", *more, cwd=finished)
    out = done(result)
    assert result.stderr == ""
    assert re.search(r"^largest difference to the live model on random images: \S+$", out, re.M)
    return next(file for file in folder.iterdir() if file.suffix != ".json")


def test_a_mindir_file_gives_the_probabilities(finished, tmp_path):
    file = exported(start_script, finished, tmp_path)
    file = file.rename(tmp_path / "classifier.mindir")  # MindSpore does not read from a folder of such a name either
    probabilities, features = ms.nn.GraphCell(ms.load(str(file)))(ms.Tensor(IMAGES))
    same_accuracy(probabilities.asnumpy(), finished / "run")
    same_features(features.asnumpy(), finished / "run")


def test_an_onnx_file_gives_the_probabilities(finished, tmp_path):
    file = exported(call_script, finished, tmp_path, "--file_format", "ONNX")
    assert file.name == "classifier.onnx"
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    probabilities, features = session.run(None, {session.get_inputs()[0].name: IMAGES})
    same_accuracy(probabilities, finished / "run")
    same_features(features, finished / "run")


def test_float_images_from_0_to_1_give_the_same(finished, tmp_path):
    file = exported(call_script, finished, tmp_path, "--file_format", "ONNX", "--input", "float32")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    probabilities, features = session.run(None, {"images": IMAGES.astype(np.float32) / 255})
    same_accuracy(probabilities, finished / "run")
    same_features(features, finished / "run")


def test_exported_encoder_gives_the_features(finished, tmp_path, trace):
    done(call_script(*ENCODER, "--file_name", tmp_path / "encoder.mindir", cwd=finished))
    trace.check(tmp_path)
    features = ms.nn.GraphCell(ms.load(str(tmp_path / "encoder.mindir")))(ms.Tensor(IMAGES)).asnumpy()
    same_features(features, finished / "run")


def test_its_own_onnx_file_is_known_without_onnxruntime(finished, tmp_path, monkeypatch):
    command = (*ENCODER, "--file_format", "ONNX", "--file_name", tmp_path / "encoder")
    done(call_script(*command, cwd=finished))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else found(name))
    assert "not checked against the live model; pip install onnxruntime" in done(call_script(*command, cwd=finished))


def test_a_file_that_gives_less_than_the_model_is_not_written(finished, tmp_path, monkeypatch):
    outputs_of = predicting.outputs_of
    monkeypatch.setattr(predicting, "outputs_of", lambda cell, images: outputs_of(cell, images)[
        :1 if isinstance(cell, ms.nn.GraphCell) else None])
    result = call_script(*CLASSIFIER, "--file_name", tmp_path / "x", cwd=finished)
    assert result.returncode == 1  # no mistake of its user's
    assert "RuntimeError: " in result.stderr and "does not give the live model's outputs, but" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize("file_format, suffix", [("MINDIR", ".mindir"), ("ONNX", ".onnx")])
def test_only_its_own_files_are_replaced(finished, tmp_path, file_format, suffix):
    command = (*ENCODER, "--file_format", file_format, "--file_name", tmp_path / "encoder")
    target = tmp_path / f"encoder{suffix}"
    target.write_bytes(b"mine")
    refused(call_script(*command, cwd=finished), f"--file_name: .*encoder{suffix} is there, and is no file of this")
    assert target.read_bytes() == b"mine" and list(tmp_path.iterdir()) == [target]
    done(call_script(*command, "--overwrite", cwd=finished))
    assert target.read_bytes() != b"mine"
    done(call_script(*command, cwd=finished))  # its own: no question


def test_a_file_beside_a_mindir_is_not_replaced_either(finished, tmp_path):
    (tmp_path / "encoder.mindir.json").write_text("{}")
    refused(call_script(*ENCODER, "--file_name", tmp_path / "encoder", cwd=finished),
            "--file_name: .*encoder.mindir.json is there, and is no file of this")
    assert (tmp_path / "encoder.mindir.json").read_text() == "{}" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("flags, message", [
    (("--file_format", "AIR"), "--file_format: got AIR on CPU, and MindSpore writes AIR on Ascend only"),
    (("--width_multiplier", "1"), "--width_multiplier: got 1.0, but .* was made with 0.0625"),
    (("--dataset_name", "shapes"), "--dataset_name: got shapes, but .* was made with cifar10"),
    (("--ckpt_simclr_encoder", "run/checkpoint/checkpoint_simclr-1.ckpt", "--ckpt_linear_classifier",
      "run/linear_classifier"), "--ckpt_linear_classifier: .* was trained on another encoder"),
    (("--file_name", "data/test_batch.bin/x"), "--file_name: cannot write"),
    (("--file_name", "data/"), "--file_name: got 'data/', a folder, takes the name of a file"),
])
def test_export_refuses_what_does_not_fit(finished, flags, message):
    before = sorted(finished.rglob("*"))
    refused(call_script(*ENCODER, *flags, cwd=finished), message)
    assert sorted(finished.rglob("*")) == before


@pytest.mark.long
def test_a_refusal_of_a_process(finished):
    refused(start_script(*ENCODER, "--encoder", "resnet50", cwd=finished), "--encoder: got resnet50, but .* resnet18")

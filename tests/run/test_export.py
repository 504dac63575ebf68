"""export.py: the files give the outputs of the live model, and nothing is written that does not fit."""
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


def same_outputs(probabilities, features, run):
    """Compare with the accuracy and the features that the evaluation has recorded."""
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    (record,) = of_kind(records.LINEAR_EVAL, run)
    assert (probabilities.argmax(1) == TEST_LABELS).mean() == pytest.approx(record["accuracy"])
    assert np.allclose(features, features_of(run, "test"), atol=1e-5)


def test_a_mindir_file_gives_the_outputs(finished, tmp_path):
    """From and to folders whose names MindSpore refuses."""
    folder = tmp_path / "mödels + more"
    result = start_script(*CLASSIFIER, "--file_name", folder / "classifier", cwd=finished)
    assert re.search(r"^largest difference to the live model on random images: \S+$", done(result), re.M)
    assert result.stderr == ""
    file = (folder / "classifier.mindir").rename(tmp_path / "classifier.mindir")
    probabilities, features = ms.nn.GraphCell(ms.load(str(file)))(ms.Tensor(IMAGES))
    same_outputs(probabilities.asnumpy(), features.asnumpy(), finished / "run")


@pytest.mark.parametrize("input_type, images", [("uint8", IMAGES), ("float32", IMAGES.astype(np.float32) / 255)])
def test_an_onnx_file_gives_the_outputs(finished, tmp_path, input_type, images):
    done(call_script(*CLASSIFIER, "--file_name", tmp_path / "classifier", "--file_format", "ONNX", "--input",
                     input_type, cwd=finished))
    session = onnxruntime.InferenceSession(str(tmp_path / "classifier.onnx"), providers=["CPUExecutionProvider"])
    same_outputs(*session.run(None, {"images": images}), finished / "run")


def test_an_exported_encoder_gives_the_features(finished, tmp_path, trace):
    done(call_script(*ENCODER, "--file_name", tmp_path / "encoder.mindir", cwd=finished))
    trace.check(tmp_path)
    features = ms.nn.GraphCell(ms.load(str(tmp_path / "encoder.mindir")))(ms.Tensor(IMAGES)).asnumpy()
    assert np.allclose(features, features_of(finished / "run", "test"), atol=1e-5)


def test_its_own_onnx_file_is_replaced_also_without_onnxruntime(finished, tmp_path, monkeypatch):
    command = (*ENCODER, "--file_format", "ONNX", "--file_name", tmp_path / "encoder")
    done(call_script(*command, cwd=finished))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else find_spec(name))
    assert "pip install onnxruntime" in done(call_script(*command, cwd=finished))


@pytest.mark.parametrize("spoil", [lambda outputs: outputs[:1], lambda outputs: tuple(1.01 * out for out in outputs)])
def test_a_file_that_differs_from_the_live_model_is_not_written(finished, tmp_path, monkeypatch, spoil):
    outputs_of = predicting.outputs_of
    monkeypatch.setattr(predicting, "outputs_of", lambda cell, images: (
        spoil if isinstance(cell, ms.nn.GraphCell) else tuple)(outputs_of(cell, images)))
    result = call_script(*CLASSIFIER, "--file_name", tmp_path / "x", cwd=finished)
    assert result.returncode == 1 and "RuntimeError: " in result.stderr  # a defect, not a mistake of the user
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file_format, name", [
    ("MINDIR", "encoder.mindir"), ("MINDIR", "encoder.mindir.json"), ("ONNX", "encoder.onnx")])
def test_only_its_own_files_are_replaced(finished, tmp_path, file_format, name):
    command = (*ENCODER, "--file_format", file_format, "--file_name", tmp_path / "encoder")
    (tmp_path / name).write_bytes(b"mine")
    refused(call_script(*command, cwd=finished), f"--file_name: .*{name} exists")
    assert (tmp_path / name).read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 1
    done(call_script(*command, "--overwrite", cwd=finished))
    assert (tmp_path / name).read_bytes() != b"mine"
    done(call_script(*command, cwd=finished))  # its own


@pytest.mark.parametrize("flags, culprit", [
    (("--file_format", "AIR"), "--file_format: got AIR on CPU"),
    (("--width_multiplier", "1"), "--width_multiplier: got 1.0, but .* 0.0625"),
    (("--ckpt_simclr_encoder", "run/checkpoint/checkpoint_simclr-1.ckpt", "--ckpt_linear_classifier",
      "run/linear_classifier"), "--ckpt_linear_classifier: .* another encoder"),
    (("--file_name", "data/test_batch.bin/x"), "--file_name: cannot write"),
    (("--file_name", "data/"), "--file_name: got 'data/'"),
    (("--file_name", "x" * 300), "--file_name: .*x"),
])
def test_export_refuses_what_does_not_fit(finished, flags, culprit):
    before = sorted(finished.rglob("*"))
    refused(call_script(*ENCODER, *flags, cwd=finished), culprit)
    assert sorted(finished.rglob("*")) == before

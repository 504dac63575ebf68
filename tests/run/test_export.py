"""export.py: nothing is written that does not fit. (test_predict.py says what the files give.)"""
import importlib.util
import sys

import mindspore as ms
import pytest
from helpers import call_script, done, refused

from src.deploy import predicting

ENCODER = ("export.py", "--ckpt_simclr_encoder", "run/checkpoint/latest", "--batch_size", "37")
CLASSIFIER = (*ENCODER, "--ckpt_linear_classifier", "run/linear_classifier/linear_classifier-12.ckpt")


@pytest.mark.parametrize("file_format, names", [
    ("MINDIR", ("encoder.mindir", "encoder.mindir.json")), ("ONNX", ("encoder.onnx",))])
def test_only_its_own_files_are_replaced(finished, tmp_path, trace, monkeypatch, file_format, names):
    command = (*ENCODER, "--file_format", file_format, "--file_name", tmp_path / "encoder")
    for name in names:
        (tmp_path / name).write_bytes(b"mine")
        refused(call_script(*command, cwd=finished), f"--file_name: .*{name} exists")
        assert (tmp_path / name).read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 1
        (tmp_path / name).unlink()
    (tmp_path / names[0]).write_bytes(b"mine")
    done(call_script(*command, "--overwrite", cwd=finished))
    assert (tmp_path / names[0]).read_bytes() != b"mine"
    trace.check(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else find_spec(name))
    said = done(call_script(*command, cwd=finished))  # its own
    assert ("pip install onnxruntime" in said) == (file_format == "ONNX")


def test_a_file_that_differs_from_the_live_model_is_not_written(finished, tmp_path, monkeypatch):
    outputs_of = predicting.outputs_of
    monkeypatch.setattr(predicting, "outputs_of", lambda cell, images: tuple(
        (1.01 if isinstance(cell, ms.nn.GraphCell) else 1) * output for output in outputs_of(cell, images)))
    result = call_script(*CLASSIFIER, "--file_name", tmp_path / "x", cwd=finished)
    assert result.returncode == 1 and "RuntimeError: " in result.stderr  # a defect, not a mistake of the user
    assert list(tmp_path.iterdir()) == []


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

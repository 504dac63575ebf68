"""Exported models that are damaged or foreign, and places where nothing can be written."""
import json

import onnx
import pytest
from helpers import start_script, state_of
from PIL import Image
from refusals import case, check_refused, link_loop, pipe, refuse, refuse_in_a_process

from src.deploy import signature
from src.deploy.signature import Signature

AGAIN = "export it again with export.py"


@pytest.fixture
def place(tmp_path):
    """A folder with an image."""
    Image.new("RGB", (40, 40)).save(tmp_path / "x.png")
    return tmp_path


def with_metadata(metadata):
    """Return a function that writes an ONNX file with other metadata."""
    def make(path, whole):
        model = onnx.load_from_string(whole)
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, metadata)
        path.write_bytes(model.SerializeToString())
    return make


@pytest.mark.parametrize("make, culprit, remedy", [
    case("pipe", lambda path, whole: pipe(path), "no file x.onnx", "name an ONNX or MINDIR file"),
    case("no signature", with_metadata({}), "no signature", AGAIN),
    case("damaged signature", with_metadata({"simclr": "{"}), "damaged", AGAIN),
])
def test_onnx(models, place, make, culprit, remedy):
    make(place / "x.onnx", (models / "classifier.onnx").read_bytes())
    refuse(("predict.py", "x.onnx", "x.png"), place, f"predict.py: MODEL: .*{culprit}", remedy)


def test_onnx_in_a_process(models, place):
    """onnxruntime itself writes nothing."""
    (place / "x.onnx").write_bytes((models / "classifier.onnx").read_bytes()[:5000])
    refuse_in_a_process(("predict.py", "x.onnx", "x.png"), place, "MODEL: x.onnx .*onnxruntime", AGAIN)


@pytest.mark.parametrize("change, beside, culprit", [
    case("alone", lambda whole: whole, None, "no signature x.mindir.json"),
    case("truncated", lambda whole: whole[:-1], lambda values: values, "another file"),
    case("no digest", lambda whole: whole, lambda values: {**values, "sha256": None}, "another file"),
    case("damaged signature", lambda whole: whole, lambda values: {**values, "side": -1}, "damaged"),
])
def test_mindir(models, place, change, beside, culprit):
    (place / "x.mindir").write_bytes(change((models / "classifier.mindir").read_bytes()))
    if beside:
        values = json.loads((models / "classifier.mindir.json").read_text())
        (place / "x.mindir.json").write_text(json.dumps(beside(values)))
    refuse(("predict.py", "x.mindir", "x.png"), place, f"predict.py: MODEL: x.mindir.*{culprit}", AGAIN)


def test_a_mindir_file_that_mindspore_cannot_read(models, place):
    """Its signature fits, so MindSpore reads it: in a process of its own, which it might end."""
    (place / "x.mindir").write_bytes(bytes(5000))
    signature.write_beside(place / "x.mindir", Signature.of((models / "classifier.mindir.json").read_text(), "x"))
    before = state_of(place)
    result = start_script("predict.py", "x.mindir", "x.png", cwd=place, timeout=60)
    *own, last = result.stderr.splitlines()
    check_refused(result._replace(stderr=last + "\n"), "MODEL: x.mindir .*MindSpore", AGAIN)
    assert all(line.startswith("[ERROR] CORE") for line in own) and state_of(place) == before


@pytest.mark.parametrize("flags, culprit, remedy", [
    case("features nowhere", ("--features", "none/x.npz"), "--features: .*none/x.npz", "name a file"),
    case("picture in a folder", ("--picture", "folder.png"), "--picture: .*folder.png", "name a file"),
    case("no neighbours", ("--neighbours", "folder.png"), "--neighbours: folder.png", "name a folder"),
    case("neighbours in a loop", ("--neighbours", "loop"), "--neighbours: loop", "name an image"),
    case("a name too long", ("x" * 300,), "IMAGE: x+: .*File name too long", "check that"),
    case("control characters", ("\x1b[31m\nx",), r"IMAGE: \\x1b\[31m\\nx ", "name an image"),
    case("a classifier for ONNX", ("--classifier", "x.png"), "--classifier: got x.png", "leave the flag out"),
])
def test_arguments_of_predict(models, place, flags, culprit, remedy):
    (place / "folder.png").mkdir()
    link_loop(place / "loop")
    refuse(("predict.py", models / "classifier.onnx", "x.png", *flags), place, culprit, remedy)

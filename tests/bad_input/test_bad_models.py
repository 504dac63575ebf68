"""Exported models that are damaged, foreign or hostile, and places where nothing can be written."""
import json
import shutil

import numpy as np
import onnx
import pytest
from helpers import call_script, done, start_script, state_of
from PIL import Image
from refusals import case, check_refused, device, link_loop, pipe, refuse, refuse_in_a_process

from src.deploy import signature
from src.deploy.signature import Signature


@pytest.fixture
def place(tmp_path):
    """A folder with an image."""
    Image.new("RGB", (40, 40)).save(tmp_path / "x.png")
    return tmp_path


def with_metadata(change):
    """Return what writes an ONNX file that says something else of itself; None takes that away."""
    def make(path, whole):
        model = onnx.load_from_string(whole)
        told = json.loads(model.metadata_props[0].value)
        found = change(told)
        del model.metadata_props[:]
        if found is not None:
            onnx.helper.set_model_props(model, {"simclr": found if isinstance(found, str) else json.dumps(found)})
        path.write_bytes(model.SerializeToString())
    return make


def told(name, value):
    return with_metadata(lambda found: {**found, name: value})


def another_model(path, whole):
    """Two inputs and nothing that says how it takes images."""
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "ab"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["a", "b"], ["c"])], "g", inputs, [
        onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, [1])])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())


NO_ONNX, DAMAGED = "is no ONNX file that onnxruntime can run", "what it says of its images is damaged"
AGAIN = "export it again with export.py"
ONNX = [
    case("empty", lambda path, whole: path.write_bytes(b""), f"{NO_ONNX}|does not say", AGAIN),
    case("random bytes", lambda path, whole: path.write_bytes(np.random.default_rng(0).bytes(9999)), NO_ONNX, AGAIN),
    case("text", lambda path, whole: path.write_text("no model"), NO_ONNX, AGAIN),
    case("truncated", lambda path, whole: path.write_bytes(whole[:len(whole) // 3]), NO_ONNX, AGAIN),
    case("pipe", lambda path, whole: pipe(path), "is no file", "name an ONNX or MINDIR file"),
    case("device", lambda path, whole: device(path), "is no file", "name an ONNX or MINDIR file"),
    case("folder", lambda path, whole: path.mkdir(), "is no file", "name an ONNX or MINDIR file"),
    case("link loop", lambda path, whole: link_loop(path), "is not there", "name an ONNX or MINDIR file"),
    case("another model", another_model, "does not say how it takes images", AGAIN),
    case("no metadata", with_metadata(lambda found: None), "does not say how it takes images", AGAIN),
    case("no JSON", with_metadata(lambda found: "{"), DAMAGED, AGAIN),
    case("a list", with_metadata(lambda found: "[]"), DAMAGED, AGAIN),
    case("deep nesting", with_metadata(lambda found: "[" * 100_000), DAMAGED, AGAIN),
    case("nothing told", with_metadata(lambda found: {}), DAMAGED, AGAIN),
    case("unknown type", told("dtype", "int8"), f"{DAMAGED}.*dtype 'int8'", AGAIN),
    case("another side", told("side", 31), "takes images .*32, 32.*, and says otherwise", AGAIN),
    case("another batch", told("batch_size", 2), "and says otherwise", AGAIN),
    case("huge side", told("side", 2**30), f"{DAMAGED}.*side", AGAIN),
    case("a batch that no memory holds", told("batch_size", 2**19), f"{DAMAGED}.*batches of", AGAIN),
    case("a text for the side", told("side", "32"), f"{DAMAGED}.*side '32'", AGAIN),
    case("more features", told("features", 33), "gives other outputs than it says", AGAIN),
    case("more classes", told("classes", ["x"] * 11), "gives other outputs than it says", AGAIN),
    case("an encoder", told("classes", None), "without a classifier", "add --features or --neighbours"),
    case("names that are none", told("classes", [1]), f"{DAMAGED}.*classes that are no names", AGAIN),
    case("control characters", told("dtype", "\x1b[31m\nx"), f"{DAMAGED}.*dtype", AGAIN),
]


@pytest.mark.parametrize("make, culprit, remedy", ONNX)
def test_onnx(models, place, make, culprit, remedy):
    make(place / "x.onnx", (models / "classifier.onnx").read_bytes())
    refuse(("predict.py", "x.onnx", "x.png"), place, f"predict.py: MODEL: .*({culprit})", remedy)


def with_beside(change):
    """Return what writes a MINDIR file with something else beside it."""
    def make(path, whole, beside):
        path.write_bytes(whole)
        found = change(json.loads(beside))
        path.with_name(f"{path.name}.json").write_text(found if isinstance(found, str) else json.dumps(found))
    return make


def only(make):
    """Return what writes the right thing beside a wrong file."""
    def both(path, whole, beside):
        path.with_name(f"{path.name}.json").write_text(beside)
        make(path, whole)
    return both


MINDIR = [
    case("alone", lambda path, whole, beside: path.write_bytes(whole), "has no x.mindir.json beside it", "copy it too"),
    case("truncated", only(lambda path, whole: path.write_bytes(whole[:-1])), "another file's, or one of", "copy both"),
    case("empty", only(lambda path, whole: path.write_bytes(b"")), "another file's, or one of", "copy both"),
    case("pipe", only(lambda path, whole: pipe(path)), "is no file", "export.py"),
    case("folder", only(lambda path, whole: path.mkdir()), "is no file", "export.py"),
    case("no JSON", with_beside(lambda found: "{"), DAMAGED, AGAIN),
    case("deep nesting", with_beside(lambda found: "[" * 100_000), DAMAGED, AGAIN),
    case("foreign", with_beside(lambda found: {"name": "x"}), DAMAGED, AGAIN),
    case("no digest", with_beside(lambda found: {**found, "sha256": None}), "another file's", "copy both"),
    case("another digest", with_beside(lambda found: {**found, "sha256": "0" * 64}), "another file's", "copy both"),
    case("huge side", with_beside(lambda found: {**found, "side": 10**9}), f"{DAMAGED}.*side 1000000000", AGAIN),
    case("pipe beside", lambda path, whole, beside: (path.write_bytes(whole), pipe(path.with_name("x.mindir.json"))),
         "has no x.mindir.json beside it", "copy it too"),
]


@pytest.mark.parametrize("make, culprit, remedy", MINDIR)
def test_mindir(models, place, make, culprit, remedy):
    make(place / "x.mindir", (models / "classifier.mindir").read_bytes(),
         (models / "classifier.mindir.json").read_text())
    refuse(("predict.py", "x.mindir", "x.png"), place, f"predict.py: (MODEL: )?x.mindir.*{culprit}", remedy)


@pytest.mark.parametrize("content", [b"", b"no model", bytes(5000)])
def test_a_mindir_file_that_mindspore_cannot_read(models, place, content):
    """What lies beside it fits, so MindSpore has it, and its say, in a process of its own, which it might end."""
    (place / "x.mindir").write_bytes(content)
    about = Signature.of((models / "classifier.mindir.json").read_text(), "x")
    signature.write_beside(place / "x.mindir", about)
    before = state_of(place)
    result = start_script("predict.py", "x.mindir", "x.png", cwd=place, timeout=60)
    *own, last = result.stderr.splitlines()
    check_refused(result._replace(stderr=last + "\n"), "MODEL: x.mindir is no MINDIR file", AGAIN)
    assert all(line.startswith("[ERROR] CORE") for line in own) and state_of(place) == before


@pytest.mark.parametrize("name, index", [("random bytes", 1), ("truncated", 3)])
def test_onnx_in_a_process(models, place, name, index):
    ONNX[index].values[0](place / "x.onnx", (models / "classifier.onnx").read_bytes())
    refuse_in_a_process(("predict.py", "x.onnx", "x.png"), place, f"MODEL: x.onnx {NO_ONNX}", AGAIN)


# --- what is named to predict.py ---

@pytest.mark.parametrize("flags, culprit, remedy", [
    case("features in a folder", ("--features", "folder.npz"), "--features: cannot write to folder.npz", "name a file"),
    case("features nowhere", ("--features", "none/x.npz"), "--features: cannot write to none/x.npz", "name a file"),
    case("features below a file", ("--features", "x.png/x.csv"), "--features: cannot write to x.png/x.csv",
         "name a file"),
    case("features in a name too long", ("--features", "x" * 300 + ".npz"), "--features: .*x.npz", "name a|takes a"),
    case("picture in a folder", ("--picture", "folder.png"), "--picture: cannot write to folder.png", "name a file"),
    case("picture nowhere", ("--picture", "none/x.png"), "--picture: cannot write to none/x.png", "name a file"),
    case("neighbours nowhere", ("--neighbours", "none"), "--neighbours: none is not there", "name an image"),
    case("neighbours in nothing", ("--neighbours", "folder.png"), "--neighbours: folder.png has no .jpg",
         "name a folder"),
    case("neighbours in a pipe", ("--neighbours", "pipe"), "--neighbours: none of the images there", "name another"),
    case("neighbours in a loop", ("--neighbours", "loop"), "--neighbours: loop is not there", "name an image"),
    case("image nowhere", ("none.png",), "IMAGE: none.png is not there", "name an image"),
    case("image with a name too long", ("x" * 300,), "IMAGE: x+: .*File name too long", "check that"),
    case("control characters", ("\x1b[31m\nx",), r"IMAGE: \\x1b\[31m\\nx is not there", "name an image"),
    case("classifier of another", ("--classifier", "x.png"), "--classifier: got x.png for .*classifier.onnx",
         "leave it out"),
])
def test_places_for_predicting(models, place, flags, culprit, remedy):
    for folder in ("folder.npz", "folder.png"):
        (place / folder).mkdir()
    pipe(place / "pipe")
    link_loop(place / "loop")
    command = ("predict.py", models / "classifier.onnx", "x.png", *flags)
    if "pipe" in flags:
        result = call_script(*command, cwd=place)  # a warning of the pipe comes first
        assert result.returncode == 2 and "pipe: cannot be read (it is a folder, a pipe or a device)" in (
            result.stderr.splitlines()[0])
        assert result.stderr.splitlines()[1].startswith("predict.py: --neighbours: none of the images there")
        return
    refuse(command, place, culprit, remedy)


# --- where export.py writes ---

ENCODER = ("export.py", "--ckpt_simclr_encoder", "run/checkpoint/latest")


@pytest.mark.parametrize("make, name, culprit, remedy", [
    case("folder", lambda place: (place / "out.mindir").mkdir(), "out", "--file_name: got .*out.*, a folder",
         "the name of"),
    case("named folder", lambda place: (place / "out").mkdir(), "out", "--file_name: got .*out', a folder",
         "the name of"),
    case("file of others", lambda place: (place / "out.mindir").write_text("mine"), "out", "out.mindir is there",
         "name another, or add --overwrite"),
    case("file of others beside", lambda place: (place / "out.mindir.json").write_text("{}"), "out",
         "out.mindir.json is there", "name another, or add --overwrite"),
    case("pipe", lambda place: pipe(place / "out.mindir"), "out", "out.mindir is there", "add --overwrite"),
    case("dangling link", lambda place: (place / "out.mindir").symlink_to("nowhere"), "out", "out.mindir is there",
         "add --overwrite"),
    case("name too long", lambda place: None, "x" * 300, "--file_name: .*x", "name a file in a folder|takes a path"),
])
def test_places_of_exported_files(finished, tmp_path, make, name, culprit, remedy):
    make(tmp_path)
    shutil.copytree(finished / "run" / "checkpoint", tmp_path / "run" / "checkpoint", symlinks=True)
    refuse((*ENCODER, "--file_name", name), tmp_path, culprit, remedy)


def test_a_place_where_no_model_can_be_written(finished, place):
    refuse((*ENCODER[:2], finished / "run", "--file_name", "x.png/out"), place,
           "--file_name: cannot write to x.png/out.mindir", "name a place that can be written")


@pytest.mark.parametrize("flags", [("--batch_size", 10**6), ("--batch_size", 2**31), ("--batch_size", 10**5, "--input",
                                                                                      "float32")])
def test_batches_that_no_memory_holds(finished, place, flags):
    refuse((*ENCODER[:2], finished / "run", "--file_name", "out", *flags), place, r"\d+ images of 32 x 32|--batch_size",
           "smaller --batch_size|takes an integer")


def test_classes_of_any_name_are_exported():
    """Also those that are no UTF-8, as folders may have them."""
    about = Signature("uint8", 32, 37, 1, 8, ("caf\udce9", "\x1b"), "imagefolder")
    about.text().encode("ascii")
    assert Signature.of(about.text(), "x") == about


def test_an_image_is_done_where_another_is_bad(models, place):
    (place / "bad.png").write_bytes(b"")
    result = call_script("predict.py", models / "classifier.onnx", "bad.png", "x.png", "--json", cwd=place)
    assert result.returncode == 1 and json.loads(result.stdout)["file"] == "x.png"
    assert done(call_script("predict.py", models / "classifier.onnx", "x.png", cwd=place))

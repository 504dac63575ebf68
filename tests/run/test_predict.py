"""predict.py: every form of a model gives the answers of the evaluation, for whatever images people have."""
import csv
import json
import os
import re
import shutil
import subprocess
import sys

import mindspore as ms
import numpy as np
import onnxruntime
import pytest
from helpers import ROOT, TEST_LABELS, call_script, done, features_of, of_kind, refused, start_script
from PIL import Image

from src.data.shapes import draw
from src.run import records

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PIXELS = draw(37, 9).pixels  # the test images
IMAGES = np.ascontiguousarray(PIXELS.transpose(0, 3, 1, 2))
ENCODER = ("--ckpt_simclr_encoder", "run/checkpoint/latest")
CLASSIFIER = ("--ckpt_linear_classifier", "run/linear_classifier/latest")
MINDIR = "mödels + more/classifier.mindir"


@pytest.fixture(scope="module")
def models(finished, tmp_path_factory):
    """Exported models; one from a process, with a name that MindSpore itself refuses."""
    folder = tmp_path_factory.mktemp("models")
    for name, *more in (("classifier.onnx", *CLASSIFIER, "--file_format", "ONNX", "--batch_size", "5"),
                        ("float.onnx", *CLASSIFIER, "--file_format", "ONNX", "--input", "float32",
                         "--batch_size", "37"),
                        ("encoder.onnx", "--file_format", "ONNX", "--batch_size", "64")):
        done(call_script("export.py", *ENCODER, *more, "--file_name", folder / name, cwd=finished))
    result = start_script("export.py", *ENCODER, *CLASSIFIER, "--batch_size", "37", "--file_name", folder / MINDIR,
                          cwd=finished)
    assert re.search(r"^largest difference to the live model on random images: \S+$", done(result), re.M)
    assert result.stderr == ""
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The test images as PNG files, in a folder for every class."""
    folder = tmp_path_factory.mktemp("images")
    for number, (pixels, label) in enumerate(zip(PIXELS, TEST_LABELS)):
        (folder / NAMES[label]).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / NAMES[label] / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def features(finished):
    return features_of(finished / "run", "test")


@pytest.mark.parametrize("model, images", [
    ("classifier.onnx", IMAGES[:5]), ("float.onnx", np.float32(IMAGES / 255)), (MINDIR, IMAGES)])
def test_a_file_alone_gives_the_features(models, features, tmp_path, model, images):
    if model == MINDIR:
        file = shutil.copy(models / MINDIR, tmp_path)
        probabilities, found = (given.asnumpy() for given in ms.nn.GraphCell(ms.load(str(file)))(ms.Tensor(images)))
    else:
        session = onnxruntime.InferenceSession(str(models / model), providers=["CPUExecutionProvider"])
        probabilities, found = session.run(None, {"images": images})
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    assert np.allclose(found, features[:len(images)], atol=1e-5)


def number_of(name):
    return int(name.rpartition("/")[2].partition(".")[0])


def objects(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("model", ["classifier.onnx", "float.onnx", MINDIR, "the run", "a checkpoint"])
def test_every_form_has_the_accuracy_of_the_evaluation(finished, models, images, model):
    run = finished / "run"
    command = {"the run": [run], "a checkpoint": [run / "checkpoint" / "latest", "--classifier",
                                                  run / "linear_classifier"]}.get(model, [models / model])
    result = call_script("predict.py", *command, "--json", images, cwd=ROOT)
    answers = objects(done(result))
    assert len(answers) == 37 and all(len(answer["classes"]) == 3 for answer in answers)
    right = [answer["classes"][0]["class"] == answer["file"].split("/")[-2] for answer in answers]
    (record,) = of_kind(records.LINEAR_EVAL, run)
    assert np.mean(right) == pytest.approx(record["accuracy"])


def test_the_table(models, images):
    """As a process, and with images that have nothing to do with the data set."""
    photo = images.parent / "phöto of\nme.jpg"
    Image.fromarray(PIXELS[0]).resize((640, 480)).convert("CMYK").save(photo)
    result = start_script("predict.py", models / "classifier.onnx", photo, images / "cat" / "03.png", cwd=ROOT)
    lines = done(result).splitlines()
    assert result.stderr == "" and len(lines) == 2
    assert lines[0].split("  ")[0].endswith("phöto of\\nme.jpg") and "\\n" in lines[0]
    for line in lines:
        assert line.count(" %") == 3
    session = onnxruntime.InferenceSession(str(models / "classifier.onnx"), providers=["CPUExecutionProvider"])
    probabilities = session.run(None, {"images": IMAGES[:5]})[0][3]
    best = int(probabilities.argmax())
    assert f"03.png  {NAMES[best]}" in lines[1] and f"{100 * probabilities[best]:.1f} %" in lines[1]


def test_onnx_takes_neither_mindspore_nor_anything_slow(models, images):
    code = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code
slow = {"mindspore", "torch", "sklearn", "scipy", "bokeh", "pandas", "jinja2", "onnx", "tqdm.auto"} & sys.modules.keys()
assert not slow, slow
"""
    subprocess.run([sys.executable, "-c", code, "predict.py", models / "classifier.onnx", images / "cat"], cwd=ROOT,
                   check=True, stdout=subprocess.DEVNULL, timeout=60)


@pytest.mark.parametrize("model, suffix", [("encoder.onnx", ".npz"), ("classifier.onnx", ".csv")])
def test_features_with_names_and_labels(models, images, features, tmp_path, model, suffix):
    file = tmp_path / f"features{suffix}"
    result = call_script("predict.py", models / model, images, "--features", file, cwd=ROOT)
    assert done(result) == ""  # what is said is no answer
    if suffix == ".npz":
        with np.load(file) as table:
            names, labels, rows = table["files"], table["labels"], table["features"]
    else:
        with file.open(newline="") as stream:
            header, *lines = csv.reader(stream)
        assert header[:3] == ["file", "label", "f0"]
        names, labels, rows = zip(*((line[0], line[1], np.array(line[2:], np.float32)) for line in lines))
    numbers = [number_of(name) for name in names]
    assert sorted(numbers) == list(range(37))
    assert list(labels) == [NAMES[TEST_LABELS[number]] for number in numbers]
    assert np.allclose(np.stack(rows), features[numbers], atol=1e-5)


def test_neighbours_are_the_nearest_and_not_the_image_itself(models, images, features, tmp_path):
    asked = images / "dog" / "05.png"
    result = call_script("predict.py", models / "encoder.onnx", asked, "--json", "--neighbours", images, "--picture",
                         tmp_path / "similar.png", cwd=ROOT)
    (answer,) = objects(done(result))
    assert "classes" not in answer
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = unit @ unit[5]
    expected = [number for number in np.argsort(-cosines) if number != 5][:5]
    assert [number_of(other["file"]) for other in answer["neighbours"]] == expected
    assert [other["cosine"] for other in answer["neighbours"]] == pytest.approx(cosines[expected], abs=1e-4)
    with Image.open(tmp_path / "similar.png") as picture:
        assert picture.format == "PNG" and picture.width > 6 * 90
        first = np.asarray(picture.convert("RGB"))[8:8 + 96, 8:8 + 96]
    shown = np.asarray(Image.fromarray(PIXELS[5]).resize((96, 96), Image.Resampling.LANCZOS))
    assert np.array_equal(first, shown)


def test_what_is_no_image_is_named_and_the_others_are_done(models, images, tmp_path):
    """Whatever their names are."""
    for name, content in ((b"a.png", b""), (b"caf\xe9.jpg", b"no image"), (b"bad\x1b[2J\n.png", b"no image"),
                          (b"d.png", (images / "cat" / "03.png").read_bytes()[:200]), (b"notes.txt", b"text")):
        (tmp_path / os.fsdecode(name)).write_bytes(content)
    Image.fromarray(PIXELS[0]).save(tmp_path / os.fsdecode(b"g\xf6od\x07.png"))
    result = start_script("predict.py", models / "classifier.onnx", tmp_path, images / "cat" / "03.png", cwd=ROOT)
    first, second = result.stdout.splitlines()
    assert "g\\udcf6od\\x07.png  " in first and "03.png  " in second
    lines = result.stderr.splitlines()
    for name in ("a.png: ", "caf\\udce9.jpg: ", "bad\\x1b[2J\\n.png: ", "d.png: ", "notes.txt"):
        assert sum(name in line for line in lines) == 1
    assert result.returncode == 1 and lines[-1].startswith("predict.py: 4 images could not be read")
    assert len(lines) == 6 and all(line.isprintable() for line in lines)


def test_whoever_closes_the_output_has_enough(models, images):
    command = f"{sys.executable} predict.py {models / 'classifier.onnx'} {' '.join([str(images)] * 50)}; echo $? >&2"
    result = subprocess.run(f"({command}) | head -1", shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert len(result.stdout.splitlines()) == 1 and result.stderr in ("141\n", "0\n")


def test_a_classifier_of_another_epoch_is_left_out_where_nobody_asked_for_it(finished, images, tmp_path):
    """Features and neighbours need none."""
    earlier = "run/checkpoint/checkpoint_simclr-1.ckpt"
    result = call_script("predict.py", earlier, images / "cat", "--features", tmp_path / "f.npz", cwd=finished)
    assert done(result) == ""
    assert "warning: the classifier in the same run is left out: --classifier: " in result.stderr
    with np.load(tmp_path / "f.npz") as table:
        assert table["features"].shape[1] == 32
    result = call_script("predict.py", earlier, images / "cat", cwd=finished)
    assert result.returncode == 2 and result.stderr.count("\n") == 2
    assert "predict.py: MODEL: run/checkpoint/checkpoint_simclr-1.ckpt is an encoder without a class" in result.stderr
    refused(call_script("predict.py", earlier, images / "cat", "--classifier", "run/linear_classifier", cwd=finished),
            "--classifier: .* was trained on another encoder")


@pytest.mark.parametrize("arguments, culprit", [
    (("{models}/classifier.onnx", "{models}"), "IMAGE: .*models"),
    (("{models}/encoder.onnx", "{images}"), "MODEL: .*encoder.onnx .* without a classifier"),
    (("{models}/classifier.onnx", "{images}", "--features", "f.txt"), "--features: got f.txt"),
    (("{models}/classifier.onnx", "{images}", "--features", "f.csv", "--json"), "--features: .* --json"),
    (("data", "{images}"), "MODEL: no checkpoint at data"),
    (("run/config.yaml", "{images}"), "MODEL: run/config.yaml is not a checkpoint"),
])
def test_bad_arguments(finished, models, images, arguments, culprit):
    before = sorted(finished.rglob("*"))
    filled = [argument.format(models=models, images=images) for argument in arguments]
    refused(call_script("predict.py", *filled, cwd=finished), culprit)
    assert sorted(finished.rglob("*")) == before

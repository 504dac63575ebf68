"""The scripts on a folder of images and on STL-10: smallest networks, few images."""
import json

import numpy as np
import pytest
import yaml
from helpers import call_script, done, of_kind, refused, start_script
from PIL import Image

from src.run import records
from src.run.checkpoint import load

pytestmark = pytest.mark.long

SMALL = ("--device_target", "CPU", "--encoder", "resnet18", "--width_multiplier", "0.0625", "--batch_size", "8",
         "--projection_dimension", "8", "--epoch_size", "1", "--train_dataset_path", "data")
FOLDER = (*SMALL, "--dataset_name", "imagefolder", "--image_size", "40")
EVALUATE = ("linear_eval.py", "--device_target", "CPU", "--batch_size", "8", "--encoder_checkpoint_path",
            "run/checkpoint/latest", "--train_output_path", "run")


def settings_in(file):
    return yaml.safe_load(file.read_text())["settings"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 12 training and 6 test images of 3 classes, and a run on it."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for name in ("ant", "bee", "fly"):
            place = folder / "data" / split / name
            place.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (*rng.integers(30, 70, 2), 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{index}.{('jpg', 'png')[index % 2]}")
    out = done(call_script("train.py", *FOLDER, "--train_output_path", "run", cwd=folder))
    folder.joinpath("train.out").write_text(out)
    return folder


def test_a_run_on_a_folder_of_images(photos):
    settings = settings_in(photos / "run" / "config.yaml")
    assert (settings["image_size"], settings["jitter_strength"], settings["blur_probability"]) == (40, 1.0, 0.5)
    assert "imagefolder, pretrain: 12 images" in (photos / "train.out").read_text()
    stem = load(str(photos / "run"), "simclr", "test").parameters["encoder.conv1.weight"]
    assert stem.shape[2:] == (7, 7)
    lines = done(call_script("scripts/check_data.py", "imagefolder", "data", cwd=photos))
    assert lines.count("all files can be decoded") == 2
    assert "4 ant, 4 bee, 4 fly" in lines and "2 ant, 2 bee, 2 fly" in lines


def test_images_without_labels_are_enough_for_pretraining(photos, tmp_path):
    """And the features of the encoder can be had; what takes labels says so."""
    (tmp_path / "data").mkdir()
    for file in (photos / "data" / "train").rglob("*.*"):
        (tmp_path / "data" / f"{file.parent.name}-{file.name}").write_bytes(file.read_bytes())
    out = done(call_script("train.py", *FOLDER, "--train_output_path", "run", cwd=tmp_path))
    assert "imagefolder, pretrain: 12 images from data (ant-0.jpg, " in out
    assert "monitor, epoch 1: kNN not measured" in out
    (record,) = of_kind(records.MONITOR, tmp_path / "run")
    assert record["knn_accuracy"] is None and record["effective_rank"] > 0
    refused(call_script(*EVALUATE, "--train_dataset_path", "data", cwd=tmp_path), "--train_dataset_path: .* in data")
    done(call_script("predict.py", "run", "data", "--features", "features.npz", cwd=tmp_path))
    with np.load(tmp_path / "features.npz") as table:
        assert table["features"].shape == (12, 32)
    refused(call_script("train.py", *FOLDER, "--train_output_path", "data/run", cwd=tmp_path),
            "--train_output_path: data/run lies in data, all of whose images are trained on")
    out = done(call_script("scripts/check_data.py", "imagefolder", "data", cwd=tmp_path))
    assert "12 images\n" in out and "no labels: enough for train.py" in out


def test_what_a_training_is_going_to_see_is_drawn_before(photos, tmp_path):
    done(call_script("scripts/show_views.py", "--dataset_name", "imagefolder", "--train_dataset_path", "data",
                     "--image_size", "24", "--batch_size", "4", "--train_output_path", tmp_path / "new", cwd=photos))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["views.png"]
    with Image.open(tmp_path / "new" / "views.png") as sheet:
        assert sheet.size == (9 * 24 + 4, 8 * 24)
    refused(call_script("scripts/show_views.py", "--train_output_path", "run", cwd=photos),
            "--train_output_path: run holds a run")
    with Image.open(photos / "run" / "views.png") as sheet:  # of the run itself
        assert sheet.size == (9 * 40 + 4, 8 * 40)


def test_evaluation_on_a_folder_of_images(photos):
    done(call_script(*EVALUATE, "--train_dataset_path", "data", "--epoch_size", "2", cwd=photos))
    (result,) = of_kind(records.LINEAR_EVAL, photos / "run")
    assert list(result["class_accuracy"]) == ["ant", "bee", "fly"]
    assert np.array(result["confusion"]).sum(1).tolist() == [2, 2, 2]
    assert settings_in(photos / "run" / "eval_config.yaml")["class_num"] == 3
    given = load(str(photos / "run" / "linear_classifier"), "linear_classifier", "test")
    assert given.info["classes"] == ["ant", "bee", "fly"]
    again = ("--pre_classifier_checkpoint_path", "run/linear_classifier/latest", "--train_dataset_path")
    done(call_script(*EVALUATE, *again, "data", cwd=photos))
    last = records.read(photos / "run" / "metrics.jsonl")[-1]
    assert last["confusion"] == result["confusion"]
    (photos / "other" / "test").mkdir(parents=True)
    for name, there in (("ant", "ant"), ("bee", "bee"), ("gnu", "fly")):
        (photos / "other" / "test" / name).symlink_to(photos / "data" / "test" / there)
    refused(call_script(*EVALUATE, *again, "other", cwd=photos),
            "--eval_dataset_path: its 3 classes are not the 3 of the classifier; only one of them has fly, gnu")


def test_a_file_that_turns_out_damaged_ends_the_run(photos, tmp_path):
    data = tmp_path / "data" / "train"
    for name in ("ant", "bee"):
        (data / name).mkdir(parents=True)
        for index in range(8):
            (data / name / f"{index}.jpg").write_bytes((photos / "data" / "train" / "ant" / "0.jpg").read_bytes())
    whole = (data / "bee" / "5.jpg").read_bytes()
    (data / "bee" / "5.jpg").write_bytes(whole[:3] + bytes(len(whole) - 5) + whole[-2:])
    result = start_script("train.py", *FOLDER, cwd=tmp_path)
    assert result.returncode == 2
    assert "train.py: data/train/bee/5.jpg: cannot be decoded" in result.stderr
    assert "Traceback" not in result.stderr


def test_stl10_from_pretraining_to_evaluation(tmp_path):
    rng, files = np.random.default_rng(0), tmp_path / "data" / "stl10_binary"
    files.mkdir(parents=True)
    for name, count in (("train", 10), ("test", 6), ("unlabeled", 14)):
        (files / f"{name}_X.bin").write_bytes(rng.bytes(count * 3 * 96 * 96))
        if name != "unlabeled":
            (files / f"{name}_y.bin").write_bytes(bytes(rng.integers(1, 11, count).tolist()))
    output = done(call_script("train.py", *SMALL, "--dataset_name", "stl10", "--train_output_path", "run",
                              cwd=tmp_path))
    assert "stl10, pretrain: 24 images" in output and "1 epochs of 3 steps" in output
    settings = settings_in(tmp_path / "run" / "config.yaml")
    assert (settings["image_size"], settings["jitter_strength"], settings["blur_probability"]) == (96, 1.0, 0.5)
    output = done(call_script(*EVALUATE, "--train_dataset_path", "data", "--epoch_size", "2", cwd=tmp_path))
    assert "features of 10 train images" in output and "of 6 test images" in output
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["dataset"] == "stl10"
    lines = done(call_script("scripts/check_data.py", "stl10", "data", cwd=tmp_path))
    assert "stl10, pretrain: 24 images" in lines and "stl10, train: 10 images" in lines

"""Data sets and images that are damaged, foreign or hostile: one line says what is wrong, and what to do."""
import io
import os
import re
import struct
import zlib

import numpy as np
import pytest
from helpers import call_script, done, random_images, state_of
from PIL import Image
from refusals import SECONDS, case, link_loop, no_longer_than, pipe, refuse, refuse_in_a_process

from src import dataset
from src.common.errors import UserError
from src.data.cifar import write_file

AGAIN = "copy or download it again"


# --- CIFAR and STL-10 ---

def cifar(folder, records=3):
    """Write a data set of CIFAR-10, and return the bytes of its first file."""
    folder.mkdir()
    for name in ("data_batch_1.bin", "test_batch.bin"):
        write_file(folder / name, random_images(records))
    return (folder / "data_batch_1.bin").read_bytes()


FOR_CIFAR = [
    case("truncated", "cifar10", lambda file, data: file.write_bytes(data[:-1]), "9218 bytes are not a whole number"),
    case("empty", "cifar10", lambda file, data: file.write_bytes(b""), "0 bytes are not a whole number"),
    case("last label", "cifar10", lambda file, data: file.write_bytes(data[:2 * 3073] + b"\xff" + bytes(3072)),
         "record 2 has the label 255"),
    case("folder", "cifar10", lambda file, data: file.mkdir(), "it is a folder, a pipe or a device"),
    case("pipe", "cifar10", lambda file, data: pipe(file), "it is a folder, a pipe or a device"),
    case("link loop", "cifar10", lambda file, data: link_loop(file), "cannot be read .Too many levels"),
    case("fine label", "cifar100", lambda file, data: file.write_bytes(b"\0\x64" + bytes(3072)), "the label 100"),
]


@pytest.mark.parametrize("name, damage, message", FOR_CIFAR)
def test_cifar(tmp_path, name, damage, message):
    data = cifar(tmp_path / "data")
    file = tmp_path / "data" / {"cifar10": "data_batch_1.bin", "cifar100": "train.bin"}[name]
    file.unlink(missing_ok=True)
    damage(file, data)
    refuse(("scripts/check_data.py", name, "data"), tmp_path, f"data/{file.name}: .*{message}",
           f"{AGAIN}|check that it is there|remove it")


@pytest.mark.parametrize("script, flags", [
    ("train.py", ()), ("linear_eval.py", ("--encoder_checkpoint_path", "{run}/checkpoint/latest")),
    ("finetune.py", ("--encoder_checkpoint_path", "{run}/checkpoint/latest"))])
def test_data_of_the_scripts(finished, tmp_path, script, flags):
    data = cifar(tmp_path / "data")
    (tmp_path / "data" / "data_batch_1.bin").write_bytes(data[:-1])
    flags = [flag.format(run=finished / "run") for flag in flags]
    refuse((script, *flags, "--train_dataset_path", "data", "--train_output_path", "out"), tmp_path,
           "data/data_batch_1.bin: .*bytes are not a whole number", AGAIN)


@pytest.mark.parametrize("name, make, culprit", [
    case("nothing", "cifar10", lambda folder: folder.mkdir(), "no train files of cifar10"),
    case("no folder", "stl10", pipe, "data is not a folder"),
    case("link loop", "cifar10", link_loop, "data is not a folder"),
    case("names of other classes", "cifar10", lambda folder: (cifar(folder), (
        folder / "batches.meta.txt").write_bytes(b"\xff\xfe\0\x1b[31m")), "does not hold cifar10, by its batches.meta"),
])
def test_folders_of_data(tmp_path, name, make, culprit):
    make(tmp_path / "data")
    refuse(("scripts/check_data.py", name, "data"), tmp_path, f"--train_dataset_path: .*{culprit}",
           "give the folder with|name another folder")


def test_a_name_that_is_too_long(tmp_path):
    refuse(("scripts/check_data.py", "cifar10", "x" * 300), tmp_path, "x: cannot be read .File name too long", "check")


STL10 = 3 * 96 * 96


def stl10(folder, images=STL10 * 2, labels=b"\1\2"):
    folder.mkdir()
    for split in ("train", "test"):
        for name, content in ((f"{split}_X.bin", bytes(images)), (f"{split}_y.bin", labels)):
            (folder / name).write_bytes(content)
    (folder / "unlabeled_X.bin").write_bytes(bytes(STL10))


@pytest.mark.parametrize("damaged, damage, message", [
    case("truncated", "train_X.bin", lambda file: file.write_bytes(bytes(STL10 - 1)), "27647 bytes are not a whole"),
    case("more labels", "train_y.bin", lambda file: file.write_bytes(b"\1\2\3"), "has 3 labels for the 2 images"),
    case("label 0", "train_y.bin", lambda file: file.write_bytes(b"\1\0"), "label 1 is 0, expected 1 to 10"),
    case("label 11", "train_y.bin", lambda file: file.write_bytes(b"\x0b\1"), "label 0 is 11, expected 1 to 10"),
    case("unlabelled", "unlabeled_X.bin", lambda file: file.write_bytes(b"x"), "1 bytes are not a whole"),
    case("pipe", "train_X.bin", pipe, "no pretrain files of stl10"),
])
def test_stl10(tmp_path, damaged, damage, message):
    stl10(tmp_path / "data")
    (tmp_path / "data" / damaged).unlink(missing_ok=True)
    damage(tmp_path / "data" / damaged)
    refuse(("scripts/check_data.py", "stl10", "data"), tmp_path, message,
           f"{AGAIN}|copy or download both again|give the folder with")


# --- images ---

def encoded(kind, size=(60, 40), mode="RGB", **options):
    """Return the bytes of an image of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, content=b""):
    """Return the bytes of a PNG file that says it has that size."""
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b""))


def with_size(data, width, height):
    """Return a JPEG file that says it has another size."""
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4:]


def replaced(data, start, content):
    return data[:start] + content + data[start + len(content):]


JPEG, PROGRESSIVE, PNG = encoded("JPEG"), encoded("JPEG", progressive=True), encoded("PNG")
TABLE = JPEG.index(b"\xff\xc4") + 5  # the first Huffman table's numbers of codes
NO_IMAGE, DAMAGED, TOO_LARGE = "(no|not a) JPEG or PNG image", "cannot be decoded", "has more than 100 million pixels"
BAD_IMAGES = [  # name, content, why train.py and its like refuse it, why predict.py does
    case("GIF", "x.png", encoded("GIF"), NO_IMAGE, NO_IMAGE),
    case("signature alone", "x.png", b"\x89PNG\r\n\x1a\n", DAMAGED, NO_IMAGE),
    case("truncated JPEG", "x.jpg", JPEG[:len(JPEG) // 2], DAMAGED, DAMAGED),
    case("truncated header", "x.jpg", JPEG[:200], DAMAGED, NO_IMAGE),
    case("10,001 x 10,000 PNG", "x.png", png(10_001, 10_000), TOO_LARGE, TOO_LARGE),
    case("65,500 x 65,500 JPEG", "x.jpg", with_size(JPEG, 65_500, 65_500), TOO_LARGE, TOO_LARGE),
    case("no height", "x.jpg", with_size(JPEG, 60, 0), DAMAGED, NO_IMAGE),
    case("damaged Huffman table", "x.jpg", replaced(JPEG, TABLE, b"\xff" * 16), DAMAGED, DAMAGED),
    case("no Huffman table", "x.jpg", replaced(JPEG, JPEG.index(b"\xff\xda") + 6, b"\x33"), DAMAGED, DAMAGED),
    case("damaged samples", "x.jpg", replaced(JPEG, JPEG.index(b"\xff\xc0") + 11, b"\0"), DAMAGED, DAMAGED),
    case("no quantisation table", "x.jpg", replaced(JPEG, JPEG.index(b"\xff\xc0") + 12, b"\3"), DAMAGED, DAMAGED),
    case("no scan", "x.jpg", JPEG[:JPEG.index(b"\xff\xda")] + b"\xff\xd9", DAMAGED, DAMAGED),
    case("progressive", "x.jpg", replaced(PROGRESSIVE, PROGRESSIVE.rindex(b"\xff\xc4") + 5, b"\xff" * 16), DAMAGED,
         DAMAGED),
]
FILES_IN_THE_PLACE = [
    case("pipe", "x.png", pipe, "it is a folder, a pipe or a device", "is a folder, a pipe or a device"),
    case("link loop", "x.jpg", link_loop, "cannot be read", "cannot be read"),
]
IMAGE_REMEDY = "remove it|leave it out|make it smaller|check that it is there"


def put(path, content):
    content(path) if callable(content) else path.write_bytes(content)


@pytest.fixture
def photos(tmp_path):
    """A folder of images in a class, and one of a class for the test."""
    for split in ("train", "test"):
        (tmp_path / "photos" / split / "cat").mkdir(parents=True)
        (tmp_path / "photos" / split / "cat" / "a.jpg").write_bytes(JPEG)
    return tmp_path / "photos"


@pytest.mark.parametrize("name, content, message, _", [*BAD_IMAGES, *FILES_IN_THE_PLACE])
def test_images_of_a_data_set(photos, tmp_path, name, content, message, _):
    put(photos / "train" / "cat" / name, content)
    refuse(("scripts/check_data.py", "imagefolder", "photos"), tmp_path, f"photos/train/cat/{name}: .*{message}",
           IMAGE_REMEDY)
    with pytest.raises(UserError, match=f"photos/train/cat/{name}: .*{message}"):  # by a training before it begins, too
        dataset.load("imagefolder", str(photos), "train")


def test_images_to_predict(models, tmp_path):
    """All are bad: a line for each, a warning, and that there is no other."""
    messages = {}
    for number, (name, content, _, message) in enumerate(
            one.values for one in BAD_IMAGES + FILES_IN_THE_PLACE if "loop" not in one.id):
        put(tmp_path / f"{number}-{name}", content)
        messages[f"{number}-{name}"] = message
    before = state_of(tmp_path)
    with no_longer_than(SECONDS):
        result = call_script("predict.py", models / "classifier.onnx", *messages, "--features", "x.npz", cwd=tmp_path)
    *warnings, error = result.stderr.splitlines()
    assert result.returncode == 2 and result.stdout == "" and state_of(tmp_path) == before
    assert len(warnings) == len(messages)
    for warning, (name, message) in zip(warnings, messages.items()):
        assert re.match(f"{name}: .*{message}", warning)
    assert error == "predict.py: IMAGE: none of the images can be read; name others"
    link_loop(tmp_path / "loop.png")
    refuse(("predict.py", models / "classifier.onnx", "loop.png"), tmp_path, "IMAGE: loop.png ", "name an image")


def test_unusual_images_are_good(models, photos, tmp_path):
    for mode, size in (("RGBA", (1, 50)), ("1", (1, 1))):
        (photos / "train" / "cat" / f"{mode}.png").write_bytes(encoded("PNG", size, mode))
    done(call_script("scripts/check_data.py", "imagefolder", "photos", cwd=tmp_path))
    done(call_script("predict.py", models / "classifier.onnx", "photos", cwd=tmp_path))


@pytest.mark.parametrize("make, culprit", [
    case("empty class", lambda folder: (folder / "train" / "dog").mkdir(), "train/dog: has no .jpg, .jpeg, .png files"),
    case("control characters", lambda folder: (folder / "train" / "do\x1b[31m\ng").mkdir(),
         r"do\\x1b\[31m\\ng: has no .jpg"),
    case("long image", lambda folder: (folder / "train" / "cat" / "b.png").write_bytes(png(90_000, 1, bytes(270_001))),
         "cat/b.png: has more than 100 million pixels"),
])
def test_folders_of_images(photos, tmp_path, make, culprit):
    make(photos)
    refuse(("scripts/check_data.py", "imagefolder", "photos"), tmp_path, culprit, "put its images in|make it smaller")


def test_links_that_loop_end(photos, tmp_path):
    """A class whose link leads to the folder above has its images, once."""
    (photos / "train" / "cat" / "again").symlink_to("..")
    with no_longer_than(SECONDS):
        result = call_script("scripts/check_data.py", "imagefolder", "photos", cwd=tmp_path)
    assert re.findall(r"\d+ cat", done(result)) == ["1 cat", "1 cat"]  # of train and test


def test_names_that_are_no_utf8(photos, tmp_path):
    folder = photos / "train" / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    refuse(("scripts/check_data.py", "imagefolder", "photos"), tmp_path, r"caf\\udce9: has no .jpg",
           "put its images in")
    (folder / os.fsdecode(b"\xff\x1b.png")).write_bytes(b"no image")
    refuse(("scripts/check_data.py", "imagefolder", "photos"), tmp_path,
           r"caf\\udce9/\\udcff\\x1b.png: 8 bytes that are",
           "remove it")


@pytest.mark.parametrize("name, content", [
    case("PNG", "b.png", replaced(PNG, 3000, bytes(100))), case("JPEG", "b.jpg", replaced(JPEG, TABLE, b"\xff" * 16))])
def test_an_image_that_is_damaged_inside(photos, tmp_path, name, content):
    """Where the data engine and its libraries would have their say, too."""
    (photos / "train" / "cat" / name).write_bytes(content)
    refuse_in_a_process(("scripts/check_data.py", "imagefolder", "photos"), tmp_path,
                        f"photos/train/cat/{name}: cannot be decoded", "remove it")

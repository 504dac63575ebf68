"""Reading, checking, downloading and generating the data sets."""
import functools
import hashlib
import http.server
import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading

import numpy as np
import pytest
import scipy.stats

from src import dataset
from src.common.errors import UserError
from src.data import cifar, shapes
from src.data.cifar import CIFAR10
from src.data.download import Archive, fetch
from src.data.formats import DataSet
from src.data.images import Images, channels_first

TRUCK, FROG = 9, 6


def test_a_record_is_label_then_planes(tmp_path):
    records = np.random.default_rng(0).integers(0, 256, (3, 3073), dtype=np.uint8)
    records[:, 0] = 3, 0, 9
    file = tmp_path / "test_batch.bin"
    file.write_bytes(records.tobytes())
    images = CIFAR10.format.read([file], 32)
    assert images.labels.tolist() == [3, 0, 9]
    for channel, row, column in [(0, 0, 0), (1, 5, 7), (2, 31, 31)]:
        place = 1 + channel * 1024 + row * 32 + column
        assert np.array_equal(images.pixels[:, row, column, channel], records[:, place])
    cifar.write_file(file, images)
    assert file.read_bytes() == records.tobytes()


def zoo_layout(folder):
    """Move the test file to a folder of its own, as the model zoo has it."""
    verify = folder.parent / "cifar-10-verify-bin"
    verify.mkdir()
    shutil.move(folder / "test_batch.bin", verify / "test_batch.bin")
    return folder, verify


def test_no_layout_mixes_the_splits(cifar_folder):
    for path in (cifar_folder, cifar_folder.parent):  # the official layout
        assert len(dataset.load("cifar10", str(path), "train").labels) == 100
        assert len(dataset.load("cifar10", str(path), "test").labels) == 30
    train, verify = zoo_layout(cifar_folder)
    for path in (train, train.parent):
        assert len(dataset.load("cifar10", str(path), "train").labels) == 100
    for path in (verify, train.parent):
        assert len(dataset.load("cifar10", str(path), "test").labels) == 30
    with pytest.raises(UserError, match="--eval_dataset_path: no test files"):
        dataset.load("cifar10", str(train), "test", "eval_dataset_path")
    with pytest.raises(UserError, match="--train_dataset_path: no train files"):
        dataset.load("cifar10", str(verify), "train")


def test_the_first_n_images(cifar_folder):
    whole = dataset.load("cifar10", str(cifar_folder), "train")
    assert np.array_equal(dataset.load("cifar10", str(cifar_folder), "train", num_samples=33).pixels, whole.pixels[:33])
    with pytest.raises(UserError, match="--num_samples: got 101, but .* has 100 train images"):
        dataset.load("cifar10", str(cifar_folder), "train", num_samples=101)


def test_missing_files_are_said(cifar_folder, caplog, monkeypatch):
    monkeypatch.setattr(dataset.logger, "propagate", True)
    (cifar_folder / "data_batch_3.bin").unlink()
    dataset.load("cifar10", str(cifar_folder), "train")
    assert "has 4 of 5 training files" in caplog.text
    caplog.clear()
    dataset.load("cifar10", str(cifar_folder), "test")  # one file
    assert "warning" not in caplog.text


def test_a_copy_of_a_file_is_not_read(cifar_folder):
    shutil.copy(cifar_folder / "data_batch_1.bin", cifar_folder / "data_batch_1 (1).bin")
    assert len(dataset.load("cifar10", str(cifar_folder), "train").labels) == 100


def test_real_cifar10(cifar10_dir):
    train = dataset.load("cifar10", cifar10_dir, "train")
    test = dataset.load("cifar10", cifar10_dir, "test")
    assert train.labels[:5].tolist() == [FROG, TRUCK, TRUCK, 4, 1]  # as every description of the data set shows
    assert test.labels[:5].tolist() == [3, 8, 8, 0, 6]
    mean, std = train.pixels.mean((0, 1, 2)) / 255, train.pixels.std((0, 1, 2)) / 255
    assert np.allclose(mean, dataset.DATA_SETS["cifar10"].mean, atol=0.01)
    assert np.allclose(std, dataset.DATA_SETS["cifar10"].std, atol=0.01)


class Dots:
    """A format of a test: one file of 2 x 2 gray images per split."""

    expected = "train.dots and test.dots"
    names_file = None

    def find(self, folder, split):
        return [file for file in [folder / f"{split}.dots"] if file.is_file()]

    def read(self, places, side):
        pixels = np.frombuffer(places[0].read_bytes(), np.uint8).reshape(-1, side, side, 1).repeat(3, 3)
        return Images(pixels, np.arange(len(pixels), dtype=np.int32))


def test_a_data_set_needs_no_more_than_its_line(tmp_path, monkeypatch):
    dots = DataSet(Dots(), ("few", "many"), 2, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    monkeypatch.setitem(dataset.DATA_SETS, "dots", dots)
    with pytest.raises(UserError, match="--train_dataset_path: no train files of dots in .*; give the folder with "
                                        "train.dots and test.dots"):
        dataset.load("dots", str(tmp_path), "train")
    (tmp_path / "train.dots").write_bytes(bytes(range(8)))
    images = dataset.load("dots", str(tmp_path), "pretrain")
    assert images.classes == ("few", "many") and images.pixels[1, 0, 1].tolist() == [5, 5, 5]
    with pytest.raises(UserError, match="--dataset_name: got dots .2 pixels., but --image_size asks for 3 pixels"):
        dataset.check_side("dots", 3, "--image_size asks for")


def test_data_sets_are_read_without_mindspore(cifar_folder):
    program = (f"import sys; sys.modules['mindspore'] = None; from src import dataset; "
               f"print(len(dataset.load('cifar10', {str(cifar_folder)!r}, 'train').labels))")
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                            cwd=os.path.dirname(os.path.dirname(dataset.__file__)))
    assert result.stdout == "100\n", result.stderr


def test_there_is_nothing_to_fetch_for_a_folder_of_images(tmp_path):
    with pytest.raises(UserError, match="--download: imagefolder has no home page"):
        dataset.load("imagefolder", str(tmp_path / "new"), "train", download=True)
    assert list(tmp_path.iterdir()) == []


# --- CIFAR-100 ---

@pytest.fixture
def cifar100_folder(tmp_path):
    """30 training and 12 test records, and their fine labels and pixels (N, 3, 32, 32)."""
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    rng = np.random.default_rng(0)
    written = {}
    for split, count in (("train", 30), ("test", 12)):
        labels, planes = rng.integers(0, 100, count), rng.integers(0, 256, (count, 3072))
        records = np.concatenate([rng.integers(0, 20, (count, 1)), labels[:, None], planes], axis=1)
        (folder / f"{split}.bin").write_bytes(records.astype(np.uint8).tobytes())
        written[split] = labels, planes.reshape(count, 3, 32, 32)
    return folder, written


def test_cifar100_has_the_fine_labels(cifar100_folder):
    folder, written = cifar100_folder
    for split, (labels, planes) in written.items():
        for path in (folder, folder.parent):
            images = dataset.load("cifar100", str(path), split)
            assert np.array_equal(images.labels, labels)
            assert np.array_equal(channels_first(images.pixels), planes)
            assert len(images.classes) == 100 and images.classes[17] == "castle" and images.classes[99] == "worm"
    (folder / "fine_label_names.txt").write_text("apple\nbear\n")
    with pytest.raises(UserError, match="does not hold cifar100, by its fine_label_names.txt"):
        dataset.load("cifar100", str(folder), "train")


# --- shapes ---

def test_shapes_are_reproducible_and_balanced():
    first, second, other = shapes.draw(200, 1), shapes.draw(200, 1), shapes.draw(200, 2)
    assert np.array_equal(first.pixels, second.pixels)
    assert not np.array_equal(first.pixels, other.pixels)
    assert np.bincount(first.labels).tolist() == [20] * 10
    assert len(np.unique(first.pixels.reshape(200, -1), axis=0)) == 200


def test_colour_tells_nothing_about_the_class():
    images = shapes.draw(2000, 5)
    pixels = images.pixels.reshape(2000, -1, 3).astype(float)
    darkest = pixels.sum(2).argsort(1)[:, :pixels.shape[1] // 20]
    ink = np.take_along_axis(pixels, darkest[..., None], 1).mean(1)
    nearest = np.linalg.norm(ink[:, None] - shapes.COLOURS, axis=2).argmin(1)
    counts = np.zeros((10, len(shapes.COLOURS)), int)
    np.add.at(counts, (images.labels, nearest), 1)
    assert (counts > 20).all()
    assert scipy.stats.chi2_contingency(counts).pvalue > 1e-3


def test_shapes_are_generated_once_if_they_are_missing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(dataset.logger, "propagate", True)
    monkeypatch.setattr(shapes, "IMAGES", {"train": 20, "test": 10})
    folder = tmp_path / "data" / "shapes"
    assert len(dataset.load("shapes", str(folder), "train").labels) == 20
    written = (folder / "data_batch_1.bin").stat().st_mtime_ns
    assert len(dataset.load("shapes", str(folder), "test").labels) == 10
    assert (folder / "data_batch_1.bin").stat().st_mtime_ns == written
    assert sorted(path.name for path in folder.iterdir()) == ["batches.meta.txt", "data_batch_1.bin", "test_batch.bin"]
    assert "warning" not in caplog.text  # shapes has one training file where CIFAR-10 has five


def test_one_data_set_is_not_taken_for_the_other(cifar_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "IMAGES", {"train": 20, "test": 10})
    with pytest.raises(UserError, match="does not hold shapes, by its batches.meta.txt"):
        dataset.load("shapes", str(cifar_folder), "train")
    dataset.load("shapes", str(tmp_path / "shapes"), "train")
    with pytest.raises(UserError, match="does not hold cifar10, by its batches.meta.txt"):
        dataset.load("cifar10", str(tmp_path / "shapes"), "train")


@pytest.mark.parametrize("name, download", [("shapes", False), ("cifar10", True)])
def test_a_place_that_cannot_be_written(tmp_path, name, download):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--train_dataset_path: cannot write to .*file/data"):
        dataset.load(name, str(tmp_path / "file" / "data"), "train", download=download)


# --- download ---

@pytest.fixture
def archive(cifar_folder):
    """An archive like the official one, with members that try to get out of the folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(cifar_folder, "cifar-10-batches-bin")
        for name in ("../escaped.bin", "/tmp/simclr-escaped.bin"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("cifar-10-batches-bin/link.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return buffer.getvalue()


@pytest.fixture
def server(tmp_path, archive):
    """A web server on the loopback interface that has the archive."""
    root = tmp_path / "www"
    root.mkdir()
    (root / "cifar.tar.gz").write_bytes(archive)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root))) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def test_download_lays_the_files_out(tmp_path, server, archive, monkeypatch):
    official = Archive(f"{server}/cifar.tar.gz", hashlib.md5(archive).hexdigest(), "cifar-10-batches-bin")
    monkeypatch.setitem(dataset.DATA_SETS, "cifar10", dataset.DATA_SETS["cifar10"]._replace(archive=official))
    target = tmp_path / "new" / "place"
    assert len(dataset.load("cifar10", str(target), "train", download=True).labels) == 100
    monkeypatch.setattr(dataset, "fetch", None)  # the files are there now
    assert len(dataset.load("cifar10", str(target), "test", download=True).labels) == 30
    assert os.listdir(target) == ["cifar-10-batches-bin"]
    assert not (tmp_path / "new" / "escaped.bin").exists()
    assert not (target / "cifar-10-batches-bin" / "link.bin").exists()
    assert not os.path.exists("/tmp/simclr-escaped.bin")


@pytest.mark.parametrize("name, message", [
    ("cifar.tar.gz", "MD5 [0-9a-f]{32}, expected c32a1d4ab5d03f1284b67883e8d87530"),
    ("other.tar.gz", "--download: .* cannot be fetched .*404")])
def test_an_archive_that_is_changed_or_missing_leaves_nothing(tmp_path, server, name, message):
    target = tmp_path / "place"
    with pytest.raises(UserError, match=message):
        fetch(dataset.DATA_SETS["cifar10"].archive._replace(url=f"{server}/{name}"), target)
    assert os.listdir(target) == []

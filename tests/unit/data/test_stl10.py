"""STL-10: files mapped, planes column by column, labels from 1, the unlabelled images for pretraining."""
import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src import dataset
from src.common.errors import UserError
from src.data.images import Joined, batches, fingerprint, identity


@pytest.fixture
def stl10_folder(tmp_path):
    """The folder of the files; images (N, 96, 96, 3) and labels from 0 of every split."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    written = {}
    for split, count in {"train": 7, "test": 5, "unlabeled": 11}.items():
        images, labels = rng.integers(0, 256, (count, 96, 96, 3), dtype=np.uint8), rng.integers(0, 10, count)
        with (folder / f"{split}_X.bin").open("wb") as file:
            for image in images:
                for channel in range(3):
                    for column in range(96):
                        file.write(image[:, column, channel].tobytes())
        if split != "unlabeled":
            (folder / f"{split}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())
        written[split] = images, labels
    return folder, written


def test_images_and_labels_read_back(stl10_folder):
    folder, written = stl10_folder
    for split in ("train", "test"):
        for path in (folder, folder.parent):
            images = dataset.load("stl10", str(path), split)
            assert np.array_equal(images.pixels, written[split][0])
            assert np.array_equal(images.labels, written[split][1])
            assert images.labels.dtype == np.int32
            assert images.classes[7] == "monkey"


def test_pretraining_takes_the_unlabelled_images_and_then_train(stl10_folder):
    folder, written = stl10_folder
    images = dataset.load("stl10", str(folder), "pretrain")
    expected = np.concatenate([written["unlabeled"][0], written["train"][0]])
    assert images.pixels.shape == (18, 96, 96, 3)
    assert all(isinstance(part, np.memmap) for part in images.pixels.parts)  # nothing is read into memory
    assert np.array_equal(images.pixels[np.arange(18)], expected)
    assert images.labels.tolist() == [-1] * 11 + written["train"][1].tolist()
    first = dataset.load("stl10", str(folder), "pretrain", num_samples=13)
    assert len(first.labels) == 13
    assert np.array_equal(first.pixels[np.arange(13)], expected[:13])


@settings(max_examples=20)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_joined_arrays_are_like_one(lengths, data):
    parts = [np.random.default_rng(index).integers(0, 256, (length, 2, 2, 3), dtype=np.uint8)
             for index, length in enumerate(lengths)]
    whole, joined = np.concatenate(parts), Joined(parts)
    assert joined.shape == whole.shape and len(joined) == len(whole)
    count = data.draw(st.integers(1, len(whole)))
    whole, joined = whole[:count], joined[:count]
    assert joined.shape == whole.shape and len(joined) == len(whole)
    row = data.draw(st.integers(0, len(whole) - 1))
    assert np.array_equal(joined[row], whole[row])
    rows = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1)))
    assert np.array_equal(joined[rows], whole[rows])
    size = data.draw(st.integers(1, 9))
    for found, expected in ((batches(joined, size), whole), (batches(joined, size, rows), whole[rows])):
        found = list(found)
        assert np.array_equal(np.concatenate(found), expected)
        assert [len(batch) for batch in found[:-1]] == [size] * (len(found) - 1) and 1 <= len(found[-1]) <= size
    assert b"".join(identity(joined)) == whole.tobytes()


@pytest.mark.parametrize("block", [4, 100])
def test_a_fingerprint_of_mapped_files_is_of_their_bytes(stl10_folder, monkeypatch, block):
    folder, _ = stl10_folder
    monkeypatch.setattr("src.data.images.BLOCK", block)
    train, pretrain = (dataset.load("stl10", str(folder), split) for split in ("train", "pretrain"))
    of_train, unlabelled = ((folder / name).read_bytes() for name in ("train_X.bin", "unlabeled_X.bin"))

    def expected(count, data):
        return f"{count} images, files {hashlib.sha256(data).hexdigest()[:16]}"

    assert fingerprint(train.pixels) == expected(7, of_train)
    assert fingerprint(pretrain.pixels) == expected(18, unlabelled + of_train)
    assert fingerprint(train.first(3).pixels) == expected(3, of_train[:3 * 27648])
    assert fingerprint(pretrain.first(13).pixels) == expected(13, unlabelled + of_train[:2 * 27648])


def test_missing_unlabelled_images_matter_to_pretraining_alone(stl10_folder):
    folder, _ = stl10_folder
    (folder / "unlabeled_X.bin").unlink()
    assert len(dataset.load("stl10", str(folder), "train").labels) == 7
    with pytest.raises(UserError, match="--train_dataset_path: no pretrain files of stl10 in .*; give the folder with"):
        dataset.load("stl10", str(folder), "pretrain")

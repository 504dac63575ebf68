"""A folder of images per class, compared with Pillow's reading of the same files."""
import os
from pathlib import Path
from types import SimpleNamespace

import mindspore.dataset as ds
import numpy as np
import pytest
from PIL import Image

from src import dataset
from src.common.errors import UserError
from src.data.image_files import ImageFiles
from src.data.images import batches, fingerprint
from src.data.views import LabelledViews, Views, to_dataset
from src.distributed.process_group import Process
from src.evaluation import features
from src.resnet import build_encoder
from src.settings.augmentation import PAPER_SMALL
from src.settings.network import Network, default_stem

SIDE = 48
FILES = {"train/cat": ("a.jpg", "b.png", "c.JPEG"), "train/dog": ("a.jpeg", "deeper/b.jpg"), "train/emu": ("z.PNG",),
         "val/cat": ("1.jpg",), "val/dog": ("2.jpg",), "val/emu": ("3.png",)}


def smooth_image(rng, width, height):
    """Return a colour ramp with random ends, which survives JPEG and resizing."""
    ramp = np.linspace(0, 1, width)[None, :, None] * np.linspace(0.2, 1, height)[:, None, None]
    first, second = rng.integers(0, 256, (2, 3))
    return Image.fromarray((first + ramp * (second - first)).astype(np.uint8))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for place, names in FILES.items():
        for name in names:
            file = tmp_path / "photos" / place / name
            file.parent.mkdir(parents=True, exist_ok=True)
            kind = "PNG" if name.lower().endswith("png") else "JPEG"
            smooth_image(rng, *rng.integers(40, 120, 2)).save(file, kind)
    return tmp_path / "photos"


def load(folder, split="train", **options):
    return dataset.load("imagefolder", str(folder), split, side=SIDE, **options)


@pytest.mark.parametrize("layout", ["flat", "below", "in train", "train itself"])
def test_pretraining_takes_images_without_labels(folder, tmp_path, layout):
    """However they lie, all of them but the test images."""
    plain = tmp_path / "plain"
    place = {"flat": plain, "below": plain / "holidays" / "2020"}.get(layout, plain / "train")
    place.mkdir(parents=True)
    for number, file in enumerate(sorted((folder / "train").rglob("*.*"))):
        (place / f"{number}{file.suffix}").write_bytes(file.read_bytes())
    (plain / "val" / "cat").mkdir(parents=True)
    (plain / "val" / "cat" / "x.jpg").write_bytes((folder / "val" / "cat" / "1.jpg").read_bytes())
    images = load(plain / "train" if layout == "train itself" else plain, "pretrain")
    assert [file.parent for file in images.pixels.files] == [place] * 6
    assert images.labels.tolist() == [-1] * 6 and images.classes == ()
    with pytest.raises(UserError, match="no folders train/<class> in"):
        load(plain, "train")


@pytest.mark.parametrize("given", ["parent", "val itself"])
def test_test_images_never_get_into_pretraining(folder, tmp_path, given):
    """Whatever folder is given, by mistake or not."""
    (tmp_path / "own.png").write_bytes((folder / "train" / "cat" / "b.png").read_bytes())
    if given == "val itself":
        with pytest.raises(UserError, match="no images, and no folders train/<class>, in "):
            load(folder / "val", "pretrain")
    else:
        found = load(tmp_path, "pretrain").pixels.files
        assert sorted({file.parent.name for file in found}) == sorted({"cat", "deeper", "dog", "emu", tmp_path.name})
        assert len(found) == 7 and not any("val" in file.parts for file in found)


def test_images_without_classes_are_known_wherever_their_folder_lies(folder, tmp_path, monkeypatch):
    """And by names that are no UTF-8, as old archives have them."""
    monkeypatch.setattr(dataset.logger, "propagate", False)  # pytest would keep them, and cannot hand them on
    first = tmp_path / "first"
    first.mkdir()
    for number, name in enumerate((b"caf\xe9.jpg", b"b.jpg")):
        (first / os.fsdecode(name)).write_bytes((folder / "train" / "cat" / "a.jpg").read_bytes() + bytes(number))
    known = fingerprint(load(first, "pretrain").pixels)
    first.rename(tmp_path / "second")
    assert fingerprint(load(tmp_path / "second", "pretrain").pixels) == known
    assert fingerprint(load(tmp_path / "second", "pretrain", num_samples=1).pixels) != known


def test_images_beside_the_classes_are_left_out_with_a_warning(folder, caplog, monkeypatch):
    monkeypatch.setattr(dataset.logger, "propagate", True)
    (folder / "train" / "loose.png").write_bytes((folder / "train" / "cat" / "b.png").read_bytes())
    assert len(load(folder, "pretrain").pixels) == 6
    assert any("1 images lie in no class in" in message and "loose.png" in message for message in caplog.messages)


def test_pretraining_takes_the_classes_where_there_are_some(folder):
    assert load(folder, "pretrain").labels.tolist() == load(folder).labels.tolist()


def test_a_folder_without_images(tmp_path):
    with pytest.raises(UserError, match=f"no images, and no folders train/<class>, in {tmp_path}; give the folder "):
        load(tmp_path, "pretrain")


def test_classes_take_turns(folder):
    images = load(folder)
    assert images.classes == ("cat", "dog", "emu")
    assert [str(file.relative_to(folder / "train")) for file in images.pixels.files] == [
        "cat/a.jpg", "dog/a.jpeg", "emu/z.PNG", "cat/b.png", "dog/deeper/b.jpg", "cat/c.JPEG"]
    assert images.labels.tolist() == [0, 1, 2, 0, 1, 0]
    assert images.pixels.shape == (6, SIDE, SIDE, 3)
    assert load(folder, num_samples=4).pixels.files == images.pixels.files[:4]
    assert load(folder, "test").labels.tolist() == [0, 1, 2]  # in val
    assert load(folder / "train").pixels.files == images.pixels.files
    assert load(folder / "val", "test").labels.tolist() == [0, 1, 2]


def test_the_splits_never_mix(folder):
    with pytest.raises(UserError, match="--train_dataset_path: no folders train/<class> in .*val; give the folder"):
        load(folder / "val")
    with pytest.raises(UserError, match="no folders test/<class> or val/<class> in .*train"):
        load(folder / "train", "test")
    (folder / "test" / "cat").mkdir(parents=True)
    smooth_image(np.random.default_rng(0), 50, 50).save(folder / "test" / "cat" / "1.png")
    assert load(folder, "test").classes == ("cat",)  # test goes before val


def middle(file):
    """What an image is evaluated on, by Pillow: the shorter edge to SIDE / 0.875, the middle."""
    image = Image.open(file).convert("RGB")
    scale = round(SIDE / 0.875) / min(image.size)
    width, height = (max(round(edge * scale), round(SIDE / 0.875)) for edge in image.size)
    image = image.resize((width, height), Image.BILINEAR)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    return np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))


def test_evaluation_sees_the_middle(folder):
    pixels = load(folder).pixels
    rows = np.array([4, 0, 1, 1, 5])
    decoded = pixels[rows]
    assert decoded.shape == (5, SIDE, SIDE, 3) and decoded.dtype == np.uint8
    for image, row in zip(decoded, rows):
        assert np.abs(image.astype(int) - middle(pixels.files[row])).mean() < 2
        assert np.array_equal(pixels[row], image)
    assert pixels[rows[:0]].shape == (0, SIDE, SIDE, 3)


@pytest.mark.parametrize("rows", [None, np.array([4, 0, 1, 1, 5]), np.array([3]), np.arange(0)])
def test_batches_come_from_one_pipeline_in_order(folder, monkeypatch, rows):
    pixels = load(folder).pixels
    expected = pixels[np.arange(6) if rows is None else rows]
    made, make = [], ds.GeneratorDataset
    monkeypatch.setattr(ds, "GeneratorDataset", lambda *given, **named: made.append(named) or make(*given, **named))
    found = list(batches(pixels, 2, rows))
    assert len(made) == (len(expected) > 0)
    assert [len(batch) for batch in found] == [2] * (len(expected) // 2) + [1] * (len(expected) % 2)
    assert np.array_equal(np.concatenate([expected[:0], *found]), expected)
    assert all(batch.dtype == np.uint8 and batch.flags.c_contiguous for batch in found)


def test_batches_are_decoded_by_all_cores(folder, monkeypatch):
    pixels, threads, make = load(folder).pixels, [], ds.GeneratorDataset.map

    def spied(self, *given, **named):
        threads.append(named["num_parallel_workers"])
        return make(self, *given, **named)

    monkeypatch.setattr(ds.GeneratorDataset, "map", spied)
    for cores in {1, len(os.sched_getaffinity(0))}:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: range(cores))
        assert sum(map(len, batches(pixels, 4))) == 6 and threads.pop() == cores


@pytest.mark.parametrize("labelled", [False, True])
def test_views_read_every_file_once(folder, monkeypatch, labelled):
    images, read, encoded = load(folder), [], ImageFiles.encoded
    monkeypatch.setattr(ImageFiles, "encoded", lambda self, row: read.append(row) or encoded(self, row))
    options = {"batch_size": 3, "augmentation": PAPER_SMALL, "seed": 0, "workers": 2}
    views = LabelledViews(*images[:2], **options) if labelled else Views(images.pixels, **options)
    assert len(list(views.of_epoch(0))) == 2
    assert read == views.order_of(0).tolist()


@pytest.mark.parametrize("mode, kind", [("L", "JPEG"), ("CMYK", "JPEG"), ("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG"),
                                        ("LA", "PNG"), ("1", "PNG"), ("I;16", "PNG")])
def test_every_kind_of_jpeg_and_png_becomes_rgb(folder, mode, kind):
    image = smooth_image(np.random.default_rng(1), 80, 60)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        expected = np.asarray(image).astype(int)[..., None] >> 8
    else:
        image = image.convert(mode)
        expected = np.asarray(image.convert("RGB")).astype(int)
    image.save(folder / "val" / "cat" / "1.jpg", kind)  # its name says nothing
    pixels = load(folder, "test").pixels
    assert pixels[np.array([0])].shape == (1, SIDE, SIDE, 3)
    expected = Image.fromarray(np.broadcast_to(expected, (60, 80, 3)).astype(np.uint8))
    expected.save(folder / "val" / "cat" / "expected.png")
    difference = np.abs(pixels[np.array([0])][0].astype(int) - middle(folder / "val" / "cat" / "expected.png"))
    assert difference.mean() < (16 if mode == "1" else 4)  # dithered dots: the ways to resize differ most there


def noise(file, kind):
    rng = np.random.default_rng(2)
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(file, kind)
    return file


@pytest.mark.parametrize("name, kind", [("cat/a.jpg", "JPEG"), ("cat/b.png", "PNG")])
@pytest.mark.parametrize("damage, message", [
    (lambda data: b"", "0 bytes that are no JPEG or PNG image"),
    (lambda data: b"GIF89a" + data, "no JPEG or PNG image"),
    (lambda data: data[:len(data) // 2], "cannot be decoded; the file is truncated"),
    (lambda data: data[:20], "cannot be decoded; the file is truncated"),
])
def test_damaged_files_are_named_before_training(folder, name, kind, damage, message):
    file = noise(folder / "train" / name, kind)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=message) as error:
        load(folder)
    assert str(error.value).startswith(str(file))


def test_bytes_behind_an_image_are_no_damage(folder):
    file = folder / "train" / "cat" / "a.jpg"
    file.write_bytes(file.read_bytes() + b"what a camera puts there")
    assert len(load(folder).labels) == 6


def break_inside(file):
    """Damage a file whose header and ends look whole."""
    data = bytearray(noise(file, "PNG").read_bytes())
    data[3000:3100] = bytes(100)
    file.write_bytes(data)
    return file


@pytest.mark.parametrize("read", [
    lambda pixels: pixels[np.arange(6)],
    lambda pixels: list(batches(pixels, 2)),
    lambda pixels: list(Views(pixels, 2, PAPER_SMALL, seed=0, workers=2).of_epoch(0)),
])
def test_damage_that_shows_when_decoding_is_named(folder, tmp_path, monkeypatch, read):
    monkeypatch.chdir(tmp_path)  # MindSpore leaves a copy of the file there
    file = break_inside(folder / "train" / "dog" / "a.jpeg")
    pixels = load(folder).pixels
    with pytest.raises(UserError, match="cannot be decoded") as error:
        read(pixels)
    assert str(error.value).startswith(str(file))
    file.unlink()  # after the run has begun
    with pytest.raises(UserError, match="cannot be read .No such file") as error:
        read(pixels)
    assert str(error.value).startswith(str(file))


@pytest.mark.parametrize("read", [
    lambda pixels: list(batches(pixels, 100)),
    lambda pixels: list(Views(pixels, 100, PAPER_SMALL, seed=0, workers=2).of_epoch(0)),
])
@pytest.mark.parametrize("row", [0, 450, 899])
def test_damage_is_found_wherever_it_is(folder, tmp_path, monkeypatch, read, row):
    monkeypatch.chdir(tmp_path)
    pixels = ImageFiles([folder / "train" / "dog" / "a.jpeg"] * 900, [1] * 900, SIDE)
    pixels.files[row] = break_inside(folder / "train" / "cat" / "a.jpg")
    with pytest.raises(UserError, match="a.jpg: cannot be decoded"):
        read(pixels)


def test_a_training_pipeline_keeps_the_error(folder):
    views = Views(load(folder).pixels, 6, PAPER_SMALL, seed=0, workers=2)
    file = folder / "train" / "emu" / "z.PNG"
    file.unlink()  # after the run has begun
    with pytest.raises(RuntimeError):
        list(to_dataset(views, 0, sinking=False).create_tuple_iterator(num_epochs=1))
    assert str(views.error).startswith(f"{file}: cannot be read (No such file")


def test_a_folder_without_images_is_named(folder):
    (folder / "train" / "gnu").mkdir()
    (folder / "train" / "gnu" / "notes.txt").touch()
    with pytest.raises(UserError, match="train/gnu: has no .jpg, .jpeg, .png files"):
        load(folder)


def test_other_files_are_said(folder, caplog, monkeypatch):
    monkeypatch.setattr(dataset.logger, "propagate", True)
    for name in ("cat/photo.webp", "cat/.hidden", ".thumbnails/x.jpg"):
        (folder / "train" / name).parent.mkdir(exist_ok=True)
        (folder / "train" / name).touch()
    assert len(load(folder).labels) == 6
    assert "cat has 1 files that are not .jpg, .jpeg, .png and are left out, such as photo.webp" in caplog.text


def test_views_are_random_and_show_their_image(folder):
    pixels = load(folder).pixels
    still = PAPER_SMALL._replace(crop_min_scale=1.0, flip_probability=0, jitter_strength=0, grayscale_probability=0)
    (batch,), = Views(pixels, 6, still, seed=0, workers=2).of_epoch(0)
    assert batch.shape == (12, 3, SIDE, SIDE) and batch.dtype == np.uint8
    colours = np.stack([np.asarray(Image.open(file)).mean((0, 1)) for file in pixels.files])
    order = np.random.default_rng((0, 0)).permutation(6)
    assert np.abs(batch.mean((2, 3)) - colours[np.tile(order, 2)]).max() < 20
    noisy = noise(folder / "train" / "cat" / "a.jpg", "JPEG")
    same = dataset.load("imagefolder", str(folder), "train", side=SIDE).pixels
    same.files = [noisy] * 64
    (batch,), = Views(same, 64, PAPER_SMALL, seed=0, workers=2).of_epoch(0)
    assert len({view.tobytes() for view in batch}) == 128  # the two views of an image too


def test_fingerprints_are_those_of_earlier_versions():
    files = [Path("/data/train", name) for name in ("cat/1.jpg", "dog/deep/2.png", "cat/3.jpg")]
    pixels = ImageFiles(files, [517, 1024, 88], 48)
    assert fingerprint(pixels) == fingerprint(pixels, like="of a run") == "3 images, 32bcc8dd08977358"
    assert fingerprint(pixels[:2]) == "2 images, 48af38dbcfaab9bb"


def test_fingerprint_follows_names_sizes_and_side(folder):
    first = fingerprint(load(folder).pixels)
    assert fingerprint(load(folder / "train").pixels) == first  # wherever the folder is
    assert fingerprint(load(folder, num_samples=5).pixels) != first
    assert fingerprint(dataset.load("imagefolder", str(folder), "train").pixels) != first
    file = folder / "train" / "cat" / "a.jpg"
    renamed = file.rename(file.with_name("aa.jpg"))
    assert fingerprint(load(folder).pixels) != first
    renamed.rename(file)
    assert fingerprint(load(folder).pixels) == first
    noise(file, "JPEG")
    assert fingerprint(load(folder).pixels) != first


def test_features_of_files(folder, tmp_path):
    encoder = build_encoder(Network("resnet18", 0.0625, default_stem(SIDE), SIDE))
    pixels = load(folder).pixels
    alone = Process("CPU")
    from_files = features.cached(tmp_path / "kept", encoder, "digest", pixels, 4, "train", alone)
    in_memory = features.extract(encoder, pixels[np.arange(6)], 4, alone)
    assert np.array_equal(from_files, in_memory)
    assert np.array_equal(features.cached(tmp_path / "kept", SimpleNamespace(features=32), "digest", pixels, 4, "train",
                                          alone), from_files)

"""A folder of images per class, compared with Pillow's reading of the same files."""
import os

import mindspore.dataset as ds
import numpy as np
import pytest
from PIL import Image

from src import dataset
from src.common.errors import UserError
from src.data.image_files import ImageFiles
from src.data.image_listing import images_below
from src.data.images import batches, fingerprint
from src.data.views import Views, to_dataset
from src.settings.augmentation import PAPER_SMALL

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


@pytest.mark.parametrize("layout", ["below", "train itself"])
def test_pretraining_takes_images_without_labels(folder, tmp_path, layout):
    """However they lie, all of them but the test images."""
    plain = tmp_path / "plain"
    place = plain / "holidays" / "2020" if layout == "below" else plain / "train"
    place.mkdir(parents=True)
    for number, file in enumerate(sorted((folder / "train").rglob("*.*"))):
        (place / f"{number}{file.suffix}").write_bytes(file.read_bytes())
    (plain / "val" / "cat").mkdir(parents=True)
    (plain / "val" / "cat" / "x.jpg").write_bytes((folder / "val" / "cat" / "1.jpg").read_bytes())
    images = load(plain / "train" if layout == "train itself" else plain, "pretrain")
    assert [file.parent for file in images.pixels.files] == [place] * 6
    assert images.labels.tolist() == [-1] * 6 and images.classes == ()
    with pytest.raises(UserError, match="no train files of imagefolder in"):
        load(plain, "train")


def test_test_images_never_get_into_pretraining(folder, tmp_path):
    with pytest.raises(UserError, match="no pretrain files of imagefolder in .*val; give the folder with"):
        load(folder / "val", "pretrain")
    (tmp_path / "own.png").write_bytes((folder / "train" / "cat" / "b.png").read_bytes())
    files = load(tmp_path, "pretrain").pixels.files
    assert len(files) == 7 and not any("val" in file.parts for file in files)


def test_images_without_classes_have_the_same_fingerprint_in_another_folder(folder, tmp_path, monkeypatch):
    """Also with names that are not UTF-8."""
    monkeypatch.setattr(dataset.logger, "propagate", False)  # pytest would keep them, and cannot hand them on
    first = tmp_path / "first"
    first.mkdir()
    for number, name in enumerate((b"caf\xe9.jpg", b"b.jpg")):
        (first / os.fsdecode(name)).write_bytes((folder / "train" / "cat" / "a.jpg").read_bytes() + bytes(number))
    known = fingerprint(load(first, "pretrain").pixels)
    first.rename(tmp_path / "second")
    assert fingerprint(load(tmp_path / "second", "pretrain").pixels) == known
    assert fingerprint(load(tmp_path / "second", "pretrain", num_samples=1).pixels) != known


def test_files_that_are_left_out_are_named(folder, caplog, monkeypatch):
    monkeypatch.setattr(dataset.logger, "propagate", True)
    (folder / "train" / "loose.png").write_bytes((folder / "train" / "cat" / "b.png").read_bytes())
    for name in ("cat/photo.webp", "cat/.hidden", ".thumbnails/x.jpg"):
        (folder / "train" / name).parent.mkdir(exist_ok=True)
        (folder / "train" / name).touch()
    assert len(load(folder, "pretrain").pixels) == 6
    assert "loose.png" in caplog.text and "photo.webp" in caplog.text
    assert ".hidden" not in caplog.text and ".thumbnails" not in caplog.text


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    """os.walk would skip it."""
    with pytest.raises(UserError, match=f"{tmp_path}/none: cannot be read"):
        images_below(tmp_path / "none")


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
    with pytest.raises(UserError, match="--train_dataset_path: no train files of imagefolder in .*val; give"):
        load(folder / "val")
    with pytest.raises(UserError, match="no test files of imagefolder in .*train"):
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


@pytest.mark.parametrize("rows", [None, np.array([4, 0, 1, 1, 5]), np.arange(0)])
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


def test_views_read_every_file_once(folder, monkeypatch):
    images, read, encoded = load(folder), [], ImageFiles.encoded
    monkeypatch.setattr(ImageFiles, "encoded", lambda self, row: read.append(row) or encoded(self, row))
    views = Views(images.pixels, 3, PAPER_SMALL, seed=0, workers=2)
    assert len(list(views.of_epoch(0))) == 2
    assert read == views.order_of(0).tolist()


@pytest.mark.parametrize("mode, kind", [("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("1", "PNG"), ("I;16", "PNG")])
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


def noise(file, kind, **options):
    rng = np.random.default_rng(2)
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(file, kind, **options)
    return file


def test_unusual_headers_and_bytes_behind_an_image_are_no_damage(folder):
    file = folder / "train" / "cat" / "a.jpg"
    data = file.read_bytes()
    file.write_bytes(data[:2] + b"\xff\xff\xff\xfe\0\x04??" + data[2:] + b"what a camera puts there")
    noise(folder / "train" / "cat" / "c.JPEG", "JPEG", progressive=True)
    assert len(load(folder).labels) == 6


def break_inside(file, begin=3000, end=3100):
    """Damage a file whose header and ends look whole."""
    data = bytearray(noise(file, "PNG").read_bytes())
    data[begin:end] = bytes(end - begin)
    file.write_bytes(data)
    return file


def test_damage_that_mindspore_alone_refuses_is_named(folder, tmp_path, monkeypatch):
    """Pillow does not compare the checksum of a PNG file's pixels, the four bytes before the last chunk."""
    monkeypatch.chdir(tmp_path)
    file = break_inside(folder / "train" / "cat" / "b.png", -16, -12)
    Image.open(file).load()
    with pytest.raises(UserError, match="b.png: cannot be decoded"):
        list(Views(load(folder).pixels, 2, PAPER_SMALL, seed=0, workers=2).of_epoch(0))


@pytest.mark.parametrize("read", [
    lambda pixels: list(batches(pixels, 2)),
    lambda pixels: list(Views(pixels, 2, PAPER_SMALL, seed=0, workers=2).of_epoch(0)),
], ids=["batches", "views"])
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


def test_damage_is_found_at_the_end_of_many_files(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = ImageFiles([folder / "train" / "dog" / "a.jpeg"] * 900, [1] * 900, SIDE)
    pixels.files[-1] = break_inside(folder / "train" / "cat" / "a.jpg")
    with pytest.raises(UserError, match="a.jpg: cannot be decoded"):
        list(Views(pixels, 100, PAPER_SMALL, seed=0, workers=2).of_epoch(0))


def test_a_training_pipeline_keeps_the_error(folder):
    views = Views(load(folder).pixels, 6, PAPER_SMALL, seed=0, workers=2)
    file = folder / "train" / "emu" / "z.PNG"
    file.unlink()  # after the run has begun
    with pytest.raises(RuntimeError):
        list(to_dataset(views, 0, sinking=False).create_tuple_iterator(num_epochs=1))
    assert str(views.error).startswith(f"{file}: cannot be read (No such file")


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

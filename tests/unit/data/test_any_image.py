"""Images of any kind are read as MindSpore reads the plain ones."""
import io
from itertools import product

import mindspore.dataset.vision as vision
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from scipy import ndimage

from src.data.any_image import read_image
from src.data.image_folder import IMAGE_FOLDER

SIDE = 32


def smooth(width, height, seed=0):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(height, width, 3)), (1, 1, 0))
    return (255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)


def saved(folder, image, **more):
    file = folder / ("image.jpg" if more.pop("format", "PNG") == "JPEG" else "image.png")
    image.save(file, **more)
    return file


@settings(max_examples=40, deadline=None)
@given(width=st.integers(8, 300), height=st.integers(8, 300), side=st.sampled_from([8, 32, 33]), is_jpeg=st.booleans(),
       data_set_is_resizable=st.booleans())
def test_the_middle_is_that_of_the_evaluation(tmp_path_factory, width, height, side, is_jpeg, data_set_is_resizable):
    """MindSpore's own operations on the same file, as src/data/image_files.py has them: but for rounding, the same."""
    folder = tmp_path_factory.mktemp("image")
    file = saved(folder, Image.fromarray(smooth(width, height)), format="JPEG" if is_jpeg else "PNG")
    shorter_edge = IMAGE_FOLDER.shorter_edge(side) if data_set_is_resizable else side
    decoded = vision.Decode()(np.fromfile(file, np.uint8))
    expected = vision.CenterCrop(side)(vision.Resize(shorter_edge)(decoded))
    pixels = read_image(file, shorter_edge, side)
    assert pixels.shape == (side, side, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_an_image_of_the_right_side_is_taken_as_it_is(tmp_path):
    pixels = smooth(SIDE, SIDE)
    assert np.array_equal(read_image(saved(tmp_path, Image.fromarray(pixels)), SIDE, SIDE), pixels)


def test_an_image_is_set_upright(tmp_path):
    """For each orientation as Pillow's own function does; 9 does not exist."""
    for orientation in range(1, 10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = saved(tmp_path, Image.fromarray(smooth(SIDE, SIDE)), exif=exif)
        assert np.array_equal(read_image(file, SIDE, SIDE), np.asarray(ImageOps.exif_transpose(Image.open(file))))


def test_grey_of_16_bits_keeps_its_range(tmp_path):
    grey = np.linspace(0, 65535, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint16)
    pixels = read_image(saved(tmp_path, Image.fromarray(grey)), SIDE, SIDE)
    assert np.abs(pixels - (grey / 257)[..., None]).max() <= 0.5 and (pixels[..., :1] == pixels).all()


def test_what_is_transparent_is_on_white(tmp_path):
    drawn = np.dstack([smooth(SIDE, SIDE), np.repeat(np.uint8([[0, 255]]), SIDE // 2, 1).repeat(SIDE, 0)])
    pixels = read_image(saved(tmp_path, Image.fromarray(drawn)), SIDE, SIDE)
    assert (pixels[:, :SIDE // 2] == 255).all() and np.array_equal(pixels[:, SIDE // 2:], drawn[:, SIDE // 2:, :3])
    palette = Image.new("P", (SIDE, SIDE))
    palette.putpalette([200, 0, 0])
    assert (read_image(saved(tmp_path, palette, transparency=0), SIDE, SIDE) == 255).all()


def test_every_mode_looks_the_same(tmp_path):
    for mode, brightness in product(("L", "1", "P", "LA", "CMYK", "YCbCr"), (0, 90, 255)):
        brightness = 255 * (brightness > 127) if mode == "1" else brightness
        image = Image.new("RGB", (SIDE, SIDE), (brightness,) * 3)
        image = image.quantize() if mode == "P" else image.convert(mode)
        file = saved(tmp_path, image, format="JPEG" if mode in ("CMYK", "YCbCr") else "PNG")
        assert np.abs(read_image(file, SIDE, SIDE).astype(int) - brightness).max() <= 2


def with_exif(kind, exif):
    stream = io.BytesIO()
    Image.fromarray(smooth(SIDE, SIDE)).save(stream, kind, exif=exif, **({"dpi": (72, 72)} if kind == "JPEG" else {}))
    return stream.getvalue()


@pytest.mark.parametrize("kind, exif", [("JPEG", b"Exif\0\0II*\0"), ("PNG", b"II*\0")])
def test_damaged_exif_is_no_part_of_the_picture(tmp_path, kind, exif):
    file = tmp_path / "image.png"
    file.write_bytes(with_exif(kind, exif))
    assert np.abs(read_image(file, SIDE, SIDE).astype(int) - smooth(SIDE, SIDE)).mean() < 20  # by JPEG


def test_a_long_thin_image_takes_no_memory(tmp_path):
    file = saved(tmp_path, Image.new("RGB", (60_000, 1), (10, 20, 30)))
    assert (read_image(file, 256, 224) == (10, 20, 30)).all()  # resized whole it would have 4 billion pixels

"""Features: every image once, in order, by an encoder that does not change."""
import numpy as np
import pytest
from mindspore import Tensor

from src.common.errors import UserError
from src.distributed.process_group import Process
from src.evaluation import features
from src.evaluation.linear_sgd import epoch_order
from src.resnet import build_encoder
from src.settings.network import Network

ALONE = Process("CPU")


@pytest.fixture(scope="module")
def encoder():
    encoder = build_encoder(Network("resnet18", 0.0625))
    encoder.set_train()  # extract has to switch it over itself
    return encoder


def test_every_image_once_and_in_order(encoder, random_images):
    pixels = random_images(19).pixels
    before = {p.name: p.asnumpy().copy() for p in encoder.get_parameters()}
    rows = features.extract(encoder, pixels, 8, ALONE)
    assert rows.shape == (19, encoder.features)
    whole = encoder(Tensor(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))).asnumpy()
    assert np.allclose(rows, whole, atol=1e-6)
    assert all(np.array_equal(p.asnumpy(), before[p.name]) for p in encoder.get_parameters())  # to the bit


def test_fewer_images_than_a_batch(encoder, random_images):
    pixels = random_images(19).pixels
    few, all_rows = (features.extract(encoder, images, 8, ALONE) for images in (pixels[:3], pixels))
    assert np.allclose(few, all_rows[:3], atol=1e-6)


def test_the_cache_knows_checkpoint_and_images(encoder, random_images, tmp_path, monkeypatch):
    pixels = random_images(5).pixels
    calls = []

    def extract(encoder, images, *arguments):
        calls.append(arguments)
        return np.full((len(images), encoder.features), len(calls), np.float32)

    monkeypatch.setattr(features, "extract", extract)

    def value(digest, images):
        return features.cached(tmp_path / "features", encoder, digest, images, 8, "train", ALONE)[0, 0]

    assert [value("weights", pixels), value("weights", pixels)] == [1, 1]
    assert value("other weights", pixels) == 2
    assert value("weights", pixels[:4]) == 3
    changed = pixels.copy()
    changed[0, 0, 0, 0] ^= 1
    assert value("weights", changed) == 4
    assert value("weights", pixels) == 1
    assert not [path for path in (tmp_path / "features").iterdir() if path.name.startswith(".")]


def test_a_damaged_cache_is_made_anew(encoder, random_images, tmp_path, caplog):
    """Whichever byte is changed: either nothing is lost, or it is noticed; and a file that was cut short is."""
    pixels = random_images(5).pixels

    def cached():
        return features.cached(tmp_path, encoder, "weights", pixels, 8, "train", ALONE)

    true = cached()
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    noticed = 0
    for place in np.random.default_rng(0).permutation(len(content))[:200]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        file.write_bytes(damaged)
        found = features._read(file, true.shape)
        assert found is None or np.array_equal(found, true), place
        noticed += found is None
    assert noticed > 150  # the others are times, names and the like
    file.write_bytes(content[:len(content) // 2])
    caplog.clear()
    assert np.array_equal(cached(), true) and np.array_equal(features._read(file, true.shape), true)
    assert caplog.text.count("is damaged") == 1


def test_features_that_are_no_numbers_are_refused(encoder, random_images, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "extract", lambda *_: np.full((5, encoder.features), np.nan, np.float32))
    with pytest.raises(UserError, match="--encoder_checkpoint_path: its features of some train images are not finite"):
        features.cached(tmp_path / "new", encoder, "weights", random_images(5).pixels, 8, "train", ALONE)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("count, batch", [(10, 4), (3, 4)])
def test_classifier_epochs_leave_nothing_out(count, batch):
    order = epoch_order(count, batch, seed=0, epoch=1)
    assert order.shape == (-(-count // batch), batch)
    assert set(order.ravel()) == set(range(count))
    assert np.array_equal(order, epoch_order(count, batch, seed=0, epoch=1))
    if count > 3:
        assert not np.array_equal(order, epoch_order(count, batch, seed=0, epoch=2))


def test_a_folder_that_cannot_be_written_is_the_users_error(encoder, random_images, tmp_path):
    (tmp_path / "features").write_text("a file")
    with pytest.raises(UserError, match="--train_output_path: cannot write to .*features .*; name a folder that can"):
        features.cached(tmp_path / "features", encoder, "weights", random_images(5).pixels, 8, "train", ALONE)

"""Whatever bytes a file has, its reader gives a value, or a user's error of one line."""
import io
import json
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from src.common.errors import UserError, printable
from src.common.logs import logger
from src.data.any_image import read_image
from src.data.image_files import check_ends
from src.resnet import ENCODERS
from src.run import info, records
from src.settings.network import Network
from src.weights import encoders, torch_files, torch_names

quickly = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
                    max_leaves=5)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Neither what is said of odd files nor Pillow's warnings matter here."""
    monkeypatch.setattr(logger, "propagate", False)
    warnings.filterwarnings("ignore", module="PIL")


def value_or_line(read):
    """Return what ``read`` gives, or None where it is a user's error of one line."""
    try:
        return read()
    except UserError as error:
        line = printable(str(error))
        assert line and line.isprintable()
    return None


@st.composite
def damaged(draw, whole):
    """Bytes of ``whole`` with some of them changed, taken out, repeated or cut off; or any bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place, count = draw(st.integers(0, len(data))), draw(st.integers(0, 40))
        kind = draw(st.sampled_from(("change", "remove", "repeat", "cut")))
        if kind == "change":
            data[place:place + 4] = draw(st.binary(max_size=4))
        elif kind == "remove":
            del data[place:place + count]
        elif kind == "repeat":
            data[place:place] = data[place:place + count]
        else:
            del data[place:]
    return bytes(data)


# --- images and data sets ---

def encoded(kind, **options):
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


EXIF = Image.Exif()
EXIF[0x0112], EXIF[0x010E] = 6, "a description"
IMAGES = [encoded("JPEG", exif=EXIF), encoded("JPEG", progressive=True), encoded("PNG", exif=EXIF)]


@settings(quickly, max_examples=60)
@given(data=st.sampled_from(IMAGES).flatmap(damaged))
def test_images(tmp_path, data):
    file = tmp_path / "x.png"
    file.write_bytes(data)
    found = value_or_line(lambda: read_image(file, 10, 8))
    assert found is None or found.shape == (8, 8, 3) and found.dtype == np.uint8
    value_or_line(lambda: check_ends(file, 8))


# --- checkpoints ---

NETWORK = {"encoder": "resnet18", "width_multiplier": 0.5, "stem": "cifar", "image_size": 32, "mean": [0.1, 0.2, 0.3],
           "std": [0.2, 0.2, 0.2], "projection_dimension": 8, "head_batch_norm": True}
LEARNED = {"holds": "simclr", "network": NETWORK, "settings": {"dataset_name": "cifar10"}, "epoch": 3}
CLASSIFIER = {"holds": "linear_classifier", "class_num": 10, "features": 32, "dataset_name": "cifar10",
              "classes": ["a", "b"], "encoder_digest": "0", "encoder_epoch": 3, "epoch": 1}


@st.composite
def changed(draw, whole):
    """JSON with one value, at any depth, that is another, or is missing."""
    whole = json.loads(json.dumps(whole))
    place, name = draw(st.sampled_from([*entries(whole)]))
    if draw(st.integers(0, 3)):
        place[name] = draw(JSON)
    else:
        del place[name]
    return json.dumps(whole)


def entries(place):
    """Yield all places of values, as what they are in and their names there."""
    for name, value in place.items():
        yield place, name
        if isinstance(value, dict):
            yield from entries(value)


def read_info(text):
    """Read the info of a checkpoint as src/run/checkpoint.py does."""
    with info.believed("--flag: x"):
        found = json.loads(text)
        info.check(found)
    return found


@quickly
@given(text=st.text(max_size=50) | JSON.map(json.dumps))
def test_what_is_no_info_is_refused(text):
    with pytest.raises(UserError):
        read_info(text)


def test_the_whole_ones_are_believed():
    for whole in (LEARNED, CLASSIFIER):
        assert read_info(json.dumps(whole))["holds"] == whole["holds"]


@settings(max_examples=40, deadline=None)
@given(text=st.sampled_from((LEARNED, LEARNED, CLASSIFIER)).flatmap(changed))
def test_what_a_checkpoint_says_of_itself(text):
    found = value_or_line(lambda: read_info(text))
    if found and found["holds"] == info.ENCODER:
        network = Network.of(found["network"])
        assert network.encoder in ENCODERS and 0 < network.width_multiplier <= 16 and network.image_size > 0
        assert (network.mean is None) == (network.std is None) and network.settings


# --- weights of PyTorch ---

def safe():
    from safetensors.numpy import save
    values = {name: np.ones(shape, np.float32) for name, shape in (
        ("conv1.weight", (4, 3, 3, 3)), ("layer1.0.conv1.weight", (4, 4, 3, 3)),
        ("layer4.0.conv1.weight", (32, 16, 3, 3)))}
    return save(values, {torch_files.DESCRIPTION: json.dumps({"dataset_name": "cifar10"})})[:1500]


@quickly
@given(data=damaged(safe()))
def test_safetensors(tmp_path, data):
    file = tmp_path / "x.safetensors"
    file.write_bytes(data)

    def read():
        return torch_names.recognise(torch_files.read(str(file), "flag")[0], "--flag: x")

    value_or_line(read)


TOLD = {**NETWORK, "dataset_name": "cifar10", "pretrain_epoch_size": 3, "normalize": True}


@quickly
@given(text=changed(TOLD) | st.text(max_size=50) | JSON.map(json.dumps))
def test_what_a_safetensors_file_tells(tmp_path, text):
    from safetensors.numpy import save_file
    file = tmp_path / "x.safetensors"
    save_file({"x": np.zeros(1, np.float32)}, str(file), {torch_files.DESCRIPTION: text})
    recognised = torch_names.Recognised({"encoder": "resnet18", "width_multiplier": 0.5}, {}, "")

    def read():
        return encoders.from_torch(recognised, torch_files.read(str(file), "flag")[1], "x", "--flag: x")

    value_or_line(read)


# --- runs ---

RECORD = {"kind": "linear_eval", "protocol": "linear", "protocol_id": "linear_sgd", "seed": 0, "accuracy": 0.5,
          "accuracy_interval": [0.4, 0.6], "class_accuracy": {"a": 0.5, "b": 0.5}, "confusion": [[1, 1], [1, 1]],
          "encoder_epoch": 3, "images": 4}
EPOCH = {"kind": "pretrain", "epoch": 1, "loss": 0.5, "learning_rate": 0.1}


@quickly
@given(lines=st.lists(st.sampled_from((RECORD, EPOCH)).flatmap(changed).map(str.encode) | st.binary(max_size=40)
                      | JSON.map(lambda value: json.dumps(value).encode()), max_size=5))
def test_records(tmp_path, lines):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b"\n".join(lines))
    for record in records.read(file):
        assert "kind" in record

"""The events for TensorBoard, read as TensorBoard reads them."""
import struct

import pytest
from PIL import Image
from report_runs import evaluated, pretrained

from src.report.events import Events
from src.run.layout import Layout

pytest.importorskip("tensorboardX")


def values(folder):
    """Yield (step, value) of the events in a folder: records of length, checksum, event and checksum."""
    from tensorboardX.proto.event_pb2 import Event
    for file in folder.iterdir():
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event, data = Event.FromString(data[12:12 + length]), data[16 + length:]
            yield from ((event.step, value) for value in event.summary.value)


def scalars(folder):
    """Return {name: [(step, value)]} of the scalars in a folder."""
    found = {}
    for step, value in values(folder):
        if value.WhichOneof("value") == "simple_value":
            found.setdefault(value.tag, []).append((step, pytest.approx(value.simple_value, rel=1e-6)))
    return found


def test_numbers_become_scalars_over_the_epochs(tmp_path):
    events = Events(Layout(tmp_path))
    records = [*pretrained(2), {"kind": "linear_classifier", "epoch": 1, "seed": 3, "loss": 0.5, "seconds": 0.25},
               evaluated(0.75), evaluated(0.5, "linear_lbfgs"), {**evaluated(0.25, "fine_tuned"), "training": "ab"}]
    for record in records:
        events(record)
    found = scalars(tmp_path / "tensorboard")
    assert found["pretrain/loss"] == [(1, 8), (2, 4)] and found["pretrain/learning_rate"] == [(1, 0.004), (2, 0.002)]
    assert found["monitor/knn_accuracy"] == [(2, 0.2)] and "monitor/collapsed" not in found
    assert found["linear_classifier/loss/seed_3"] == [(1, 0.5)]
    assert found["linear_sgd/accuracy/seed_0"] == [(4, 0.75)] and found["linear_lbfgs/accuracy/seed_0"] == [(4, 0.5)]
    assert found["fine_tuned/accuracy/training_ab/seed_0"] == [(4, 0.25)]
    assert not {name for name in found if name.split("/")[1] in ("epoch", "seed", "images", "seconds")}


def test_the_sheet_of_views_is_there_once(tmp_path):
    layout = Layout(tmp_path)
    events, (first, *others) = Events(layout), pretrained(2)
    events(first)  # before there is a sheet
    Image.new("RGB", (20, 10), "red").save(layout.views)
    for record in others:
        events(record)
    ((step, value),) = [(step, value) for step, value in values(layout.events) if value.HasField("image")]
    assert (step, value.tag, value.image.width, value.image.height) == (0, "views", 20, 10)
    assert value.image.encoded_image_string == layout.views.read_bytes()

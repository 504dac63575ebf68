"""The events for TensorBoard, read as TensorBoard reads them."""
import struct

import pytest
from PIL import Image
from report_runs import evaluated, pretrained

from src.report.events import Events
from src.run.layout import Layout

pytest.importorskip("tensorboardX")


def values(folder):
    """Yield (step, value) of all events in a folder. A file has records of length, checksum, event and checksum."""
    from tensorboardX.proto.event_pb2 import Event
    for file in folder.iterdir():
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event, data = Event.FromString(data[12:12 + length]), data[16 + length:]
            yield from ((event.step, value) for value in event.summary.value)


def test_measurements_become_scalars_and_the_sheet_of_views_one_image(tmp_path):
    layout = Layout(tmp_path)
    events = Events(layout)
    Image.new("RGB", (20, 10), "red").save(layout.views)
    for record in [*pretrained(2), {"kind": "linear_classifier", "epoch": 1, "seed": 3, "loss": 0.5},
                   evaluated(0.75), {**evaluated(0.25, "fine_tuned"), "training": "ab"}]:
        events(record)
    scalars, images = {}, []
    for step, value in values(layout.events):
        if value.HasField("image"):
            images.append((step, value.tag, value.image.width, value.image.height))
        else:
            scalars.setdefault(value.tag, []).append((step, pytest.approx(value.simple_value, rel=1e-6)))
    assert images == [(0, "views", 20, 10)]
    assert scalars["pretrain/loss"] == [(1, 8), (2, 4)] and scalars["monitor/knn_accuracy"] == [(2, 0.2)]
    assert scalars["linear_classifier/loss/seed_3"] == [(1, 0.5)]
    assert scalars["linear_sgd/accuracy/seed_0"] == [(4, 0.75)]
    assert scalars["fine_tuned/accuracy/training_ab/seed_0"] == [(4, 0.25)]
    assert not {tag for tag in scalars if tag.split("/")[1] in ("epoch", "seed", "images", "seconds", "collapsed")}

"""The records of a run as events for TensorBoard, by tensorboardX: neither TensorBoard nor TensorFlow is needed."""
import time

from PIL import Image

from src.run.layout import Layout
from src.run.records import MEASUREMENTS, Record


class Events:
    """A sink of records: every measurement becomes a scalar, over the epochs; and once, the sheet of views a picture.

    A scalar is named after the record's protocol or kind, its key, and its training and seed where there may be
    several. It is in the file when the call returns; tensorboardX's own SummaryWriter leaves that to a thread, which
    ends with the process.
    """

    def __init__(self, layout: Layout):
        from tensorboardX.event_file_writer import EventsWriter  # an extra: --tensorboard asks for it
        layout.events.mkdir(parents=True, exist_ok=True)
        self.writer = EventsWriter(str(layout.events / "events"))
        self.views = layout.views
        self.has_views = False

    def __call__(self, record: Record) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.summary import scalar
        if not self.has_views and self.views.is_file():
            self.has_views = True
            with Image.open(self.views) as sheet:
                width, height = sheet.size
            picture = Summary.Image(height=height, width=width, colorspace=3,
                                    encoded_image_string=self.views.read_bytes())
            self.writer.write_event(Event(wall_time=time.time(), step=0, summary=Summary(
                value=[Summary.Value(tag="views", image=picture)])))
        about = "".join(f"/{name}_{record[name]}" for name in ("training", "seed") if name in record)
        step = record.get("epoch", record.get("encoder_epoch")) or 0
        for key in MEASUREMENTS:
            if record.get(key) is not None:
                tag = f"{record.get('protocol_id', record['kind'])}/{key}{about}"
                self.writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(tag, record[key])))
        self.writer.flush()

"""Writes records as events for TensorBoard by tensorboardX, which needs neither TensorBoard nor TensorFlow."""
import time

import numpy as np
from PIL import Image

from src.run.layout import Layout
from src.run.records import MEASUREMENTS, Record


class Events:
    """A sink of records: every measurement becomes a scalar over the epochs, and the sheet of views becomes an image.

    A scalar is named after the record's protocol or kind and the measurement, then its training and seed.
    """

    def __init__(self, layout: Layout):
        # tensorboardX's SummaryWriter leaves events to a thread, which a killed process takes with it.
        from tensorboardX.event_file_writer import EventsWriter  # optional: --tensorboard needs it
        layout.events.mkdir(parents=True, exist_ok=True)
        self.writer = EventsWriter(str(layout.events / "events"))
        self.views = layout.views
        self.has_views = False

    def __call__(self, record: Record) -> None:
        from tensorboardX.summary import image, scalar
        if not self.has_views and self.views.is_file():
            self.has_views = True
            self._write(0, image("views", np.asarray(Image.open(self.views).convert("RGB")), dataformats="HWC"))
        series = "".join(f"/{name}_{record[name]}" for name in ("training", "seed") if name in record)
        epoch = record.get("epoch", record.get("encoder_epoch")) or 0
        for key in MEASUREMENTS:
            if record.get(key) is not None:
                self._write(epoch, scalar(f"{record.get('protocol_id', record['kind'])}/{key}{series}", record[key]))
        self.writer.flush()

    def _write(self, step: int, summary) -> None:
        from tensorboardX.proto.event_pb2 import Event
        self.writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))

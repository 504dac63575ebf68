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
        self.layout = layout
        self.writer = None

    def __call__(self, record: Record) -> None:
        # tensorboardX is optional. Its SummaryWriter leaves events to a thread, which a killed process takes with it.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.summary import image, scalar
        if self.writer is None:
            self.layout.events.mkdir(parents=True, exist_ok=True)
            self.writer = EventsWriter(str(self.layout.events / "events"))
            if self.layout.views.is_file():
                pixels = np.asarray(Image.open(self.layout.views).convert("RGB"))
                self._write(0, image("views", pixels, dataformats="HWC"))
        series = "".join(f"/{name}_{record[name]}" for name in ("training", "seed") if name in record)
        epoch = record.get("epoch", record.get("encoder_epoch")) or 0
        for key in MEASUREMENTS:
            if record.get(key) is not None:
                self._write(epoch, scalar(f"{record.get('protocol_id', record['kind'])}/{key}{series}", record[key]))
        self.writer.flush()

    def _write(self, step: int, summary) -> None:
        from tensorboardX.proto.event_pb2 import Event
        self.writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))

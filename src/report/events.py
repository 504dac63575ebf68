"""The records of a run as events for TensorBoard, by tensorboardX: neither TensorBoard nor TensorFlow is needed."""
import time
from pathlib import Path

from src.run.records import Record

NO_SCALARS = ("epoch", "encoder_epoch", "seed", "images")  # numbers that are no measurements


class Events:
    """A sink of records: every number of a record becomes a scalar, over the epochs.

    A scalar is named after the record's kind and key, and its seed where there may be several. It is in the file when
    the call returns; tensorboardX's own SummaryWriter leaves that to a thread, which ends with the process.
    """

    def __init__(self, folder: Path):
        from tensorboardX.event_file_writer import EventsWriter  # an extra: --tensorboard asks for it
        folder.mkdir(parents=True, exist_ok=True)
        self.writer = EventsWriter(str(folder / "events"))

    def __call__(self, record: Record) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar
        seed = f"/seed_{record['seed']}" if "seed" in record else ""
        step = record.get("epoch", record.get("encoder_epoch")) or 0
        for key, value in record.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool) and key not in NO_SCALARS:
                self.writer.write_event(Event(wall_time=time.time(), step=step,
                                              summary=scalar(f"{record['kind']}/{key}{seed}", value)))
        self.writer.flush()

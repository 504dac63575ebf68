"""Saving beside the training: the parameters are copied in memory, and a thread writes and sends the copies."""
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterable, List, Optional

import numpy as np
from mindspore import Parameter, Tensor

from src.common.files import writing
from src.common.logs import logger
from src.run import checkpoint
from src.run.layout import Series


class Saver:
    """Saves the checkpoint of an epoch, and stops the training only while it copies the parameters.

    At most one checkpoint is being written: the next save waits for it, and so does the end of the context. An error
    of the thread is raised there. After an error of the training, which matters more, it is a warning.

    ``info`` is that of the checkpoints without the epoch (src/run/info.py), and ``keep_max`` of them stay. The thread
    calls ``before``, writes the checkpoint, and then calls ``after``.
    """

    # MindSpore's own `async_save` tells nobody of an error, nor when the file is complete, so that it could be flushed
    # and renamed; and it copies into new memory every time, or forks a process that has threads.

    def __init__(self, series: Series, parameters: Iterable[Parameter], info: Dict[str, Any], keep_max: int,
                 before: Callable[[], None] = lambda: None, after: Callable[[], None] = lambda: None):
        self.series = series
        self.parameters = list(parameters)
        self.info = info
        self.keep_max = keep_max
        self.before, self.after = before, after
        self.copies: List[Parameter] = []
        self.unwritten: Optional[int] = None  # the epoch of the copies, as long as nobody has asked to write them
        self.thread = ThreadPoolExecutor(max_workers=1)
        self.under_way: Optional[Future] = None

    def __call__(self, epoch: int) -> None:
        """Save the parameters as those of ``epoch``."""
        self.wait()
        self._copy(epoch)
        self._submit()

    def hold(self, epoch: int) -> None:
        """Copy the parameters; the copies are written only if the training is interrupted before the next call."""
        if self.under_way and not self.under_way.done():
            return  # sending to a cloud may take longer than an epoch, and the training must not wait for that
        self.wait()
        self._copy(epoch)

    def wait(self) -> None:
        """Wait until the last save is written and sent, and raise the error that has prevented it."""
        if self.under_way:
            error = self.under_way.exception()
            self.under_way = None
            if error:
                raise error

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: Any, error: Optional[BaseException], traceback: Any) -> None:
        try:
            self.wait()
            if error is not None:
                self.thread.submit(lambda: None).result()  # an interrupted _copy: the thread has finished it now
            if error is not None and self.unwritten is not None:
                logger.info("saving epoch %d, the last finished one", self.unwritten)
                self._submit()
                self.wait()
        except Exception as problem:
            if error is None:
                raise
            logger.warning("warning: %s", problem)
        finally:
            self.thread.shutdown()  # waits, even if a second Ctrl-C has ended the waiting above

    def _copy(self, epoch: int) -> None:
        values = [parameter.asnumpy() for parameter in self.parameters]
        # In the thread, because signals interrupt the main thread alone: copies are always those of one epoch.
        self.thread.submit(self._copy_values, epoch, values).result()

    def _copy_values(self, epoch: int, values: List[np.ndarray]) -> None:
        if not self.copies:
            self.copies = [Parameter(Tensor(value), name=parameter.name)
                           for parameter, value in zip(self.parameters, values)]
        for copy, value in zip(self.copies, values):
            # asnumpy() of a tensor on the host is its own memory, which is used again: new memory is slow to get.
            np.copyto(copy.asnumpy(), value)
        self.unwritten = epoch

    def _submit(self) -> None:
        self.under_way = self.thread.submit(self._write, self.unwritten)
        self.unwritten = None

    def _write(self, epoch: int) -> None:
        with writing("train_output_path", self.series.folder):
            self.before()
            checkpoint.save_epoch(self.series, epoch, self.copies, self.info, self.keep_max)
        self.after()

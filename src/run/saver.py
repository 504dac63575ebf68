"""Saving beside the training: what is to be saved is copied in memory, and a thread writes and sends the copy."""
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Iterable, List, Optional

import numpy as np
from mindspore import Parameter, Tensor

from src.common.logs import logger


class Saver:
    """Saves parameters as they are when it is called, and keeps the caller no longer than copying them takes.

    One save is under way at most: the next one waits for it, and so does the end of the context, whatever ends it.
    What has kept a save from being done is raised there, as ``write`` has raised it; after an error in the context,
    which goes first, it is a warning.

    Args:
        parameters: what is saved.
        write: called in the thread with an epoch and the copies.
    """

    # MindSpore's own `async_save` tells nobody of an error, nor when the file is there, to be flushed and renamed; and
    # it copies in the caller's time, into new memory, or forks a process that has threads.

    def __init__(self, parameters: Iterable[Parameter], write: Callable[[int, List[Parameter]], None]):
        self.parameters = list(parameters)
        self.write = write
        self.copies: List[Parameter] = []
        self.memory: List[np.ndarray] = []  # of the copies: what `asnumpy` returns is a parameter's own
        self.thread = ThreadPoolExecutor(max_workers=1)
        self.under_way: Optional[Future] = None
        self.kept: Optional[int] = None  # the epoch of copies that are not written
        self.copied: Optional[int] = None  # that of parameters that are just being copied

    def __call__(self, epoch: int) -> None:
        self._keep(epoch)
        self._submit()

    def keep(self, epoch: int) -> None:
        """Have a copy, which is only written should the training be ended before there is a newer one."""
        if self.under_way and not self.under_way.done():
            return  # to a cloud it may take longer than an epoch, which need not wait for what may not be needed
        self._keep(epoch)

    def _keep(self, epoch: int) -> None:
        self.wait()  # the copies are being written until then
        self.kept, self.copied = None, epoch
        self._copy()
        self.kept, self.copied = epoch, None

    def _submit(self) -> None:
        self.under_way = self.thread.submit(self.write, self.kept, self.copies)
        self.kept = None

    def wait(self) -> None:
        """Wait until what was saved is written and sent."""
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
            if error is not None and self.copied is not None:  # interrupted in between
                self._keep(self.copied)
            if error is not None and self.kept is not None:
                logger.info("saving epoch %d, the last one that was finished", self.kept)
                self._submit()
                self.wait()
        except Exception as problem:
            if error is None:
                raise
            logger.warning("warning: %s", problem)
        finally:
            self.thread.shutdown()  # waits once more, should a second Ctrl-C have ended the waiting

    def _copy(self) -> None:
        """Copy to where the last copy was, for new memory is slow to get; the steps change parameters in place.

        The thread has nothing else to do and copies too: two get more from the memory than one.
        """
        values = [parameter.asnumpy() for parameter in self.parameters]
        if not self.copies:
            self.copies = [Parameter(Tensor(array), name=parameter.name)
                           for parameter, array in zip(self.parameters, values)]
            self.memory = [copy.asnumpy() for copy in self.copies]
            return
        left = iter(list(zip(self.memory, values)))

        def share() -> None:
            for memory, array in left:
                np.copyto(memory, array)

        other = self.thread.submit(share)
        share()
        other.result()

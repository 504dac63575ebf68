"""Ctrl-C, SIGTERM and SIGHUP: the first ends the work in good order, a second ends the process at once."""
import os
import signal
import threading
import time
from contextlib import contextmanager, nullcontext
from typing import Dict, Iterator, Optional

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, from a scheduler, from a terminal that is closed
_CTRL_C = signal.SIGURG  # stands for SIGINT in the main thread; nobody else sends it
_SAME_EVENT = 1.0  # seconds: `timeout` sends its signal twice, to the process and to its group


class Interruption:
    """The number of the signal that has interrupted the process, or None."""

    number: Optional[int] = None


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Let the first signal raise KeyboardInterrupt in the main thread, and the next one end the process.

    Signals that are ignored, as SIGHUP is under ``nohup``, stay ignored.
    """
    interruption, is_over = Interruption(), threading.Event()
    numbers = {number: number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN}
    takes_ctrl_c = signal.SIGINT in numbers
    if takes_ctrl_c:
        numbers[_CTRL_C] = signal.SIGINT

    def interrupt(number: int, _) -> None:
        if interruption.number is None and not is_over.is_set():
            interruption.number = numbers[number]
            raise KeyboardInterrupt

    handlers = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        with _pass_on_ctrl_c() if takes_ctrl_c else nullcontext(), _end_at_the_second(numbers):
            try:
                yield interruption
            finally:
                is_over.set()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _pass_on_ctrl_c() -> Iterator[None]:
    """Block SIGINT in all threads, and send the main thread another signal for it.

    MindSpore's data engine takes SIGINT's handler away. The other signals are not blocked: the processes that this one
    starts would inherit that, and could not be ended.
    """
    main, is_over = threading.get_ident(), threading.Event()

    def wait() -> None:
        while signal.sigwait({signal.SIGINT}) and not is_over.is_set():
            signal.pthread_kill(main, _CTRL_C)

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # first: a thread inherits it
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        signal.pthread_kill(thread.ident, signal.SIGINT)
        thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def _end_at_the_second(numbers: Dict[int, int]) -> Iterator[None]:
    """End the process at the second signal; in a thread, for Python's handlers wait while MindSpore compiles a graph.

    ``numbers`` has the number to report for each signal.
    """
    def listen() -> None:
        first = None
        while True:
            (arrived,) = os.read(reading, 1)
            if not arrived:
                return
            if first is None:
                first = time.monotonic() if arrived in numbers else None
            elif arrived in numbers and time.monotonic() - first > _SAME_EVENT:
                os._exit(128 + numbers[arrived])

    reading, writing = os.pipe()
    os.set_blocking(writing, False)  # as set_wakeup_fd demands
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.write(writing, b"\0")
        thread.join()
        os.close(reading)
        os.close(writing)

"""Ctrl-C, SIGTERM and SIGHUP: the first ends the work in good order, a second ends the process at once."""
import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import Iterator, Optional

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
    interruption, is_over, main = Interruption(), threading.Event(), threading.get_ident()
    numbers = {number: number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN}
    # MindSpore's data engine takes SIGINT's handler away. So every thread blocks SIGINT, and one waits for it. The
    # other signals must not be blocked: the processes that this one starts would inherit that, and could not be ended.
    blocked = {signal.SIGINT} & numbers.keys()
    if blocked:
        numbers[_CTRL_C] = signal.SIGINT

    def interrupt(number: int, _) -> None:
        if interruption.number is None and not is_over.is_set():
            interruption.number = numbers[number]
            raise KeyboardInterrupt

    def pass_on_ctrl_c() -> None:
        while signal.sigwait(blocked) and not is_over.is_set():
            signal.pthread_kill(main, _CTRL_C)

    def end_at_the_second() -> None:  # in a thread, because Python's handlers wait while MindSpore compiles a graph
        first = None
        while not is_over.is_set():
            number = numbers.get(os.read(arrived, 1)[0])
            if number and first is None:
                first = time.monotonic()
            elif number and time.monotonic() - first > _SAME_EVENT:
                os._exit(128 + number)

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)  # first: threads inherit it
    handlers = {number: signal.signal(number, interrupt) for number in numbers}
    arrived, arrival = os.pipe()
    os.set_blocking(arrival, False)  # as set_wakeup_fd demands
    before = signal.set_wakeup_fd(arrival, warn_on_full_buffer=False)
    threads = [threading.Thread(target=target, daemon=True)
               for target in (end_at_the_second, *([pass_on_ctrl_c] if blocked else []))]
    for thread in threads:
        thread.start()
    try:
        yield interruption
    finally:
        is_over.set()
        signal.set_wakeup_fd(before)
        os.write(arrival, b"\0")
        for thread in threads[1:]:
            signal.pthread_kill(thread.ident, signal.SIGINT)
        for thread in threads:
            thread.join()
        os.close(arrived)
        os.close(arrival)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

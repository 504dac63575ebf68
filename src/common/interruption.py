"""Ctrl-C, and the signals that ask a process to end: the first ends what is under way in good order, a second at once.
"""
import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import Iterator, Optional

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, a scheduler's word, a terminal that is closed
_WAKE = signal.SIGURG  # nobody sends it, and where nobody waits for it nothing happens
_SAME = 1.0  # seconds: what comes again so soon tells of the same event, as `timeout` and terminals do


class Interruption:
    """What has interrupted the process: the number of the signal, or None."""

    number: Optional[int] = None
    moment: Optional[float] = None

    def note(self, number: int) -> bool:
        """Return whether a signal is the first; one that comes after it ends the process."""
        now = time.monotonic()
        if self.moment is None:
            self.number, self.moment = self.number or number, now
            return True
        if now - self.moment > _SAME:
            os._exit(128 + number)
        return False


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Let the first of the signals raise KeyboardInterrupt in the main thread, and the next one end the process.

    For Ctrl-C a thread waits, and all others leave it to that: MindSpore's data engine has a handler of its own, which
    would turn it into SIGTERM. Another thread hears of the other signals by a pipe, for Python's handlers wait while a
    graph is compiled. What is ignored, as by ``nohup``, stays ignored. Other processes that are started meanwhile
    answer to all but Ctrl-C.
    """
    found, over, raised = Interruption(), threading.Event(), threading.Event()

    def interrupt(number: int, _) -> None:
        if number != _WAKE:
            found.number = found.number or number
        if not raised.is_set() and not over.is_set():
            raised.set()
            raise KeyboardInterrupt

    handlers = {number: signal.signal(number, interrupt) for number in (*_SIGNALS, _WAKE)
                if signal.getsignal(number) is not signal.SIG_IGN}
    waits = {signal.SIGINT} & handlers.keys()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, waits)
    main = threading.get_ident()

    def watch() -> None:
        while True:
            signal.sigwait(waits)
            if over.is_set():
                return
            if found.note(signal.SIGINT):
                signal.pthread_kill(main, _WAKE)

    def listen() -> None:
        while not over.is_set():
            for number in os.read(told, 1):
                if number in _SIGNALS:
                    found.note(number)

    thread = threading.Thread(target=watch, name="Ctrl-C", daemon=True)
    if waits:
        thread.start()
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    before = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    listener = threading.Thread(target=listen, name="signals", daemon=True)
    listener.start()
    try:
        yield found
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        os.write(tell, b"\0")
        listener.join()
        os.close(told)
        os.close(tell)
        if waits:
            signal.pthread_kill(thread.ident, signal.SIGINT)
            thread.join()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

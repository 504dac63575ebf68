"""Ctrl-C, and the signals that ask a process to end: the first ends what is under way in good order, a second at once.
"""
import signal
import threading
from contextlib import contextmanager
from typing import Iterator, Optional

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, a scheduler's word, a terminal that is closed
_WAKE = signal.SIGURG  # nobody sends it, and where nobody waits for it nothing happens


class Interruption:
    """What has interrupted the process: the number of the signal, or None."""

    number: Optional[int] = None


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Let the first of the signals raise KeyboardInterrupt in the main thread, and the next one end the process.

    A thread waits for them, and all others leave them to it: MindSpore's data engine has a handler of its own for
    Ctrl-C, which would turn it into SIGTERM, and Python's handlers wait while a graph is compiled. What is ignored, as
    by ``nohup``, stays ignored.
    """
    found, lock, over = Interruption(), threading.Lock(), threading.Event()

    def interrupt(*_) -> None:
        if not over.is_set():
            raise KeyboardInterrupt

    signals = {number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN}
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in signals}
    handlers[_WAKE] = signal.signal(_WAKE, interrupt)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    main = threading.get_ident()

    def watch() -> None:
        number = signal.sigwait(signals)
        with lock:
            if over.is_set():
                return
            found.number = number
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)  # a second one comes here, and does what it does
            signal.pthread_kill(main, _WAKE)
        over.wait()

    thread = threading.Thread(target=watch, name="signals", daemon=True)
    if signals:
        thread.start()
    try:
        yield found
    finally:
        with lock:
            over.set()
            if signals and not found.number:
                signal.pthread_kill(thread.ident, next(iter(signals)))
        if signals:
            thread.join()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

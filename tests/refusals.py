"""What the tests of bad input share: a script ends with one line that says what is wrong and what to do."""
import contextlib
import os
import re
import signal

import pytest
from helpers import call_script, start_script, state_of

SECONDS = 5  # that a refusal takes at most, once everything is imported


@contextlib.contextmanager
def no_longer_than(seconds):
    """End what waits forever."""
    def end(*_):
        raise TimeoutError(f"still going on after {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check_refused(result, culprit, remedy):
    """Check for status 2 and one line, of characters that a terminal can take, that matches both patterns."""
    assert result.returncode == 2, result.stdout + result.stderr
    assert result.stderr.count("\n") == 1 and result.stderr.rstrip("\n").isprintable(), result.stderr
    for pattern in (culprit, remedy):
        assert re.search(pattern, result.stderr), result.stderr
    assert "Traceback" not in result.stdout


def refuse(command, folder, culprit, remedy):
    """Call a script from ``folder``, and check that it is refused and has left nothing there."""
    before = state_of(folder)
    with no_longer_than(SECONDS):
        result = call_script(*command, cwd=folder)
    check_refused(result, culprit, remedy)
    assert state_of(folder) == before


def refuse_in_a_process(command, folder, culprit, remedy):
    """The same, where others than Python write to the console, or the interpreter itself might crash."""
    before = state_of(folder)
    check_refused(start_script(*command, cwd=folder, timeout=60), culprit, remedy)
    assert state_of(folder) == before


def case(name, *values):
    return pytest.param(*values, id=name)


# What may stand in the place of a file.

def pipe(path):
    os.mkfifo(path)


def link_loop(path):
    path.symlink_to(path.name)


def device(path):
    path.symlink_to("/dev/zero")

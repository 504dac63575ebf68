"""What the tests of bad input share: a script ends with status 2 and one line that names the culprit."""
import contextlib
import os
import re
import signal

import pytest
from helpers import call_script, start_script, state_of

SECONDS = 5  # the longest that a refusal may take, once everything is imported


@contextlib.contextmanager
def no_longer_than(seconds):
    """Raise TimeoutError in code that waits forever."""
    def end(*_):
        raise TimeoutError(f"it still runs after {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check_refused(result, culprit, remedy=""):
    """Check for status 2 and one line, of characters that a terminal can show, that matches both patterns."""
    assert result.returncode == 2, result.stdout + result.stderr
    assert result.stderr.count("\n") == 1 and result.stderr.rstrip("\n").isprintable(), result.stderr
    assert len(result.stderr) < 1500, "nobody reads so long a line"
    for pattern in (culprit, remedy):
        assert re.search(pattern, result.stderr), result.stderr
    assert "Traceback" not in result.stdout


def refuse(command, folder, culprit, remedy=""):
    """Call a script in ``folder``, and check that it is refused and leaves nothing there."""
    before = state_of(folder)
    with no_longer_than(SECONDS):
        result = call_script(*command, cwd=folder)
    check_refused(result, culprit, remedy)
    assert state_of(folder) == before


def refuse_in_a_process(command, folder, culprit, remedy=""):
    """The same in a process: for output that Python does not write, and for crashes of the interpreter."""
    before = state_of(folder)
    check_refused(start_script(*command, cwd=folder, timeout=60), culprit, remedy)
    assert state_of(folder) == before


def case(name, *values):
    return pytest.param(*values, id=name)


# What may be in the place of a file.

def pipe(path):
    os.mkfifo(path)


def link_loop(path):
    path.symlink_to(path.name)

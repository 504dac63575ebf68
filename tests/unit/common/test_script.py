"""How a script ends: interruptions, errors of users and of the program, output that nobody takes."""
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import pytest
from helpers import ROOT

SCRIPT = """
import sys
from pathlib import Path
from src.common.errors import UserError
from src.common.logs import logger, log_to_file
from src.common.script import status_of
{body}
sys.exit(status_of(main))
"""
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def start(body, **options):
    return subprocess.Popen([sys.executable, "-c", SCRIPT.format(body=body)], **{
        "text": True, "stderr": subprocess.PIPE, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, **options})


def ended(body, **options):
    """Return the exit status and the lines on standard error of a script with such a ``main``."""
    process = start(body, **options)
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors.splitlines()


SLOW = """
def main():
    import time
    import numpy  # with threads of its own
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        print("tidied", flush=True)
        {then}
"""
# Without a turn for Python, as while a graph is compiled.
STUCK = """import ctypes; m = ctypes.create_string_buffer(64); lock = ctypes.CDLL(None).pthread_mutex_lock
        lock(m); lock(m)"""


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_ends_in_good_order_though_it_comes_twice_at_once(number):
    """``timeout`` sends its signal to the process and to its group."""
    process = start(SLOW.format(then="time.sleep(0.3); print('whole', flush=True)"), stdout=subprocess.PIPE)
    assert process.stdout.readline() == "begun\n"
    for _ in range(2):
        process.send_signal(number)
        time.sleep(0.05)
    assert process.communicate(timeout=10) == ("tidied\nwhole\n", "-c: interrupted\n")
    assert process.returncode == 128 + number


@pytest.mark.parametrize("number", SIGNALS[:2])  # SIGINT takes a way of its own
def test_the_second_signal_ends_at_once(number):
    process = start(SLOW.format(then=STUCK), stdout=subprocess.PIPE)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    assert process.stdout.readline() == "tidied\n"
    time.sleep(1.2)
    process.send_signal(number)
    assert process.wait(10) == 128 + number
    process.communicate()


def test_a_terminal_that_is_closed_interrupts_and_log_lines_do_no_harm():
    controller, terminal = pty.openpty()
    process = start(SLOW.format(then="[logger.info('line') for _ in range(3)]"), stdin=terminal, stdout=terminal,
                    stderr=terminal, start_new_session=True, text=False,
                    preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    os.close(terminal)
    assert b"begun" in os.read(controller, 100)
    os.close(controller)
    assert process.wait(10) == 129


def test_processes_that_a_script_starts_can_be_ended():
    """They must not inherit blocked signals: MindSpore ends those that compile for Ascend by SIGTERM."""
    body = """
def main():
    import subprocess
    child = subprocess.Popen(["sleep", "60"])
    child.terminate()
    logger.info("%d", child.wait(10))
"""
    assert start(body, stdout=subprocess.PIPE).communicate(timeout=30)[0] == "-15\n"


def test_a_signal_that_is_ignored_stays_ignored():
    """As SIGHUP is under ``nohup``, and SIGINT in the background of a shell script."""
    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    process = start(SLOW.format(then="pass"), stdout=subprocess.PIPE, preexec_fn=ignore)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143
    process.communicate()


def test_no_script_has_threads_before_it_waits_for_ctrl_c():
    """Threads that exist before SIGINT is blocked, such as NumPy's, would get it, and MindSpore's handler."""
    code = """
import sys, threading
for script in ("train", "linear_eval", "finetune", "export", "convert", "report", "predict", "check_data",
               "show_views", "rank_table"):
    __import__(script)
    assert "numpy" not in sys.modules and threading.active_count() == 1, script
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env={**os.environ, "PYTHONPATH": "scripts"})


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_what_an_output_cannot_take_is_escaped(encoding):
    body = r"""
def main():
    print("\u00d7 \udcff")
    logger.info("\u4e2d \udcff \x1b[2J")
"""
    process = subprocess.run([sys.executable, "-c", SCRIPT.format(body=body)], cwd=ROOT, capture_output=True,
                             check=False, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert (process.returncode, process.stderr) == (0, b"")
    printed, logged = process.stdout.decode(encoding).splitlines()
    assert printed in ("\u00d7 \\udcff", "\\xd7 \\udcff")
    assert logged in ("\u4e2d \\udcff \\x1b[2J", "\\u4e2d \\udcff \\x1b[2J")


def test_a_defect_of_the_program_keeps_its_traceback():
    status, errors = ended("def main():\n    [][1]")
    assert status == 1 and errors[-2] == "IndexError: list index out of range"
    assert errors[-1].startswith("-c: ") and "defect" in errors[-1] and "CONTRIBUTING.md" in errors[-1]


@pytest.mark.parametrize("error, status, culprit", [
    ("UserError('bad\\x1b[2J\\ud800')", 2, "bad\\x1b[2J\\ud800"),
    ("OSError(28, 'No space left on device', 'f')", 2, "f: No space left on device"), ("MemoryError()", 2, "memory"),
    ("ModuleNotFoundError(name='foreign')", 2, "foreign"), ("KeyboardInterrupt", 130, "interrupted")])
def test_what_is_no_defect_is_one_line(error, status, culprit):
    found, (line,) = ended(f"def main():\n    raise {error}")
    assert found == status and line.startswith("-c: ") and culprit in line


LINES = """
def main():
    {before}
    for number in range(100):
        logger.info("line %d", number)
"""


@pytest.mark.parametrize("where, status", [("full", 2), ("a pipe that nobody reads", 141)])
@pytest.mark.parametrize("has_file", [False, True])
def test_output_that_nobody_takes_ends_nothing_and_counts_where_no_log_has_the_lines(tmp_path, where, status, has_file):
    file = f"log_to_file(Path({str(tmp_path / 'log')!r}))" if has_file else "pass"
    body = LINES.format(before=f"logger.info('early'); {file}")
    reading, writing = os.pipe()
    os.close(reading)
    with open("/dev/full", "w", encoding="utf-8") as full:
        found, errors = ended(body, stdout=full if where == "full" else writing)
    os.close(writing)
    assert (found, len(errors)) == (0 if has_file else status, not has_file and status == 2)
    if has_file:  # also the lines from before there was a log
        lines = [line for line in (tmp_path / "log").read_text().splitlines() if not line.startswith("warning")]
        assert lines == ["early", *(f"line {number}" for number in range(100))]

"""How a script ends: interruptions, errors of others and of ours, output that nobody takes."""
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
from src.common.logs import logger, log_to_file
from src.common.script import status_of
{body}
sys.exit(status_of(main))
"""


def start(body, **options):
    return subprocess.Popen([sys.executable, "-c", SCRIPT.format(body=body)], text=True, stderr=subprocess.PIPE,
                            env={**os.environ, "PYTHONPATH": str(ROOT)}, **options)


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_ends_in_good_order_and_the_second_at_once(number):
    process = start(SLOW.format(then="pass"), stdout=subprocess.PIPE)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    assert process.communicate(timeout=10) == ("tidied\n", "-c: interrupted\n")
    assert process.returncode == 128 + number

    # The second one does not wait for Python, which has no turn here, as while a graph is compiled.
    waiting = ("import ctypes; m = ctypes.create_string_buffer(64); lock = ctypes.CDLL(None).pthread_mutex_lock; "
               "lock(m); lock(m)")
    process = start(SLOW.format(then=waiting), stdout=subprocess.PIPE)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    assert process.stdout.readline() == "tidied\n"
    time.sleep(1.2)
    process.send_signal(number)
    assert process.wait(10) == 128 + number
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_event_that_is_told_twice_counts_once(number):
    """As by ``timeout``, which sends its signal to the process and to its group."""
    process = start(SLOW.format(then="time.sleep(0.5); print('whole', flush=True)"), stdout=subprocess.PIPE)
    assert process.stdout.readline() == "begun\n"
    for _ in range(3):
        process.send_signal(number)
        time.sleep(0.05)
    assert process.communicate(timeout=10) == ("tidied\nwhole\n", "-c: interrupted\n")
    assert process.returncode == 128 + number


def test_a_terminal_that_is_closed_interrupts():
    """Whatever is printed then reaches nobody, and changes nothing."""
    controller, terminal = pty.openpty()
    body = SLOW.format(then="[logger.info('line') for _ in range(3)]")
    process = subprocess.Popen([sys.executable, "-c", SCRIPT.format(body=body)], stdin=terminal, stdout=terminal,
                               stderr=terminal, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
                               preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    os.close(terminal)
    assert b"begun" in os.read(controller, 100)
    os.close(controller)
    assert process.wait(10) == 129


def test_other_processes_can_be_ended():
    """They do not inherit that somebody else waits for the signals; those that compile for Ascend are ended so."""
    body = """
def main():
    import subprocess
    child = subprocess.Popen(["sleep", "60"])
    child.terminate()
    logger.info("%d", child.wait(10))
"""
    process = start(body, stdout=subprocess.PIPE)
    assert process.communicate(timeout=30)[0] == "-15\n"


def test_what_is_ignored_stays_ignored():
    """As SIGHUP is under ``nohup``."""
    process = start(SLOW.format(then="pass"), stdout=subprocess.PIPE,
                    preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143
    process.communicate()


@pytest.mark.parametrize("script", ["train", "linear_eval", "finetune", "export", "convert", "report", "predict",
                                    "check_data", "show_views", "rank_table"])
def test_nothing_has_threads_before_ctrl_c_is_waited_for(script):
    """NumPy's would get it, and MindSpore's handler."""
    code = f"import sys, threading, {script}; sys.exit('numpy' in sys.modules or threading.active_count() > 1)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False,
                          env={**os.environ, "PYTHONPATH": "scripts"}).returncode == 0


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "gbk", "utf-8"])
def test_what_an_output_cannot_take_is_written_in_escapes(encoding):
    body = r"""
def main():
    print("\u00d7 \udcff")
    logger.info("\u4e2d \udcff")
"""
    process = subprocess.run([sys.executable, "-c", SCRIPT.format(body=body)], cwd=ROOT, capture_output=True,
                             check=False, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert (process.returncode, process.stderr) == (0, b"")
    printed, logged = process.stdout.decode(encoding).splitlines()
    assert printed in ("\u00d7 \\udcff", "\\xd7 \\udcff") and logged in ("\u4e2d \\udcff", "\\u4e2d \\udcff")


def test_a_defect_of_ours_says_so():
    status, errors = ended("def main():\n    [][1]")
    assert status == 1 and errors[-2] == "IndexError: list index out of range"
    assert errors[-1].startswith("-c: this is a defect of the program") and "CONTRIBUTING.md" in errors[-1]


@pytest.mark.parametrize("error, status, line", [
    ("UserError('bad\\x1b[2J\\ud800')", 2, "-c: bad\\x1b[2J\\ud800"),
    ("OSError(28, 'No space left on device', 'f')", 2,
     "-c: f: No space left on device; look at the disk, and start again"),
    ("MemoryError()", 2, "-c: there is not enough memory for this; take smaller batches, or fewer images"),
    ("ModuleNotFoundError(name='foreign')", 2, "-c: the package foreign is not installed here; pip install -r "
     "requirements.txt, or activate the environment that has it"),
    ("KeyboardInterrupt", 130, "-c: interrupted")])
def test_what_is_no_defect_is_one_line(error, status, line):
    assert ended(f"from src.common.errors import UserError\ndef main():\n    raise {error}") == (status, [line])


LINES = """
def main():
    {before}
    for number in range(1000):
        logger.info("line %d", number)
"""


@pytest.mark.parametrize("error, status", [("UserError('bad')", 2), ("IndexError", 1), ("KeyboardInterrupt", 130)])
def test_a_standard_error_that_is_full_changes_no_status(error, status):
    body = f"from src.common.errors import UserError\ndef main():\n    raise {error}"
    with open("/dev/full", "w", encoding="utf-8") as full:
        process = subprocess.run([sys.executable, "-c", SCRIPT.format(body=body)], stdout=full, stderr=full,
                                 env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=30, check=False)
    assert process.returncode == status


@pytest.mark.parametrize("where, status", [("full", 2), ("closed", 0), ("a pipe that nobody reads", 141)])
@pytest.mark.parametrize("has_file", [False, True])
def test_output_that_nobody_takes_ends_nothing(tmp_path, where, status, has_file):
    """And is told at the end where no file has the lines either."""
    file = f"from pathlib import Path; log_to_file(Path({str(tmp_path / 'log')!r}))" if has_file else "pass"
    body = LINES.format(before=file)
    if where == "full":
        with open("/dev/full", "w", encoding="utf-8") as full:
            found = ended(body, stdout=full)
    elif where == "closed":
        found = ended(body, preexec_fn=lambda: os.close(1))
    else:
        reading, writing = os.pipe()
        os.close(reading)
        found = ended(body, stdout=writing)
        os.close(writing)
    assert found[0] == (0 if has_file else status) and len(found[1]) == (found[0] == 2)
    if has_file:
        lines = (tmp_path / "log").read_text().splitlines()
        assert [line for line in lines if line.startswith("line ")] == [f"line {number}" for number in range(1000)]
        assert len(lines) == 1000 + (where != "closed")


def test_a_log_file_that_is_full_ends_nothing():
    body = LINES.format(before="from pathlib import Path; log_to_file(Path('/dev/full'))")
    process = start(body, stdout=subprocess.PIPE)
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert "warning: /dev/full takes no more lines (No space left on device)" in out.splitlines()
    assert out.count("\n") == 1001


def test_a_process_without_standard_files_writes_to_none_of_its_own(tmp_path):
    """A file that is opened where standard output was closed would have everything in it that is printed."""
    body = f"""
def main():
    with open({str(tmp_path / 'file')!r}, "w") as file:
        file.write("whole")
        file.flush()
        print("to standard output", flush=True)
        logger.info("and a line")
"""
    process = subprocess.Popen([sys.executable, "-c", SCRIPT.format(body=body)], close_fds=False,
                               env={**os.environ, "PYTHONPATH": str(ROOT)}, preexec_fn=lambda: os.closerange(0, 3))
    assert process.wait(30) == 0
    assert (tmp_path / "file").read_text() == "whole"

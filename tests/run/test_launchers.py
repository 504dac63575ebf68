"""The launchers under a POSIX shell, with a stand-in for python that writes down how it was called."""
import os
import shutil
import signal
import subprocess
import time

import pytest
from helpers import ROOT, refused

SHELL = shutil.which("dash") or "sh"
STAND_IN = """#!/bin/sh
printf '%s\\n' "$@" >"$RECORD.tmp"
printf 'tunables=%s\\n' "${GLIBC_TUNABLES:-}" >>"$RECORD.tmp"
mv "$RECORD.tmp" "$RECORD"
echo "from the stand-in"
exit "${STATUS:-0}"
"""
TRAIN_CPU = ["cifar10", "data set"]
EVAL_CPU = ["cifar10", "model.ckpt", "data set", "data set"]
LAUNCHERS = {
    "run_standalone_train_ascend.sh": (["cifar10", "data set", "3"], "train.py", "log"),
    "run_standalone_train_cpu.sh": (TRAIN_CPU, "train.py", "log"),
    "run_standalone_eval_ascend.sh": (["cifar10", "3", *EVAL_CPU[1:]], "linear_eval.py", "eval_log"),
    "run_standalone_eval_cpu.sh": (EVAL_CPU, "linear_eval.py", "eval_log"),
}


@pytest.fixture
def place(tmp_path):
    """A caller's folder with a space in its name, with data, a model and the stand-in."""
    folder = tmp_path / "caller's place"
    (folder / "data set").mkdir(parents=True)
    (folder / "model.ckpt").touch()
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(STAND_IN)
    python.chmod(0o755)
    return folder


def launch(place, name, *arguments, **env):
    env = {**os.environ, "PATH": f"{place.parent}/bin:{os.environ['PATH']}", "RECORD": str(place / "record"), **env}
    return subprocess.run([SHELL, str(ROOT / "scripts" / name), *arguments], cwd=place, env=env, capture_output=True,
                          text=True, timeout=60)


def recorded(place):
    deadline = time.monotonic() + 20
    while not (place / "record").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return (place / "record").read_text().splitlines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_in_the_foreground_signals_arrive(place, number):
    """Those to the launcher's process alone, as a scheduler or a container sends them."""
    (place.parent / "bin" / "python").write_text(
        '#!/bin/sh\ntrap "echo heard; exit 7" INT TERM HUP\necho begun\nfor _ in 1 2 3 4 5 6; do sleep 1; done\n')
    env = {**os.environ, "PATH": f"{place.parent}/bin:{os.environ['PATH']}", "FOREGROUND": "1"}
    launcher = [SHELL, str(ROOT / "scripts" / "run_standalone_train_cpu.sh"), *TRAIN_CPU]
    with subprocess.Popen(launcher, cwd=place, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == f"log: {place}/log\n" and process.stdout.readline() == "begun\n"
        process.send_signal(number)
        assert process.communicate(timeout=20)[0] == "heard\n"
    assert process.returncode == 7 and (place / "log").read_text() == "begun\nheard\n"


def test_what_a_terminal_would_obey_is_not_printed(place):
    folder = place / "a\x1b[2J\nb"
    (folder / "data set").mkdir(parents=True)
    (folder.parent / "bin").symlink_to(place.parent / "bin")  # where `launch` looks for the stand-in
    result = launch(folder, "run_standalone_train_cpu.sh", *TRAIN_CPU, FOREGROUND="1")
    assert result.stdout == f"log: {place}/a?[2J?b/log\nfrom the stand-in\n"


@pytest.mark.parametrize("name", LAUNCHERS)
def test_arguments_arrive_in_the_background(place, name):
    arguments, script, log = LAUNCHERS[name]
    result = launch(place, name, *arguments, "--encoder", "resnet18", GLIBC_TUNABLES="")
    assert result.returncode == 0, result.stderr
    called = recorded(place)
    assert called[0] == str(ROOT / script)
    flags = dict(zip(called[1:-1:2], called[2:-1:2]))
    on_cpu = name.endswith("cpu.sh")
    assert flags["--device_target"] == ("CPU" if on_cpu else "Ascend")
    assert flags["--device_id"] == ("0" if on_cpu else "3")
    assert flags["--dataset_name"] == "cifar10"
    assert flags["--train_dataset_path"] == str(place / "data set")
    assert flags["--encoder"] == "resnet18"
    if script == "linear_eval.py":
        assert flags["--encoder_checkpoint_path"] == str(place / "model.ckpt")
        assert flags["--eval_dataset_path"] == str(place / "data set")
    assert called[-1] == "tunables=" + ("glibc.malloc.hugetlb=1" if on_cpu else "")
    assert f"log: {place / log}\nprocess id: " in result.stdout
    deadline = time.monotonic() + 20
    while (place / log).read_text() != "from the stand-in\n":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_logs_of_earlier_runs_are_kept(place):
    for number in "12":
        (place / "log").write_text(f"earlier {number}")
        launch(place, "run_standalone_train_cpu.sh", *TRAIN_CPU, FOREGROUND="1")
        assert (place / "log").read_text() == "from the stand-in\n"
    assert [(place / f"log.{number}").read_text() for number in "12"] == ["earlier 1", "earlier 2"]


def test_a_start_in_the_background_that_fails_is_told(place):
    result = launch(place, "run_standalone_train_cpu.sh", *TRAIN_CPU, STATUS="7")
    assert (result.returncode, result.stderr) == (7, "from the stand-in\n")


def test_a_start_in_the_background_is_waited_for_until_the_run_has_begun(place):
    (place.parent / "bin" / "python").write_text(
        "#!/bin/sh\nsleep 0.5\necho 'MindSpore 2.10.0, on CPU; run folder outputs'\n"
        'sleep 30 & echo $! >"$RECORD"\nwait\n')
    begin = time.monotonic()
    result = launch(place, "run_standalone_train_cpu.sh", *TRAIN_CPU)
    assert (result.returncode, result.stderr) == (0, "") and 0.5 < time.monotonic() - begin < 20
    os.kill(int(recorded(place)[0]), signal.SIGTERM)


def test_the_users_own_tunables_win(place):
    launch(place, "run_standalone_train_cpu.sh", *TRAIN_CPU, GLIBC_TUNABLES="glibc.malloc.check=0")
    assert recorded(place)[-1] == "tunables=glibc.malloc.check=0"


@pytest.mark.parametrize("name", ["run_standalone_train_cpu.sh", "run_standalone_eval_ascend.sh"])
def test_in_the_foreground_the_status_is_passed_on(place, name):
    arguments, _, log = LAUNCHERS[name]
    result = launch(place, name, *arguments, FOREGROUND="1", STATUS="7")
    assert result.returncode == 7
    assert "from the stand-in" in result.stdout
    assert (place / log).read_text() == "from the stand-in\n"


@pytest.mark.parametrize("name", LAUNCHERS)
def test_wrong_arguments_show_the_usage(place, name):
    arguments, _, _ = LAUNCHERS[name]
    for wrong in (arguments[:-1], [*arguments, "surplus"]):
        result = launch(place, name, *wrong)
        assert result.returncode == 2
        assert result.stderr.startswith(f"Usage: sh {name} [cifar10]")
    assert sorted(path.name for path in place.iterdir()) == ["data set", "model.ckpt"]


def test_a_folder_that_does_not_exist_is_named(place):
    result = launch(place, "run_standalone_eval_cpu.sh", "cifar10", "model.ckpt", "data set", "nowhere")
    refused(result, "^run_standalone_eval_cpu.sh: EVAL_DATASET_PATH: nowhere")
    assert not (place / "record").exists()


def test_a_log_that_cannot_be_written_is_named(place):
    (place / "log").symlink_to("nowhere/log")
    refused(launch(place, "run_standalone_train_cpu.sh", *TRAIN_CPU), f"log: cannot write {place}/log")


def test_the_data_sets_are_those_of_the_project():
    from src.dataset import DATA_SETS
    result = subprocess.run([SHELL, "-c", '. "$0"; echo "$DATA_SETS"', str(ROOT / "scripts" / "lib" / "common.sh")],
                            capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == list(DATA_SETS)


@pytest.mark.parametrize("torch_is_missing", [0, 1])
def test_the_tests_end_with_what_they_left_out(place, torch_is_missing):
    copy = place.parent / "a copy"
    shutil.copytree(ROOT / "scripts", copy / "scripts")
    (copy / "requirements-dev.txt").touch()
    python = copy / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\n[ "$1" != -c ] || exit {torch_is_missing}\necho "$@"\nexit 7\n')
    python.chmod(0o755)
    (copy / ".venv" / ".installed-requirements-dev.txt").write_text("4294967295 0\n")  # the checksum of nothing
    result = subprocess.run([SHELL, str(copy / "scripts" / "test.sh"), "-k", "a b"], cwd=place, capture_output=True,
                            text=True, timeout=60)
    assert (result.returncode, result.stderr) == (7, "")
    assert result.stdout == "-m pytest -n 2 --dist loadfile -k a b\n" + torch_is_missing * (
        "The comparisons with PyTorch were left out; to have them: `.venv/bin/python -m pip install -r "
        "benchmarks/requirements.txt`, then the same command again\n")

"""Fixtures that several test files use. MindSpore is prepared as the scripts do it, before any test imports it."""
import fcntl
import os
import shutil
import signal

import pytest

from src.device import environment  # noqa: E402

environment.prepare("CPU", 0, seed=0)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup has the tests' processes ignore

import helpers  # noqa: E402

from src.data.cifar import write_file  # noqa: E402


@pytest.fixture
def cifar10_dir():
    """The folder of real CIFAR-10."""
    if not os.environ.get("CIFAR10_DIR"):
        pytest.skip("CIFAR10_DIR is not set: no real CIFAR-10 here")
    return os.environ["CIFAR10_DIR"]


@pytest.fixture
def random_images():
    """Return a function that makes N random images."""
    return helpers.random_images


@pytest.fixture
def cifar_folder(tmp_path):
    """A folder in the official archive's layout: 5 x 20 training images, 30 test images."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for index in range(1, 6):
        write_file(folder / f"data_batch_{index}.bin", helpers.random_images(20, index))
    write_file(folder / "test_batch.bin", helpers.random_images(30, 6))
    return folder


@pytest.fixture
def run(tmp_path):
    """``start_script`` from an empty folder."""
    def call(script, *arguments, cwd=tmp_path, **options):
        return helpers.start_script(script, *arguments, cwd=cwd, **options)
    return call


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder with a small CIFAR-10 in ``data`` and a finished run in ``run``, linear evaluation included.

    It is made once, in processes of their own, whose output is in train.out and eval.out; nothing may change it.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "finished"
    with open(f"{folder}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _finish(folder.with_name("unfinished"))
            folder.with_name("unfinished").rename(folder)
    before = helpers.state_of(folder)
    yield folder
    assert helpers.state_of(folder) == before, "a test has changed the run that all of them share"


def _finish(folder):
    helpers.write_cifar(folder / "data")
    results = {
        "train.out": helpers.start_script(
            "train.py", *helpers.SMALL, "--epoch_size", helpers.EPOCHS, "--train_dataset_path", "data",
            "--train_output_path", "run", cwd=folder),
        "eval.out": helpers.start_script(
            "linear_eval.py", "--encoder_checkpoint_path", "run/checkpoint/latest", "--train_dataset_path", "data",
            "--batch_size", 16, "--epoch_size", helpers.CLASSIFIER_EPOCHS, "--save_checkpoint_epochs", 5,
            "--print_iter", 3, "--train_output_path", "run", cwd=folder)}
    for name, result in results.items():
        assert result.returncode == 0, result.stdout + result.stderr
        assert result.stderr == "", "MindSpore's own noise reaches the user"
        (folder / name).write_text(result.stdout)


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of ``finished`` that may be changed."""
    shutil.copytree(finished, tmp_path / "copied", symlinks=True)
    return tmp_path / "copied"


@pytest.fixture
def trace(monkeypatch):
    """What is done to files, from now on."""
    return helpers.Trace(monkeypatch)

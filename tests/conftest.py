"""Fixtures that several test files use. MindSpore is prepared as the scripts do it, before any test imports it."""
import os

import pytest

from src.distributed import environment  # noqa: E402

environment.prepare("CPU", 0, seed=0)

import helpers  # noqa: E402

from src.data.cifar import write_file  # noqa: E402
from src.dataset import DATA_SETS  # noqa: E402


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
def large_images(monkeypatch):
    """Make cifar10 a data set of 64 pixels, with the ImageNet stem."""
    monkeypatch.setitem(DATA_SETS, "cifar10", DATA_SETS["cifar10"]._replace(side=64))


@pytest.fixture
def run(tmp_path):
    """``start_script`` from an empty folder."""
    def call(script, *arguments, cwd=tmp_path, **options):
        return helpers.start_script(script, *arguments, cwd=cwd, **options)
    return call

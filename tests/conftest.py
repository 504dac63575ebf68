"""What the tests share. MindSpore is prepared as the scripts do it, before any test imports it."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from src.distributed import environment  # noqa: E402

environment.prepare("CPU", 0, seed=0)

import numpy as np  # noqa: E402

from src.data.cifar import Images, write_file  # noqa: E402
from src.dataset import DATA_SETS  # noqa: E402

# Fast files first: pytest otherwise goes by name, and the scripts' tests take most of the time.
SLOW = ("test_augmentation", "test_resnet", "test_launchers", "test_distributed_launchers", "test_converting",
        "test_torch_augmentation", "test_torch_reference", "test_scripts", "test_data_scripts", "test_quickstart",
        "test_mixed_precision", "test_fine_tuning", "test_distributed")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: SLOW.index(item.module.__name__) if item.module.__name__ in SLOW else -1)


@pytest.fixture
def cifar10_dir():
    """The folder of real CIFAR-10."""
    if not os.environ.get("CIFAR10_DIR"):
        pytest.skip("CIFAR10_DIR is not set: no real CIFAR-10 here")
    return os.environ["CIFAR10_DIR"]


@pytest.fixture
def random_images():
    """Return a function that makes N random images."""
    def make(count, seed=0):
        rng = np.random.default_rng(seed)
        return Images(rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
                      (np.arange(count) % 10).astype(np.int32))
    return make


@pytest.fixture
def cifar_folder(tmp_path, random_images):
    """A folder in the official archive's layout: 5 x 20 training images, 30 test images."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for index in range(1, 6):
        write_file(folder / f"data_batch_{index}.bin", random_images(20, index))
    write_file(folder / "test_batch.bin", random_images(30, 6))
    return folder


@pytest.fixture
def large_images(monkeypatch):
    """Make cifar10 a data set of 64 pixels, with the ImageNet stem."""
    monkeypatch.setitem(DATA_SETS, "cifar10", DATA_SETS["cifar10"]._replace(side=64))


def run_script(script, *arguments, cwd, timeout=300, env=None):
    """Run a script of the project as a user does, from ``cwd``."""
    return subprocess.run([sys.executable, str(ROOT / script), *map(str, arguments)], cwd=cwd, capture_output=True,
                          text=True, timeout=timeout, env={**os.environ, **(env or {})})


@pytest.fixture
def run(tmp_path):
    """``run_script`` from an empty folder."""
    def call(script, *arguments, cwd=tmp_path, **options):
        return run_script(script, *arguments, cwd=cwd, **options)
    return call

"""What the tests of bad input begin with."""
import contextlib

import pytest
from helpers import call_script, done


@pytest.fixture(scope="session", autouse=True)
def imported():
    """Whatever a script imports late, so that the time is that of its own work."""
    import bokeh.plotting  # noqa: F401
    import onnxruntime  # noqa: F401
    import safetensors.numpy  # noqa: F401
    import sklearn.manifold  # noqa: F401
    with contextlib.suppress(ImportError):
        import torch  # noqa: F401


@pytest.fixture(scope="session")
def models(finished, tmp_path_factory):
    """A folder with classifier.onnx and classifier.mindir."""
    folder = tmp_path_factory.mktemp("models")
    for file_format in ("ONNX", "MINDIR"):
        done(call_script("export.py", "--ckpt_simclr_encoder", "run/checkpoint/latest", "--ckpt_linear_classifier",
                         "run/linear_classifier/latest", "--file_format", file_format, "--file_name",
                         folder / "classifier", cwd=finished))
    return folder

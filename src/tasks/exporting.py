"""Writing a model for deployment, and checking that the file gives what the live model gives."""
import importlib.util
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Tuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.common.errors import UserError
from src.common.files import writing, written_whole
from src.common.logs import logger
from src.distributed.dry_run import is_dry_run
from src.evaluation import classifier
from src.resnet import build_encoder
from src.run import checkpoint
from src.settings.given import Given
from src.settings.network import Network
from src.simclr_model import ImageClassifier
from src.tasks import encoders

SUFFIXES = {"MINDIR": ".mindir", "AIR": ".air", "ONNX": ".onnx"}
TOLERANCE = 1e-3  # relative to the largest output
LARGEST = 2**30  # bytes of parameters in one MINDIR file


def check_format(file_format: str, device_target: str) -> None:
    """Raise UserError where the format cannot be written here."""
    if file_format == "AIR" and device_target != "Ascend":
        raise UserError(f"--file_format: got AIR on {device_target}, and MindSpore writes AIR on Ascend only; "
                        "take MINDIR or ONNX here")


def load_model(given: Given) -> Tuple[nn.Cell, Network]:
    """Return the model to export, an encoder or an encoder with its classifier, in inference mode, and its network.

    Raises:
        UserError: the checkpoints do not fit each other or the flags.
    """
    source = encoders.load(given["ckpt_simclr_encoder"], "ckpt_simclr_encoder")
    given.adopt({**source.network.settings, "dataset_name": source.info["settings"]["dataset_name"]},
                str(source.path))
    encoder = build_encoder(source.network)
    encoders.load_weights(encoder, source)
    model = encoder
    if given["ckpt_linear_classifier"]:
        found = classifier.load(given["ckpt_linear_classifier"], "ckpt_linear_classifier", source,
                                checkpoint.digest(source.path))
        model = nn.SequentialCell(ImageClassifier(encoder, classifier.build(found)), nn.Softmax())
    return model.set_train(False), source.network


def target_of(file_name: str, file_format: str, model: nn.Cell) -> Path:
    """Return the file to write: ``file_name`` with the format's suffix.

    Raises:
        UserError: that is a folder, or the model is too large for one file.
    """
    suffix = SUFFIXES[file_format]
    name = file_name[:-len(suffix)] if file_name.endswith(suffix) else file_name
    if name.endswith("/") or not name or Path(name).is_dir():
        raise UserError(f"--file_name: got {file_name!r}, a folder, takes the name of a file, such as "
                        f"{name.rstrip('/') or '.'}/simclr")
    size = sum(parameter.nbytes for parameter in model.get_parameters())
    if size > LARGEST:
        raise UserError(f"--file_format: the model has {size / 2**30:.1f} GB of parameters, and above 1 GB MindSpore "
                        "does not write one file; export a smaller encoder")
    return Path(name + suffix)


def random_images(count: int, side: int) -> np.ndarray:
    """Return images to trace and to check the model with, uint8 (count, 3, side, side)."""
    return np.random.default_rng(0).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


@contextmanager
def written(model: nn.Cell, images: np.ndarray, file_format: str) -> Iterator[Path]:
    """Write the model to a temporary file, which is there until the end of the block."""
    # MindSpore refuses paths with spaces and most other characters, so it writes to a plain one.
    with tempfile.TemporaryDirectory(prefix="simclr-export-") as folder:
        path = Path(folder) / f"model{SUFFIXES[file_format]}"
        _write(path, model, images, file_format)
        yield path


def put(file: Path, target: Path) -> None:
    """Copy a written file to its place, whole or not at all.

    Raises:
        UserError: that cannot be written.
    """
    with writing("file_name", target, "a place that can be written"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(target) as place:
            shutil.copyfile(file, place)


def _write(path: Path, model: nn.Cell, images: np.ndarray, file_format: str) -> None:
    if file_format == "ONNX" and hasattr(ms, "onnx"):  # 2.7 has no such module, and 2.10 warns of the other way
        ms.onnx.export(model, Tensor(images), file_name=str(path), input_names=["images"], output_names=["output"])
    else:
        ms.export(model, Tensor(images), file_name=str(path), file_format=file_format)


def run_file(path: Path, images: np.ndarray, file_format: str) -> np.ndarray:
    """Run an exported MINDIR or ONNX file on ``images`` and return its output."""
    if file_format == "MINDIR":
        return nn.GraphCell(ms.load(str(path)))(Tensor(images)).asnumpy()
    import onnxruntime  # an extra: only those who export ONNX need it
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def compare(file: Path, model: nn.Cell, images: np.ndarray, file_format: str) -> None:
    """Compare what an exported file gives with what the live model gives, where the file can be run here.

    Raises:
        RuntimeError: they differ.
    """
    if is_dry_run():
        logger.warning("warning: the %s file was not checked against the live model (a dry run computes nothing)",
                       file_format)
        return
    if file_format == "AIR" or (file_format == "ONNX" and importlib.util.find_spec("onnxruntime") is None):
        needed = "an offline model converted from it" if file_format == "AIR" else "pip install onnxruntime"
        logger.warning("warning: the %s file was not checked against the live model (it takes %s)", file_format, needed)
        return
    live = model(Tensor(images)).asnumpy()
    difference = float(np.abs(run_file(file, images, file_format) - live).max())
    logger.info("largest difference to the live model on random images: %.3g", difference)
    if not difference <= TOLERANCE * np.abs(live).max():
        raise RuntimeError(f"the exported {file_format} file does not give the live model's outputs: "
                           f"they differ by up to {difference:.3g}")

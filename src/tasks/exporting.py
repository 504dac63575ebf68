"""Writing a model for deployment, and checking that the file gives what the live model gives."""
import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Tuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.common.errors import UserError
from src.common.files import written_whole
from src.common.logs import logger
from src.dataset import side_of
from src.evaluation.classifier import build_classifier, load_classifier
from src.run import checkpoint
from src.settings.encoder_flags import ExportConfig
from src.settings.parsing import adopt
from src.simclr_model import ImageClassifier, encoder_of, stem_of

SUFFIXES = {"MINDIR": ".mindir", "AIR": ".air", "ONNX": ".onnx"}
TOLERANCE = 1e-3  # relative to the largest output
LARGEST = 2**30  # bytes of parameters in one MINDIR file


def export(config: ExportConfig, device_target: str) -> Path:
    """Write encoder, or encoder and classifier, to a file, check it and return its path.

    Raises:
        UserError: the checkpoints do not fit each other or the flags, or the format cannot be written here.
        RuntimeError: the written file does not give the live model's outputs; it is removed again.
    """
    if config.file_format == "AIR" and device_target != "Ascend":
        raise UserError(f"--file_format: got AIR on {device_target}, and MindSpore writes AIR on Ascend only; "
                        "take MINDIR or ONNX here")
    model, side = load_model(config)
    model.set_train(False)
    target = _target(config, model)
    images = np.random.default_rng(0).integers(0, 256, (config.batch_size, 3, side, side), dtype=np.uint8)
    # MindSpore refuses paths with spaces and most other characters, so it writes to a plain one.
    with tempfile.TemporaryDirectory(prefix="simclr-export-") as temporary:
        written = Path(temporary) / f"model{target.suffix}"
        _write(written, model, images, config.file_format)
        _check(written, model, images, config.file_format)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(target) as place:
                shutil.copyfile(written, place)
        except OSError as error:
            raise UserError(f"--file_name: cannot write {target} ({error.strerror}); name a place that can "
                            "be written") from None
    outputs = "class probabilities" if config.ckpt_linear_classifier else "features"
    logger.info("%s: uint8 images %s -> %s", target, images.shape, outputs)
    return target


def _target(config: ExportConfig, model: nn.Cell) -> Path:
    """Return the file to write: ``file_name`` with the format's suffix."""
    suffix = SUFFIXES[config.file_format]
    name = config.file_name[:-len(suffix)] if config.file_name.endswith(suffix) else config.file_name
    if name.endswith("/") or not name or Path(name).is_dir():
        raise UserError(f"--file_name: got {config.file_name!r}, a folder, takes the name of a file, such as "
                        f"{name.rstrip('/') or '.'}/simclr")
    size = sum(parameter.nbytes for parameter in model.get_parameters())
    if size > LARGEST:
        raise UserError(f"--file_format: the model has {size / 2**30:.1f} GB of parameters, and above 1 GB MindSpore "
                        "does not write one file; export a smaller encoder")
    return Path(name + suffix)


def load_model(config: ExportConfig) -> Tuple[nn.Cell, int]:
    """Return the network to export and the side of its images."""
    source = checkpoint.load(config.ckpt_simclr_encoder, "simclr", "ckpt_simclr_encoder")
    settings = source.info["settings"]
    side = side_of(settings)
    adopt(config, {**settings, "image_size": side, "stem": stem_of(settings)},
          ("encoder", "width_multiplier", "stem", "dataset_name", "image_size"), str(source.path))
    encoder = encoder_of(settings)
    checkpoint.load_into(encoder.get_parameters(), checkpoint.part(source.parameters, "encoder."), str(source.path))
    if not config.ckpt_linear_classifier:
        return encoder, side
    digest = checkpoint.digest(source.path)
    found = load_classifier(config.ckpt_linear_classifier, "ckpt_linear_classifier", source, digest)
    return nn.SequentialCell(ImageClassifier(encoder, build_classifier(found)), nn.Softmax()), side


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


def _check(written: Path, model: nn.Cell, images: np.ndarray, file_format: str) -> None:
    if file_format == "AIR" or (file_format == "ONNX" and importlib.util.find_spec("onnxruntime") is None):
        needed = "an offline model converted from it" if file_format == "AIR" else "pip install onnxruntime"
        logger.warning("warning: the %s file was not checked against the live model (it takes %s)", file_format, needed)
        return
    live = model(Tensor(images)).asnumpy()
    difference = float(np.abs(run_file(written, images, file_format) - live).max())
    logger.info("largest difference to the live model on random images: %.3g", difference)
    if not difference <= TOLERANCE * np.abs(live).max():
        raise RuntimeError(f"the exported {file_format} file does not give the live model's outputs: "
                           f"they differ by up to {difference:.3g}")

"""Writing a model for deployment, and checking that the file gives the same outputs as the live model."""
import importlib.util
import os
import shutil
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Iterator, List, Tuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.common.errors import UserError
from src.common.files import temporary_folder, writing, written_whole
from src.common.logs import logger
from src.deploy import predicting, signature
from src.deploy.deployed import Deployed, deployed
from src.deploy.signature import Signature
from src.device.dry_run import is_dry_run
from src.settings.given import Given
from src.weights import encoders

SUFFIXES = {"MINDIR": ".mindir", "AIR": ".air", "ONNX": ".onnx"}
TOLERANCE = 1e-3  # relative to the largest output
LARGEST = 2**30  # bytes of parameters that MindSpore writes into one file


def check_format(file_format: str, device_target: str) -> None:
    """Raise UserError if the format cannot be written on this machine."""
    if file_format == "AIR" and device_target != "Ascend":
        raise UserError(f"--file_format: got AIR on {device_target}, but MindSpore writes AIR on Ascend only; "
                        "take MINDIR or ONNX here")
    if file_format == "ONNX" and importlib.util.find_spec("onnx") is None:
        raise UserError("--file_format: got ONNX, which needs the package onnx; pip install onnx onnxruntime")


def load_model(given: Given) -> Tuple[Deployed, Signature]:
    """Return the encoder, or the encoder with its classifier, in inference mode, and its signature."""
    source = encoders.load(given["ckpt_simclr_encoder"], "ckpt_simclr_encoder")
    given.adopt({**source.network.settings, "dataset_name": source.info["settings"]["dataset_name"]}, str(source.path))
    return deployed(source, given["ckpt_linear_classifier"], "ckpt_linear_classifier", given["input"],
                    given["batch_size"])


def target_of(file_name: str, file_format: str, model: nn.Cell, overwrite: bool) -> Path:
    """Return the file to write: ``file_name`` with the suffix of the format.

    Raises a UserError where it is a folder, or a file that export.py did not write, or where the model is too large.
    """
    suffix = SUFFIXES[file_format]
    name = file_name[:-len(suffix)] if file_name.endswith(suffix) else file_name
    if os.path.basename(name) in ("", ".", "..") or os.path.isdir(name):
        raise UserError(f"--file_name: got {file_name!r}, which is a folder; name a file, such as "
                        f"{name.rstrip('/') or '.'}/simclr")
    target = Path(name + suffix)
    size = sum(parameter.nbytes for parameter in model.get_parameters())
    if size > LARGEST:
        raise UserError(f"--file_format: the model has {size / 2**30:.1f} GB of parameters, and MindSpore splits files "
                        "of more than 1 GB; export a smaller encoder")
    taken = next((file for file in _files(target, file_format) if os.path.lexists(file)), None)
    if taken and not overwrite and not _is_ours(target, file_format):
        raise UserError(f"--file_name: {taken} exists and was not written by export.py; name another file, or add "
                        "--overwrite True")
    return target


def _files(model: Path, file_format: str) -> List[Path]:
    """Return all files of an exported model."""
    return [model] if file_format == "ONNX" else [model, signature.beside(model)]


def _is_ours(target: Path, file_format: str) -> bool:
    try:
        if file_format != "ONNX":
            return target.is_file() and bool(signature.read_beside(target, ""))
        import onnx
        metadata = onnx.load(str(target), load_external_data=False).metadata_props if target.is_file() else ()
        return any(entry.key == signature.KEY for entry in metadata)
    except Exception:  # the file of another program may be anything
        return False


def _random_images(about: Signature) -> np.ndarray:
    shape = about.batch_size, 3, about.side, about.side
    return about.prepared(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@contextmanager
def written(model: Deployed, about: Signature, file_format: str) -> Iterator[Path]:
    """Write the model with its signature to a temporary folder, which exists until the end of the block."""
    # MindSpore refuses paths with spaces and most special characters; this one has none.
    with temporary_folder("simclr-export-") as folder:
        path = folder / f"model{SUFFIXES[file_format]}"
        images = Tensor(_random_images(about))
        if file_format == "ONNX":
            _write_onnx(path, model, images, about)
        else:
            ms.export(model, images, file_name=str(path), file_format=file_format)
            signature.write_beside(path, about)
        yield path


def _write_onnx(path: Path, model: Deployed, images: Tensor, about: Signature) -> None:
    import onnx  # not among the required packages
    if hasattr(ms, "onnx"):  # MindSpore 2.7 has no such module, and 2.10 warns about the other way
        outputs = ["features"] if about.classes is None else ["probabilities", "features"]
        ms.onnx.export(model, images, file_name=str(path), input_names=["images"], output_names=outputs)
    else:
        ms.export(model, images, file_name=str(path), file_format="ONNX")
    file = onnx.load(str(path))
    onnx.helper.set_model_props(file, {signature.KEY: about.text()})
    onnx.save(file, str(path))


def put(file: Path, target: Path, file_format: str) -> None:
    """Copy a written file, with the signature beside it, to its place, whole or not at all."""
    with writing("file_name", target, "a place that can be written"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as places:  # all files are copied before the first gets its name
            for source, place in zip(_files(file, file_format), _files(target, file_format)):
                shutil.copyfile(source, places.enter_context(written_whole(place)))


def compare(file: Path, model: Deployed, about: Signature, file_format: str) -> None:
    """Compare the outputs of an exported file with the live model's, if the file can be run here.

    Raises a RuntimeError where they differ: that is a defect, not a mistake of the user.
    """
    reason = ("a dry run computes nothing" if is_dry_run() else
              "only an offline model made of it can run" if file_format == "AIR" else
              "onnxruntime is not installed; pip install onnxruntime"
              if file_format == "ONNX" and importlib.util.find_spec("onnxruntime") is None else None)
    if reason:
        logger.warning("warning: the %s file was not checked against the live model (%s); compare a few images before "
                       "you rely on it", file_format, reason)
        return
    images = _random_images(about)
    live = predicting.outputs_of(model, images)
    exported = predicting.open_model(str(file), None).run(images)
    shapes = [[output.shape for output in outputs] for outputs in (exported, live)]
    if shapes[0] != shapes[1]:
        raise RuntimeError(f"the exported {file_format} file has outputs {shapes[0]}, the live model {shapes[1]}")
    differences = [float(np.abs(ours - theirs).max()) for ours, theirs in zip(exported, live)]
    logger.info("largest difference to the live model on random images: %.3g", max(differences))
    if not all(difference <= TOLERANCE * np.abs(output).max() for difference, output in zip(differences, live)):
        raise RuntimeError(f"the exported {file_format} file differs from the live model by up to {max(differences)}")

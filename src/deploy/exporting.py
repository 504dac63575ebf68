"""Writing a model for deployment, and checking that the file gives what the live model gives."""
import importlib.util
import os
import shutil
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Iterator, Tuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.common.errors import UserError
from src.common.files import reading, temporary_folder, writing, written_whole
from src.common.logs import logger
from src.deploy import predicting, signature
from src.deploy.deployed import Deployed, deployed
from src.deploy.signature import Signature
from src.device.dry_run import is_dry_run
from src.settings.given import Given
from src.weights import encoders

SUFFIXES = {"MINDIR": ".mindir", "AIR": ".air", "ONNX": ".onnx"}
TOLERANCE = 1e-3  # relative to the largest output
LARGEST = 2**30  # bytes of parameters in one MINDIR file


def check_format(file_format: str, device_target: str) -> None:
    """Raise UserError where the format cannot be written here."""
    if file_format == "AIR" and device_target != "Ascend":
        raise UserError(f"--file_format: got AIR on {device_target}, and MindSpore writes AIR on Ascend only; "
                        "take MINDIR or ONNX here")
    if file_format == "ONNX" and importlib.util.find_spec("onnx") is None:
        raise UserError("--file_format: got ONNX, which takes the package onnx; pip install onnx onnxruntime")


def load_model(given: Given) -> Tuple[Deployed, Signature]:
    """Return the model to export, an encoder or an encoder with its classifier, in inference mode, and its signature.

    Raises:
        UserError: the checkpoints do not fit each other or the flags.
    """
    source = encoders.load(given["ckpt_simclr_encoder"], "ckpt_simclr_encoder")
    given.adopt({**source.network.settings, "dataset_name": source.info["settings"]["dataset_name"]}, str(source.path))
    return deployed(source, given["ckpt_linear_classifier"], "ckpt_linear_classifier", given["input"],
                    given["batch_size"])


def target_of(file_name: str, file_format: str, model: nn.Cell, overwrite: bool) -> Path:
    """Return the file to write: ``file_name`` with the format's suffix.

    Raises:
        UserError: that is a folder, or a file that export.py has not written; the model is too large for one file.
    """
    suffix = SUFFIXES[file_format]
    name = file_name[:-len(suffix)] if file_name.endswith(suffix) else file_name
    with reading(f"--file_name: {file_name}", "name a file in a folder that is there"):
        is_folder = Path(name).is_dir() or Path(name + suffix).is_dir()
    if name.endswith("/") or not name or is_folder:
        raise UserError(f"--file_name: got {file_name!r}, a folder, takes the name of a file, such as "
                        f"{name.rstrip('/') or '.'}/simclr")
    target = Path(name + suffix)
    place = next(folder for folder in target.parents if folder.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise UserError(f"--file_name: cannot write to {target} ({place} is no folder that can be written); name a "
                        "place that can be written")
    size = sum(parameter.nbytes for parameter in model.get_parameters())
    if size > LARGEST:
        raise UserError(f"--file_format: the model has {size / 2**30:.1f} GB of parameters, and above 1 GB MindSpore "
                        "does not write one file; export a smaller encoder")
    there = next((file for file in (target, *_companions(target, file_format)) if os.path.lexists(file)), None)
    if there and not overwrite and not _is_ours(target, file_format):
        raise UserError(f"--file_name: {there} is there, and is no file of this version's export.py; name another, or "
                        "add --overwrite True to replace it")
    return target


def _companions(target: Path, file_format: str) -> Tuple[Path, ...]:
    return () if file_format == "ONNX" else (signature.beside(target),)


def _is_ours(target: Path, file_format: str) -> bool:
    try:
        if not target.is_file():
            return False
        if file_format != "ONNX":
            signature.read_beside(target)
            return True
        import onnx
        metadata = onnx.load(str(target), load_external_data=False).metadata_props
        return any(Signature.of(entry.value, str(target)) for entry in metadata if entry.key == signature.KEY)
    except Exception:  # whatever is wrong with it, it is none of ours
        return False


def random_images(about: Signature) -> np.ndarray:
    """Return images to trace and to check the model with, (batch_size, 3, side, side), as it takes them."""
    shape = about.batch_size, 3, about.side, about.side
    return about.taken(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@contextmanager
def written(model: Deployed, about: Signature, file_format: str) -> Iterator[Path]:
    """Write the model with its signature to a temporary folder, which is there until the end of the block."""
    # MindSpore refuses paths with spaces and most other characters, so it writes to a plain one.
    with temporary_folder("simclr-export-") as folder:
        path = folder / f"model{SUFFIXES[file_format]}"
        images = Tensor(random_images(about))
        if file_format == "ONNX":
            _write_onnx(path, model, images, about)
        else:
            ms.export(model, images, file_name=str(path), file_format=file_format)
            signature.write_beside(path, about)
        yield path


def _write_onnx(path: Path, model: Deployed, images: Tensor, about: Signature) -> None:
    import onnx  # an extra: only those who export ONNX need it
    if hasattr(ms, "onnx"):  # 2.7 has no such module, and 2.10 warns of the other way
        outputs = ["features"] if about.classes is None else ["probabilities", "features"]
        ms.onnx.export(model, images, file_name=str(path), input_names=["images"], output_names=outputs)
    else:
        ms.export(model, images, file_name=str(path), file_format="ONNX")
    file = onnx.load(str(path))
    onnx.helper.set_model_props(file, {signature.KEY: about.text()})
    onnx.save(file, str(path))


def put(file: Path, target: Path, file_format: str) -> None:
    """Copy a written file, and what lies beside it, to their places, whole or not at all.

    Raises:
        UserError: that cannot be written.
    """
    with writing("file_name", target, "a place that can be written"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as places:  # all get their names at the end, one after the other
            for source, place in zip((file, *_companions(file, file_format)),
                                     (target, *_companions(target, file_format))):
                shutil.copyfile(source, places.enter_context(written_whole(place)))


def compare(file: Path, model: Deployed, about: Signature, file_format: str) -> None:
    """Compare what an exported file gives with what the live model gives, where the file can be run here.

    Raises:
        RuntimeError: they differ.
    """
    if is_dry_run():
        logger.warning("warning: the %s file was not checked against the live model (a dry run computes nothing); "
                       "export it once more on a device", file_format)
        return
    if file_format == "AIR":
        logger.warning("warning: the AIR file was not checked against the live model (it takes an offline model "
                       "converted from it); compare a few images before you rely on it")
        return
    if file_format == "ONNX" and importlib.util.find_spec("onnxruntime") is None:
        logger.warning("warning: the ONNX file was not checked against the live model; pip install onnxruntime, and "
                       "export it once more")
        return
    images = random_images(about)
    live = predicting.outputs_of(model, images)
    found = predicting.open_model(str(file), None).run(images)
    if [output.shape for output in found] != [output.shape for output in live]:
        raise RuntimeError(f"the exported {file_format} file does not give the live model's outputs, but "
                           f"{[output.shape for output in found]}")
    differences = [float(np.abs(of_file - of_model).max()) for of_file, of_model in zip(found, live)]
    logger.info("largest difference to the live model on random images: %.3g", max(differences))
    if not all(difference <= TOLERANCE * np.abs(output).max() for difference, output in zip(differences, live)):
        raise RuntimeError(f"the exported {file_format} file does not give the live model's outputs: "
                           f"they differ by up to {max(differences):.3g}")

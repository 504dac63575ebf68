"""Opening a model of any form, and giving it images. An ONNX file is used without MindSpore, whose import is slow."""
import errno
import os
import shutil
import warnings
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from src.common.errors import UserError, option
from src.common.files import reading, reason_of, temporary_folder
from src.common.logs import logger
from src.data.any_image import read_image
from src.data.image_listing import SUFFIXES, images_below
from src.data.images import channels_first
from src.deploy import signature
from src.deploy.signature import UINT8, Signature
from src.run.layout import FineTuned, Layout

BATCH = 64   # images in a call of a checkpoint's network
AHEAD = 128  # images that are read before the model needs them
ONNX, MINDIR = ".onnx", ".mindir"


class Model(NamedTuple):
    """``run`` turns a batch of images, as ``signature`` describes it, into (features,) or (probabilities, features)."""

    signature: Signature
    run: Callable[[np.ndarray], Tuple[np.ndarray, ...]]


class ImageFile(NamedTuple):
    """The file of an image, and its class by the name of a folder, or ""."""

    file: Path
    label: str = ""


class Answer(NamedTuple):
    """The outputs of a model for an image."""

    image: ImageFile
    pixels: np.ndarray                   # that the model has seen, uint8 (side, side, 3)
    features: np.ndarray                 # (features,)
    probabilities: Optional[np.ndarray]  # (classes,); None from an encoder without a classifier


def open_model(model: str, classifier: Optional[str]) -> Model:
    """Open an ONNX or MINDIR file of export.py, the checkpoint of an encoder, or the folder of a run.

    ``classifier`` is the checkpoint of an encoder's classifier, by default the one in the same run, if there is one.
    Raises a UserError where the file does not exist, is damaged or is not a model.
    """
    path = Path(model)
    open_file = {ONNX: _open_onnx, MINDIR: _open_mindir}.get(path.suffix)
    with reading(f"MODEL: {model}"):
        is_usable = path.is_file() if open_file else path.exists()
    if not is_usable:
        raise UserError(f"MODEL: no file {model}; name an ONNX or MINDIR file of export.py, a checkpoint, or a run")
    if open_file is None:
        return _open_checkpoint(path, classifier)
    if classifier:
        raise UserError(f"--classifier: got {classifier}, but {model} has no room for another; leave the flag out")
    return open_file(path)


def _open_onnx(path: Path) -> Model:
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"MODEL: {path} needs the package onnxruntime; pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen kinds of errors without a common class
        raise UserError(f"MODEL: {path} is not an ONNX file that onnxruntime can run ({reason_of(error)}); "
                        f"{signature.AGAIN}") from None
    text = session.get_modelmeta().custom_metadata_map.get(signature.KEY)
    if text is None:
        raise UserError(f"MODEL: {path} has no signature, so export.py has not written it; {signature.AGAIN}")
    name = session.get_inputs()[0].name
    return Model(Signature.of(text, f"MODEL: {path}"), lambda batch: tuple(session.run(None, {name: batch})))


def _open_mindir(path: Path) -> Model:
    about = signature.read_beside(path, f"MODEL: {path}")
    import mindspore as ms
    try:
        with temporary_folder("simclr-predict-") as folder:
            # MindSpore refuses paths with spaces and most special characters; this one has none.
            cell = ms.nn.GraphCell(ms.load(shutil.copyfile(path, f"{folder}/model{MINDIR}")))
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise  # the temporary folder is full, and the model may be good
        raise UserError(f"MODEL: {path} is not a MINDIR file that MindSpore can run ({reason_of(error)}); "
                        f"{signature.AGAIN}") from None
    return Model(about, lambda batch: outputs_of(cell, batch))


def _open_checkpoint(path: Path, classifier: Optional[str]) -> Model:
    from src.deploy.deployed import deployed
    from src.weights import encoders
    source, own = encoders.load(str(path), "MODEL"), _classifier_beside(path)
    try:
        cell, about = deployed(source, classifier or own, "classifier", UINT8, BATCH)
    except UserError as error:
        if classifier or not own:
            raise
        logger.warning("warning: the classifier in the same run is left out: %s", error)
        cell, about = deployed(source, None, "classifier", UINT8, BATCH)
    return Model(about, lambda batch: outputs_of(cell, batch))


def _classifier_beside(path: Path) -> Optional[str]:
    """Return the classifier of linear_eval.py or finetune.py that lies in the same run as the checkpoint ``path``."""
    folder = path if path.is_dir() else path.parent
    places = (Layout(folder).classifiers.folder, Layout(folder.parent).classifiers.folder, FineTuned(folder).classifier)
    return next((str(place) for place in places if place.exists()), None)


def outputs_of(cell: Any, images: np.ndarray) -> Tuple[np.ndarray, ...]:
    """Return the one or several outputs of a network of MindSpore for a batch of images, as arrays."""
    from mindspore import Tensor
    outputs = cell(Tensor(images))
    return tuple(output.asnumpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,)))


def find_images(arguments: Sequence[str], flag: str = "IMAGE") -> List[ImageFile]:
    """Return the images that a user names: files, and all images in folders.

    Raises a UserError, which names the ``flag`` that gave the ``arguments``, where one does not exist or cannot be
    read, or where a folder has no images.
    """
    images: List[ImageFile] = []
    for argument in arguments:
        path, source = Path(argument), f"{option(flag)}: {argument}"
        with reading(source):
            exists, is_folder = path.exists(), path.is_dir()
        if not exists:
            raise UserError(f"{source} does not exist; name an image, or a folder with images in it")
        files = images_below(path) if is_folder else [path]
        if not files:
            raise UserError(f"{source} has no {', '.join(SUFFIXES)} files; name a folder with images in it")
        # Folders in the named folder are classes, as in a data set.
        images += [ImageFile(file, *file.relative_to(path).parts[:-1][:1]) for file in files]
    return images


def answers(model: Model, images: Sequence[ImageFile], on_error: Callable[[UserError], None]) -> Iterator[Answer]:
    """Yield the answers of ``model`` for ``images``, in order; ``on_error`` is called for those that cannot be read."""
    warnings.filterwarnings("ignore", module="PIL")  # about sizes and EXIF data, which read_image checks itself
    about = model.signature
    batch: List[Tuple[ImageFile, np.ndarray]] = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        def read(image: ImageFile) -> "Future[np.ndarray]":
            return pool.submit(read_image, image.file, about.shorter_edge, about.side)

        # All cores read the next images while the model computes.
        reads = deque(map(read, images[:AHEAD]))
        for number, image in enumerate(images, 1):
            reads.extend(map(read, images[number + AHEAD - 1:number + AHEAD]))
            try:
                batch.append((image, reads.popleft().result()))
            except UserError as error:
                on_error(error)
            if len(batch) == about.batch_size or batch and number == len(images):
                yield from _answers_for_batch(model, batch)
                batch = []


def _answers_for_batch(model: Model, batch: List[Tuple[ImageFile, np.ndarray]]) -> Iterator[Answer]:
    about = model.signature
    pixels = np.zeros((about.batch_size, 3, about.side, about.side), np.uint8)  # the last batch may be shorter
    pixels[:len(batch)] = channels_first(np.stack([image_pixels for _, image_pixels in batch]))
    *probabilities, features = model.run(about.prepared(pixels))
    for row, (image, image_pixels) in enumerate(batch):
        yield Answer(image, image_pixels, features[row], probabilities[0][row] if probabilities else None)

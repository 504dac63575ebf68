"""Opening a model of any form, and giving it images; for an ONNX file without MindSpore, which takes long to import."""
import errno
import os
import shutil
import warnings
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Deque, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from src.common.errors import UserError
from src.common.files import reading, reason_of, temporary_folder
from src.common.logs import logger
from src.data.any_image import SUFFIXES, images_below, read_image
from src.data.images import channels_first
from src.deploy import signature
from src.deploy.signature import UINT8, Signature
from src.run.layout import FineTuned, Layout

BATCH = 64   # images in a call of a checkpoint's network
AHEAD = 128  # images that are read before their turn comes
ONNX, MINDIR = ".onnx", ".mindir"


class Model(NamedTuple):
    """What answers. ``run`` turns a batch of images, as ``signature`` says, into (features,) or (probabilities,
    features), a row for each."""

    signature: Signature
    run: Callable[[np.ndarray], Tuple[np.ndarray, ...]]


class Found(NamedTuple):
    """The file of an image, and the class that its folder stands for where there is one."""

    file: Path
    label: str = ""


class Answer(NamedTuple):
    """What a model gives for an image, which it has seen as ``pixels``, uint8 (side, side, 3).

    ``features`` (features,); ``probabilities`` (classes,), or None from an encoder alone.
    """

    found: Found
    pixels: np.ndarray
    features: np.ndarray
    probabilities: Optional[np.ndarray]


def needs_mindspore(model: str) -> bool:
    return not model.endswith(ONNX)


def open_model(model: str, classifier: Optional[str]) -> Model:
    """Open an exported model, or a checkpoint with its classifier where there is one.

    Args:
        model: an ONNX or MINDIR file of export.py, or the checkpoint of an encoder, or a run's folder.
        classifier: its checkpoint; by default the one that lies in the same run.

    Raises:
        UserError: there is no such file, or it is damaged or something else.
    """
    path = Path(model)
    with reading(f"MODEL: {model}"):
        is_there = path.exists()
    if not is_there:
        raise UserError(f"MODEL: {model} is not there; name an ONNX or MINDIR file of export.py, a checkpoint, or the "
                        "folder of a run")
    exported = {ONNX: _onnx, MINDIR: _mindir}.get(path.suffix)
    if exported is None:
        return _of_checkpoint(path, classifier)
    if not path.is_file():
        raise UserError(f"MODEL: {model} is no file; name an ONNX or MINDIR file of export.py")
    if classifier:
        raise UserError(f"--classifier: got {classifier} for {model}, which has its own or none; leave it out")
    return exported(path)


def _onnx(path: Path) -> Model:
    session = _session(path)
    about = _signature_in(session, path)
    (images,) = session.get_inputs()
    if images.shape != [about.batch_size, 3, about.side, about.side]:
        raise UserError(f"MODEL: {path} takes images {images.shape}, and says otherwise; "
                        f"{signature.AGAIN}")
    return Model(about, lambda batch: tuple(session.run(None, {images.name: batch})))


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"MODEL: {path} needs the package onnxruntime, which is not installed here; pip install "
                        "onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has a dozen kinds, which share no class
        raise UserError(f"MODEL: {path} is no ONNX file that onnxruntime can run ({reason_of(error)}); "
                        f"{signature.AGAIN}") from None


def _signature_in(session: Any, path: Path) -> Signature:
    told = session.get_modelmeta().custom_metadata_map.get(signature.KEY)
    if told is None or len(session.get_inputs()) != 1:
        raise UserError(f"MODEL: {path} does not say how it takes images: something else has written it, or an earlier "
                        f"version; {signature.AGAIN}")
    return Signature.of(told, f"MODEL: {path}")


def _mindir(path: Path) -> Model:
    about = signature.read_beside(path)
    import mindspore as ms
    try:
        with temporary_folder("simclr-predict-") as folder:
            # MindSpore refuses paths with spaces and most other characters, so it reads from a plain one.
            cell = ms.nn.GraphCell(ms.load(shutil.copyfile(path, f"{folder}/model{MINDIR}")))
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise  # it is the temporary folder that is full
        raise UserError(f"MODEL: {path} is no MINDIR file that MindSpore can run ({reason_of(error)}); "
                        f"{signature.AGAIN}") from None
    return Model(about, lambda batch: outputs_of(cell, batch))


def _of_checkpoint(path: Path, classifier: Optional[str]) -> Model:
    from src.deploy.deployed import deployed
    from src.weights import encoders
    source, found = encoders.load(str(path), "MODEL"), classifier or _classifier_beside(path)
    try:
        cell, about = deployed(source, found, "classifier", UINT8, BATCH)
    except UserError as error:
        if classifier or not found:
            raise
        logger.warning("warning: the classifier in the same run is left out: %s", error)
        cell, about = deployed(source, None, "classifier", UINT8, BATCH)
    return Model(about, lambda batch: outputs_of(cell, batch))


def _classifier_beside(path: Path) -> Optional[str]:
    """Return the classifier that lies where linear_eval.py or finetune.py puts the one of the checkpoint ``path``."""
    folder = path if path.is_dir() else path.parent
    places = (Layout(folder).classifiers.folder, Layout(folder.parent).classifiers.folder, FineTuned(folder).classifier)
    return next((str(place) for place in places if place.exists()), None)


def outputs_of(cell: Any, images: np.ndarray) -> Tuple[np.ndarray, ...]:
    """Return what a network of MindSpore gives for a batch of images, one output or several, as arrays."""
    from mindspore import Tensor
    outputs = cell(Tensor(images))
    return tuple(output.asnumpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,)))


def images_of(arguments: Sequence[str], source: str = "IMAGE") -> List[Found]:
    """Return the images that are named: files as they are, and those of folders, by name.

    Args:
        arguments: files and folders.
        source: what gave them, for error messages.

    Raises:
        UserError: one is not there or cannot be read, or a folder has none.
    """
    found: List[Found] = []
    for argument in arguments:
        path = Path(argument)
        with reading(f"{source}: {argument}"):
            is_folder, is_there = path.is_dir(), path.exists()
        if not is_there:
            raise UserError(f"{source}: {argument} is not there; name an image, or a folder with images in it")
        if not is_folder:
            found.append(Found(path))
            continue
        images = images_below(path)
        if not images:
            raise UserError(f"{source}: {argument} has no {', '.join(SUFFIXES)} files; name a folder that has some")
        found += [Found(file, *file.relative_to(path).parts[:-1][:1]) for file in images]
    return found


def answers(model: Model, images: Iterable[Found], fails: Callable[[UserError], None]) -> Iterator[Answer]:
    """Yield what ``model`` gives for ``images``, in order; those that cannot be read are left out and told ``fails``.

    Raises:
        UserError: the model does not give what its signature says.
    """
    about = model.signature
    batch: List[Tuple[Found, np.ndarray]] = []
    for found, future in _read_ahead(images, about):
        try:
            batch.append((found, future.result()))
        except UserError as error:
            fails(error)
        if len(batch) == about.batch_size:
            yield from _answered(model, batch)
            batch = []
    if batch:
        yield from _answered(model, batch)


def _read_ahead(images: Iterable[Found], about: Signature) -> "Iterator[Tuple[Found, Future[np.ndarray]]]":
    """Yield images in order while all cores read those that come next."""
    warnings.filterwarnings("ignore", module="PIL")  # of sizes and EXIF data, with which read_image deals itself
    rest = iter(images)
    waiting: Deque[Tuple[Found, Future[np.ndarray]]] = deque()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        def begin(count: int) -> None:
            for found in islice(rest, count):
                waiting.append((found, pool.submit(read_image, found.file, about.shorter_edge, about.side)))

        begin(AHEAD)
        while waiting:
            yield waiting.popleft()
            begin(1)


def _answered(model: Model, batch: List[Tuple[Found, np.ndarray]]) -> Iterator[Answer]:
    about = model.signature
    images = np.zeros((about.batch_size, 3, about.side, about.side), np.uint8)
    images[:len(batch)] = channels_first(np.stack([image for _, image in batch]))
    *first, features = model.run(about.taken(images))
    expected = (about.batch_size, about.features)
    if features.shape != expected or len(first) != (about.classes is not None) or any(
            output.ndim != 2 or output.shape[1] < len(about.classes) for output in first):
        raise UserError(f"MODEL: gives other outputs than it says of itself ({expected} features); {signature.AGAIN}")
    for row, (found, image) in enumerate(batch):
        yield Answer(found, image, features[row], first[0][row] if first else None)

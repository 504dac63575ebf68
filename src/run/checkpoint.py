"""Checkpoints: MindSpore files that also say what they are, written whole and loaded strictly."""
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple

import mindspore as ms
from mindspore import Parameter

from src.common.errors import UserError
from src.common.files import written_whole
from src.distributed.collectives import share
from src.distributed.process_group import Process

FOLDER = "checkpoint"  # of a run, in its folder
LATEST = "latest"
_INFO = "simclr_info"  # the entry of a checkpoint that holds the JSON text of its info
_SHOWN_DIFFERENCES = 3


class Checkpoint(NamedTuple):
    """What a file holds: parameters by name, and its info (kind, epoch, settings, versions)."""

    path: Path
    parameters: Dict[str, Parameter]
    info: Dict[str, Any]


def save(path: Path, parameters: Iterable[Parameter], info: Dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all."""
    entries = [{"name": parameter.name, "data": parameter} for parameter in parameters]
    with written_whole(path, suffix=".ckpt") as temporary:  # MindSpore insists on the suffix
        ms.save_checkpoint(entries, str(temporary), append_dict={_INFO: json.dumps(info)})
        temporary.chmod(0o644)  # MindSpore's own files are for their owner alone


def save_epoch(folder: Path, prefix: str, epoch: int, parameters: Iterable[Parameter], info: Dict[str, Any],
               keep: int) -> Path:
    """Write ``<prefix>-<epoch>.ckpt``, point ``latest`` at it and keep the newest ``keep``.

    The one of epoch 0, the untrained network, is never removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{prefix}-{epoch}.ckpt"
    save(path, parameters, {**info, "epoch": epoch})
    link = folder / f".{LATEST}.{os.getpid()}"
    if link.is_symlink():
        link.unlink()
    link.symlink_to(path.name)
    os.replace(link, folder / LATEST)
    for old in of_epochs(folder, prefix)[:-keep]:
        old.unlink()
    return path


def remove_epochs(folder: Path, prefix: str) -> None:
    """Remove the checkpoints of an earlier run, ``latest`` first."""
    (folder / LATEST).unlink(missing_ok=True)
    for file in of_epochs(folder, prefix):
        file.unlink()


def clear_leftovers(folder: Path) -> None:
    """Remove the unfinished files of a process that was killed while it saved."""
    for file in folder.glob(".*.ckpt"):
        file.unlink()


def of_epochs(folder: Path, prefix: str) -> List[Path]:
    """Return the checkpoints of ``prefix`` in ``folder`` from epoch 1 on, by epoch (9 before 10)."""
    matches = [(re.fullmatch(re.escape(prefix) + r"-([1-9]\d*)\.ckpt", file.name), file) for file in folder.glob("*")]
    return [file for _, file in sorted((int(match[1]), file) for match, file in matches if match)]


def load(path: str, kind: str, flag: str) -> Checkpoint:
    """Read a checkpoint of this project.

    Args:
        path: the file, a link to it (``latest``), or a folder that holds ``latest``.
        kind: what it must be, "simclr" or "linear_classifier".
        flag: the flag that gave ``path``, for error messages.

    Raises:
        UserError: there is no such file, or it is of another kind.
    """
    file = Path(path)
    if file.is_dir():
        file = next((folder / LATEST for folder in (file, file / FOLDER) if (folder / LATEST).exists()), file)
    file = file.resolve()
    if not file.is_file():
        raise UserError(f"--{flag}: no checkpoint at {path}; give a .ckpt file or a run's checkpoint folder")
    try:
        parameters = ms.load_checkpoint(str(file))
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"--{flag}: {path} is not a checkpoint that MindSpore can read ({reason})") from None
    text = parameters.pop(_INFO, None)
    if text is None:
        raise UserError(f"--{flag}: {path} was not written by this project (no {_INFO} in it); take a checkpoint "
                        "of train.py, linear_eval.py, finetune.py or convert.py")
    info = json.loads(str(text))
    if info["kind"] != kind:
        raise UserError(f"--{flag}: {path} holds a {info['kind']}, takes a {kind} checkpoint")
    return Checkpoint(file, parameters, info)


def shared(found: Optional[Checkpoint], process: Process) -> Optional[Checkpoint]:
    """Tell every rank of the checkpoint that rank 0 has read; the others get it without its parameters."""
    told = share(found and {"path": str(found.path), "info": found.info}, process)
    if process.is_first or told is None:
        return found
    return Checkpoint(Path(told["path"]), {}, told["info"])


def check_fit(wanted: Dict[str, Tuple[Tuple[int, ...], str]], there: Dict[str, Tuple[Tuple[int, ...], str]],
              source: str) -> None:
    """Compare names, shapes and types of a network's parameters with those that ``source`` has.

    Raises:
        UserError: there are differences; the message lists the first ones.
    """
    differences = [f"{name} is missing" for name in wanted if name not in there]
    differences += [f"{name} is unknown" for name in there if name not in wanted]
    differences += [f"{name} is {there[name]} instead of {wanted[name]}" for name in wanted
                    if name in there and there[name] != wanted[name]]
    if differences:
        more = len(differences) - _SHOWN_DIFFERENCES
        shown = "; ".join(differences[:_SHOWN_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
        raise UserError(f"{source} does not fit the network: {shown}")


def load_into(targets: Iterable[Parameter], parameters: Dict[str, Parameter], source: str) -> None:
    """Copy ``parameters`` into ``targets``, all of them and nothing else.

    MindSpore's own loader leaves what does not match as it is, and can even take a parameter with the
    same suffix, so names, shapes and types are compared first and the values are set by name.

    Raises:
        UserError: there are differences; the message lists the first ones.
    """
    targets = list(targets)
    check_fit({target.name: (tuple(target.shape), str(target.dtype)) for target in targets},
              {name: (tuple(value.shape), str(value.dtype)) for name, value in parameters.items()}, source)
    for target in targets:
        target.set_data(parameters[target.name])


def after(epoch: Optional[int]) -> str:
    """Say how long weights were trained, which those of PyTorch may not tell."""
    return "after an unknown number of epochs" if epoch is None else f"after epoch {epoch}"


def digest(path: Path) -> str:
    """Return the SHA-256 of a checkpoint file: what was made from it can say so."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def part(parameters: Dict[str, Parameter], prefix: str) -> Dict[str, Parameter]:
    """Return the parameters whose names begin with ``prefix``, under their names without it."""
    return {name[len(prefix):]: Parameter(parameter, name=name[len(prefix):])
            for name, parameter in parameters.items() if name.startswith(prefix)}

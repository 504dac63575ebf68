"""Checkpoints: MindSpore files that also say what they are, written whole and loaded strictly."""
import dataclasses
import json
import os
from pathlib import Path
from typing import Any, Dict, Iterable, NamedTuple, Optional, Sequence, Tuple

import mindspore as ms
import numpy as np
from mindspore import Parameter

from src.common.errors import DamagedError, UserError, option
from src.common.files import link_whole, make_folder, reading, reason_of, written_whole
from src.common.logs import logger
from src.device.dry_run import is_dry_run
from src.distributed.collectives import share
from src.distributed.process_group import Process
from src.run import checksum
from src.run import info as infos
from src.run.layout import CLASSIFIERS, PRETRAINED, Series, series_at
from src.settings.network import Network

ENCODER, CLASSIFIER = infos.ENCODER, infos.CLASSIFIER  # what a checkpoint holds
_SERIES = {ENCODER: PRETRAINED, CLASSIFIER: CLASSIFIERS}
_INFO = "simclr_info"  # the entry of a checkpoint that holds the JSON text of its info
_SHOWN_DIFFERENCES = 3


class Checkpoint(NamedTuple):
    """What a file holds: parameters by name, and its info, as src/run/info.py has it."""

    path: Path
    parameters: Dict[str, Parameter]
    info: Dict[str, Any]

    @property
    def network(self) -> Network:
        """The network of an encoder's checkpoint."""
        return Network.of(self.info["network"])


def save(path: Path, parameters: Iterable[Parameter], info: Dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all; ``info`` needs what it ``holds``, and a network where that is one."""
    entries = [{"name": parameter.name, "data": parameter} for parameter in parameters]
    told = {**info, "mindspore": ms.__version__, **({"dry_run": True} if is_dry_run() else {})}
    with written_whole(path, suffix=".ckpt") as temporary:  # MindSpore insists on the suffix
        try:
            ms.save_checkpoint(entries, str(temporary), crc_check=True,
                               append_dict={_INFO: json.dumps(told, default=dataclasses.asdict)})
        finally:
            temporary.with_suffix(".tmp").unlink(missing_ok=True)  # which it writes first, and leaves after an error
        temporary.chmod(0o644)  # MindSpore's own files are for their owner alone


def save_epoch(series: Series, epoch: int, parameters: Iterable[Parameter], info: Dict[str, Any], keep: int,
               earlier: Sequence[Path] = ()) -> None:
    """Write an epoch's checkpoint, point `latest` at it and keep the newest ``keep``.

    The one of epoch 0, the untrained network, is never removed; ``earlier`` are files of another training, which this
    one takes the place of.
    """
    make_folder(series.folder)  # but not the run's, which somebody may have taken away
    path = series.of_epoch(epoch)
    save(path, parameters, {**info, "epoch": epoch})
    link_whole(series.latest, path.name)
    replaced = [file for file in earlier if file != path and file.exists()]
    own = [file for file in series.files() if file not in replaced]
    for old in (*replaced, *own[:-keep]):
        old.unlink()


def go_back_to(found: Checkpoint, series: Series, keep: int) -> None:
    """Bring the series to where it was after ``found``: no later ones, `latest` at it, and the newest ``keep``."""
    later = [file for file in series.files() if series.epoch_of(file) > found.info["epoch"]]
    for file in later:
        file.unlink()
    if later:
        logger.warning("warning: removed, for the run goes on before them: %s", ", ".join(file.name for file in later))
    if Path(os.path.realpath(series.latest)) != found.path:
        link_whole(series.latest, found.path.name)
    for old in series.files()[:-keep]:
        old.unlink()


def load(path: str, holds: str, flag: str) -> Checkpoint:
    """Read a checkpoint of this project; the info of one of earlier versions is brought up to date.

    Args:
        path: the file, or the newest whole one of a run: its folder, that of its checkpoints, or `latest` in there.
        holds: what it must hold, ``ENCODER`` or ``CLASSIFIER``.
        flag: the flag that gave ``path``, for error messages.

    Raises:
        UserError: there is no such file, it holds something else, or what no network of use can have.
    """
    with reading(f"{option(flag)}: {path}"):
        series = series_at(Path(path), _SERIES[holds])
    return series and newest_whole(series, holds, flag) or _load_file(path, holds, flag)


def _load_file(path: str, holds: str, flag: str) -> Checkpoint:
    source = f"{option(flag)}: {path}"
    with reading(source):
        file = Path(os.path.realpath(path))
        if not file.is_file():
            raise UserError(f"{option(flag)}: no checkpoint at {path}; give a .ckpt file or a run's checkpoint folder")
        has_sum = checksum.check(file, source)  # before MindSpore, which damaged files may crash
    try:
        parameters = ms.load_checkpoint(str(file))
    except Exception as error:  # of damaged files it raises all kinds
        raise DamagedError(f"{source} is not a checkpoint that MindSpore can read ({reason_of(error)}); {checksum.TAKE}"
                           ) from None
    text = parameters.pop(_INFO, None)
    if not isinstance(text, str):
        raise DamagedError(f"{source} was not written by this project (no {_INFO} in it); take a checkpoint of "
                           "train.py, linear_eval.py, finetune.py or convert.py")
    with infos.believed(source):
        info = infos.read(text)
    if info.get("dry_run") and not is_dry_run():
        raise UserError(f"{source} was written in a dry run, which computes nothing; take one of a real run")
    if info["holds"] != holds:
        raise UserError(f"{source} holds a {info['holds']}, takes a {holds} checkpoint")
    check_values(parameters.values(), source)
    if not has_sum:
        logger.warning("warning: %s: %s has no checksum, as those of earlier versions, so damage would not be noticed; "
                       "the checkpoints that are made from it have one", option(flag), path)
    return Checkpoint(file, parameters, info)


def newest_whole(series: Series, holds: str, flag: str) -> Optional[Checkpoint]:
    """Return the checkpoint that `latest` points at or, where that is not whole, the newest one that is; a warning
    tells of it. None where the series has no files at all.

    Where `latest` is no link, as in a copy that has followed it, it is older than what it stands beside.

    Raises:
        UserError: none of them is whole, or one cannot be read, which says nothing about what is in it.
    """
    linked = Path(os.path.realpath(series.latest))
    if series.files() and not series.latest.is_symlink():
        linked = Path()
    others = [file for file in (series.of_epoch(0), *series.files()) if file.is_file() and file.resolve() != linked]
    candidates = [linked] * linked.is_file() + others[::-1]
    problem = "" if linked.is_file() else f"{series.latest} points at no checkpoint"
    for file in candidates:
        try:
            found = _load_file(str(file), holds, flag)
        except DamagedError as error:
            problem = problem or str(error)
            continue
        if problem:
            logger.warning("warning: %s; taken is the newest whole checkpoint, %s", problem, file)
        return found
    if not candidates:
        return None
    raise UserError(f"{option(flag)}: none of the {len(candidates)} checkpoints in {series.folder} is whole "
                    f"({problem}); take those of another run")


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


def check_values(parameters: Iterable[Parameter], source: str) -> None:
    """Raise DamagedError where a network of such ``parameters``, read from ``source``, would compute no numbers."""
    for parameter in parameters:
        values = parameter.asnumpy() if parameter.dtype in (ms.float16, ms.float32, ms.float64) else np.empty(0)
        problem = ("has values that are no finite numbers" if not np.isfinite(values).all() else
                   "has negative values" if parameter.name.endswith("moving_variance") and (values < 0).any() else "")
        if problem:
            raise DamagedError(f"{source} is of no use: its {parameter.name} {problem}; take an earlier checkpoint, or "
                               "train again with a lower learning rate")


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


def part(parameters: Dict[str, Parameter], prefix: str) -> Dict[str, Parameter]:
    """Return the parameters whose names begin with ``prefix``, under their names without it."""
    return {name[len(prefix):]: Parameter(parameter, name=name[len(prefix):])
            for name, parameter in parameters.items() if name.startswith(prefix)}

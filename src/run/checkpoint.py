"""Checkpoints: MindSpore files that say what they hold, are written whole and are loaded strictly."""
import dataclasses
import json
import os
import zlib
from pathlib import Path
from typing import Any, Dict, Iterable, NamedTuple, Optional, Sequence, Tuple

import mindspore as ms
import numpy as np
from mindspore import Parameter

from src.common.errors import DamagedError, UserError, option
from src.common.files import BLOCK, link_whole, make_folder, reading, reason_of, written_whole
from src.common.logs import logger
from src.device.dry_run import is_dry_run
from src.run import info as infos
from src.run.layout import CLASSIFIERS, PRETRAINED, Series, series_at
from src.settings.network import Network

ENCODER, CLASSIFIER = infos.ENCODER, infos.CLASSIFIER  # what a checkpoint holds
_SERIES = {ENCODER: PRETRAINED, CLASSIFIER: CLASSIFIERS}
_INFO = "simclr_info"  # the entry of a checkpoint with the JSON text of its info
_SUM, _SUM_BYTES = b"crc_num", 10  # MindSpore ends a file with this and, in so many bytes, the CRC-32 of all before it
_SHOWN_DIFFERENCES = 3
_TAKE = "take a checkpoint of train.py, linear_eval.py, finetune.py or convert.py"


class Checkpoint(NamedTuple):
    """The contents of a file: parameters by name, and the info that src/run/info.py describes."""

    path: Path
    parameters: Dict[str, Parameter]
    info: Dict[str, Any]

    @property
    def network(self) -> Network:
        """The network of an encoder's checkpoint."""
        return Network.of(self.info["network"])


def save(path: Path, parameters: Iterable[Parameter], info: Dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all; ``info`` is as in src/run/info.py, without the version."""
    entries = [{"name": parameter.name, "data": parameter} for parameter in parameters]
    complete = {**info, "mindspore": ms.__version__, **({"dry_run": True} if is_dry_run() else {})}
    with written_whole(path, suffix=".ckpt") as temporary:  # MindSpore insists on the suffix
        try:
            ms.save_checkpoint(entries, str(temporary), crc_check=True,
                               append_dict={_INFO: json.dumps(complete, default=dataclasses.asdict)})
        finally:
            temporary.with_suffix(".tmp").unlink(missing_ok=True)  # MindSpore writes it first, and leaves it on errors
        temporary.chmod(0o644)  # MindSpore's own files are for their owner alone


def save_epoch(series: Series, epoch: int, parameters: Iterable[Parameter], info: Dict[str, Any], keep: int,
               earlier: Sequence[Path] = ()) -> None:
    """Write an epoch's checkpoint, point `latest` at it, and keep the newest ``keep`` and that of epoch 0.

    ``earlier`` are files of another training, which this one replaces.
    """
    make_folder(series.folder)  # but not the run's folder: somebody may have taken it away
    path = series.of_epoch(epoch)
    save(path, parameters, {**info, "epoch": epoch})
    link_whole(series.latest, path.name)
    # Old files go last: whenever the process is killed, `latest` points at a whole checkpoint. That of epoch 0 is not
    # among the files.
    own = [file for file in series.files() if file == path or file not in earlier]
    for file in series.files():
        if file not in own[-keep:]:
            file.unlink()


def go_back_to(resumed: Checkpoint, series: Series, keep: int) -> None:
    """Bring the series to where it was after ``resumed``: no later ones, `latest` at it, and the newest ``keep``."""
    later = [file for file in series.files() if series.epoch_of(file) > resumed.info["epoch"]]
    for file in later:
        file.unlink()
    if later:
        logger.warning("warning: the run goes on from %s; removed later checkpoints: %s", resumed.path.name,
                       ", ".join(file.name for file in later))
    if Path(os.path.realpath(series.latest)) != resumed.path:
        link_whole(series.latest, resumed.path.name)
    for old in series.files()[:-keep]:
        old.unlink()


def load(path: str, holds: str, flag: str) -> Checkpoint:
    """Read a checkpoint of this project.

    Args:
        path: the file; or, for the newest whole one of a run, the run's folder, its checkpoint folder, or `latest`.
        holds: what it must hold, ``ENCODER`` or ``CLASSIFIER``.
        flag: the flag that gave ``path``, for error messages.

    Raises a UserError where there is no such file, it is damaged, it holds something else, or its values are no finite
    numbers.
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
        _check_sum(file, source)
    try:
        parameters = ms.load_checkpoint(str(file))
    except Exception as error:  # MindSpore raises all kinds for files of others
        raise DamagedError(f"{source} is no checkpoint that MindSpore reads ({reason_of(error)}); {_TAKE}") from None
    text = parameters.pop(_INFO, None)
    if not isinstance(text, str):
        raise DamagedError(f"{source} was not written by this project (it has no {_INFO}); {_TAKE}")
    with infos.believed(source):
        info = json.loads(text)
        infos.check(info)
    if info.get("dry_run") and not is_dry_run():
        raise UserError(f"{source} was written in a dry run, which computes nothing; take one of a real run")
    if info["holds"] != holds:
        raise UserError(f"{source} holds a {info['holds']}, takes a {holds} checkpoint")
    check_values(parameters.values(), source)
    return Checkpoint(file, parameters, info)


def _check_sum(file: Path, source: str) -> None:
    """Compare the checksum at the end of a file with its bytes: MindSpore's parser may crash on damaged ones."""
    with file.open("rb") as stream:
        left = max(0, stream.seek(0, os.SEEK_END) - len(_SUM) - _SUM_BYTES)
        stream.seek(left)
        end, crc = stream.read(), 0
        if not end.startswith(_SUM):
            raise DamagedError(f"{source} is not a checkpoint of this project, or is cut short (it does not end with a "
                               f"checksum); {_TAKE}")
        stream.seek(0)
        while left:
            block = stream.read(min(left, BLOCK))
            crc, left = zlib.crc32(block, crc), left - len(block)
    if crc != int.from_bytes(end[len(_SUM):], "big"):
        raise DamagedError(f"{source} is damaged: its bytes do not have the checksum that was written with them; copy "
                           "it again, or take an earlier one")


def newest_whole(series: Series, holds: str, flag: str) -> Optional[Checkpoint]:
    """Return the checkpoint that `latest` points at or, if that is damaged, the newest whole one, with a warning.

    Returns None where there are no files, and raises UserError where none is whole, or where one cannot be read.
    """
    linked = Path(os.path.realpath(series.latest))
    if series.files() and not series.latest.is_symlink():
        linked = Path()  # a copy that has followed the link: the files beside it may be newer
    others = [file for file in (series.of_epoch(0), *series.files()) if file.is_file() and file.resolve() != linked]
    candidates = [linked] * linked.is_file() + others[::-1]
    problem = "" if linked.is_file() else f"{series.latest} points at no checkpoint"
    for file in candidates:
        try:
            newest = _load_file(str(file), holds, flag)
        except DamagedError as error:
            problem = problem or str(error)
            continue
        if problem:
            logger.warning("warning: %s; the newest whole checkpoint is used, %s", problem, file)
        return newest
    if not candidates:
        return None
    raise UserError(f"{option(flag)}: none of the {len(candidates)} checkpoints in {series.folder} is whole "
                    f"({problem}); take those of another run")


def check_fit(wanted: Dict[str, Tuple[Tuple[int, ...], str]], given: Dict[str, Tuple[Tuple[int, ...], str]],
              source: str) -> None:
    """Raise UserError where names, shapes or types of a network's parameters are not those ``given`` in ``source``."""
    differences = [f"{name} is missing" for name in wanted if name not in given]
    differences += [f"{name} is unknown" for name in given if name not in wanted]
    differences += [f"{name} is {given[name]} instead of {wanted[name]}" for name in wanted
                    if name in given and given[name] != wanted[name]]
    if differences:
        more = len(differences) - _SHOWN_DIFFERENCES
        shown = "; ".join(differences[:_SHOWN_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
        raise UserError(f"{source} does not fit the network: {shown}")


def check_values(parameters: Iterable[Parameter], source: str) -> None:
    """Raise DamagedError where a network with ``parameters``, read from ``source``, would compute no numbers."""
    for parameter in parameters:
        values = parameter.asnumpy() if parameter.dtype in (ms.float16, ms.float32, ms.float64) else np.empty(0)
        problem = ("has values that are no finite numbers" if not np.isfinite(values).all() else
                   "has negative values" if parameter.name.endswith("moving_variance") and (values < 0).any() else "")
        if problem:
            raise DamagedError(f"{source} cannot be used: its {parameter.name} {problem}; take an earlier checkpoint, "
                               "or train again with a lower learning rate")


def load_into(targets: Iterable[Parameter], parameters: Dict[str, Parameter], source: str) -> None:
    """Copy ``parameters`` into ``targets``, all of them and nothing else.

    MindSpore's own loader leaves what does not match as it is, and can even take a parameter with the same suffix. So
    names, shapes and types are compared first, see ``check_fit``, and the values are set by name.
    """
    targets = list(targets)
    check_fit({target.name: (tuple(target.shape), str(target.dtype)) for target in targets},
              {name: (tuple(value.shape), str(value.dtype)) for name, value in parameters.items()}, source)
    for target in targets:
        target.set_data(parameters[target.name])


def after(epoch: Optional[int]) -> str:
    """Say how long weights were trained; None is unknown, as for weights from PyTorch."""
    return "after an unknown number of epochs" if epoch is None else f"after epoch {epoch}"


def part(parameters: Dict[str, Parameter], prefix: str) -> Dict[str, Parameter]:
    """Return the parameters whose names begin with ``prefix``, by their names without it."""
    return {name[len(prefix):]: Parameter(parameter, name=name[len(prefix):])
            for name, parameter in parameters.items() if name.startswith(prefix)}

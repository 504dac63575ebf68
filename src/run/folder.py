"""A run on disk: config.yaml, log, metrics.jsonl and the checkpoint folder."""
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List

import mindspore
import numpy
import yaml

from src.common.errors import UserError
from src.common.files import write_text
from src.common.logs import log_to_file, logger
from src.distributed.process_group import Process
from src.run import checkpoint
from src.settings.flags import Flags, settings_of

CLASSIFIERS = "linear_classifier"  # the folder of linear_eval.py's checkpoints


class RunFolder:
    """The folder of a run, opened for a script. Rank 0 alone writes there; on other ranks it is only a path.

    Args:
        config: the script's resolved settings, written down with the versions and the command line.
        process: where the script runs.
        prefix: of the script's own ``config.yaml`` and ``log``: "" for train.py, "eval_" for
            linear_eval.py, "finetune_" for finetune.py.

    Raises:
        UserError: the folder cannot be made or written.
    """

    def __init__(self, config: Flags, process: Process, prefix: str = ""):
        self.is_ours = process.is_first
        self.path = Path(config.train_output_path)
        self.checkpoints = self.path / checkpoint.FOLDER
        self.classifiers = self.path / CLASSIFIERS
        self.metrics = self.path / "metrics.jsonl"
        if self.is_ours:
            self._open(config, process, prefix)
        chosen = "" if config.device_target else " (the default: Ascend where one is present, else CPU)"
        place = f", rank {process.rank} of {process.world_size}" if process.world_size > 1 else ""
        logger.info("MindSpore %s, Python %s, on %s%s%s; run folder %s", mindspore.__version__,
                    platform.python_version(), process.device_target, chosen, place, self.path)

    def _open(self, config: Flags, process: Process, prefix: str) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.path / f"{prefix}config.yaml", yaml.safe_dump(
                {"settings": settings_of(config), **_circumstances(process)}, sort_keys=False))
            log_to_file(self.path / f"{prefix}log")
        except OSError as error:
            raise UserError(f"--train_output_path: cannot write to {self.path} ({error.strerror}); "
                            "name a folder that can be written") from None

    def add_metrics(self, record: Dict[str, Any]) -> None:
        """Append one JSON object to metrics.jsonl."""
        if not self.is_ours:
            return
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    def keep_metrics(self, wanted: Callable[[Dict[str, Any]], bool]) -> None:
        """Drop the records that are not ``wanted``, and a last line that was cut short."""
        if self.is_ours and self.metrics.exists():
            records = [record for record in read_metrics(self.metrics) if wanted(record)]
            write_text(self.metrics, "".join(json.dumps(record) + "\n" for record in records))


def read_metrics(path: Path) -> List[Dict[str, Any]]:
    """Return the records of a metrics.jsonl, without a line that a killed process left unfinished."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def _circumstances(process: Process) -> Dict[str, Any]:
    root = Path(__file__).resolve().parent.parent
    try:
        git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True,
                             timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        git = "unknown"
    return {
        "device_target": process.device_target,
        "world_size": process.world_size,
        "versions": {"mindspore": mindspore.__version__, "numpy": numpy.__version__,
                     "python": platform.python_version(), "machine": platform.machine()},
        "git_revision": git,
        "command_line": [Path(sys.executable).name, *sys.argv],
    }

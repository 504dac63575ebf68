"""MindSpore's dry run: it compiles for Ascend, with or without one in the machine, and computes nothing.

The variable MS_SIMULATION_LEVEL asks for it (docs/ascend.md). Results of the device are read as zeros: a dry run must
draw no conclusions from them, and its files are marked, so that nobody takes them for results.
"""
import os

from src.common.errors import UserError

VARIABLE = "MS_SIMULATION_LEVEL"
MEANING = "compiled for Ascend, nothing is computed; no figure here means anything"
LEVELS = ("0", "1", "2", "3")  # MindSpore's: 0 compiles, 1 also goes through the kernels and counts memory


def is_dry_run() -> bool:
    """Whether this process computes nothing."""
    return bool(os.environ.get(VARIABLE))


def check(device_target: str) -> None:
    """Raise UserError where the environment asks for a dry run that does not exist."""
    level = os.environ[VARIABLE]
    if level not in LEVELS:
        raise UserError(f"{VARIABLE}: got {level}, takes {', '.join(LEVELS)}; unset it to train for real")
    if device_target != "Ascend":
        raise UserError(f"--device_target: got {device_target}, but {VARIABLE}={level} asks for a dry run, which is "
                        f"for Ascend; take --device_target Ascend, or unset {VARIABLE}")

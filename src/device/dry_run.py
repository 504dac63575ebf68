"""MindSpore's dry run: it compiles for Ascend, with or without one in the machine, and computes nothing.

Whoever sets MS_SIMULATION_LEVEL asks for it (docs/ascend.md). What a device would have computed is read as zeros, so
nothing may be concluded from it, and what is written must not be taken for results.
"""
import os

from src.common.errors import UserError

VARIABLE = "MS_SIMULATION_LEVEL"
MEANING = "compiled for Ascend, nothing is computed; no figure here means anything"
LEVELS = ("0", "1", "2", "3")  # MindSpore's: 0 compiles, 1 also goes through the kernels and counts memory


def is_dry_run() -> bool:
    """Whether nothing is computed here."""
    return bool(os.environ.get(VARIABLE))


def check(device_target: str) -> None:
    """Raise UserError where the environment asks for a dry run that there is not."""
    level = os.environ[VARIABLE]
    if level not in LEVELS:
        raise UserError(f"{VARIABLE}: got {level}, takes {', '.join(LEVELS)}; without it training is for real")
    if device_target != "Ascend":
        raise UserError(f"--device_target: got {device_target}, but {VARIABLE}={level} asks for a dry run, which is "
                        f"for Ascend; take --device_target Ascend, or unset {VARIABLE}")

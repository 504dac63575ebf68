"""What a train step may cost on Ascend: kernels by operator and collectives by purpose, of some configurations.

They stand in budgets.json, which write_budgets.py writes anew. More of anything fails a test, for nobody would notice
it on a machine without an Ascend. Less is a warning: it is what one works for, and a newer MindSpore may give it too;
but until the file is written anew, as much can be lost again.
"""
import json
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple

from ascend import dry_run

Cost = Dict[str, Dict[str, int]]
FILE = Path(__file__).with_name("budgets.json")
DEVICES = 8


class Configuration(NamedTuple):
    """What is compiled: arguments of step.py, and for how many devices."""

    arguments: str
    devices: int = 1


CONFIGURATIONS = {
    "resnet50 Adam O0": Configuration("--encoder resnet50 --optimizer Adam --amp_level O0"),
    "resnet50 LARS O0": Configuration("--encoder resnet50 --optimizer LARS --amp_level O0"),
    "resnet50 Adam O2": Configuration("--encoder resnet50 --optimizer Adam --amp_level O2"),
    "resnet50 Adam O3": Configuration("--encoder resnet50 --optimizer Adam --amp_level O3"),
    "resnet50 Adam O0, 8 devices": Configuration("--encoder resnet50 --optimizer Adam --amp_level O0", DEVICES),
    "resnet18 Adam O0": Configuration("--encoder resnet18 --optimizer Adam --amp_level O0"),
    "resnet18 LARS O0": Configuration("--encoder resnet18 --optimizer LARS --amp_level O0"),
    "resnet18 Adam O2": Configuration("--encoder resnet18 --optimizer Adam --amp_level O2"),
    "resnet18 Adam O3": Configuration("--encoder resnet18 --optimizer Adam --amp_level O3"),
    "resnet18 Adam O2, 8 devices": Configuration("--encoder resnet18 --optimizer Adam --amp_level O2", DEVICES),
}


def compiled(stand_ins: Path, name: str, rank: int = 0) -> dry_run.DryRun:
    """Compile a configuration for one of its devices, in a dry run."""
    return step(stand_ins, *CONFIGURATIONS[name], rank)


def step(stand_ins: Path, arguments: str, devices: int, rank: int = 0) -> dry_run.DryRun:
    """Compile a train step, by the arguments of step.py, for one of several devices."""
    with tempfile.TemporaryDirectory() as folder:
        return dry_run.run(stand_ins, "tests/ascend/step.py", *arguments.split(), cwd=Path(folder), rank=rank,
                           world_size=devices, graph=devices > 1)


def cost(run: dry_run.DryRun) -> Cost:
    """Return what a budget says: kernels, collectives among them, and collectives by purpose, each with its total."""
    counts = {"kernels": run.kernels, "collectives": Counter(found.purpose for found in run.collectives)}
    return {what: {"total": sum(count.values()), **dict(sorted(count.items()))} for what, count in counts.items()}


def read() -> Dict[str, Cost]:
    """Return the budgets by configuration."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def differences(found: Cost, budget: Cost) -> Tuple[List[str], List[str]]:
    """Return, in words, what of a cost is above its budget, and what is below."""
    above, below = [], []
    for what in budget:
        counts, allowed = Counter(found[what]), Counter(budget[what])
        changes = {kind: counts[kind] - allowed[kind] for kind in sorted(counts | allowed)
                   if counts[kind] != allowed[kind]}
        total = changes.pop("total", 0)
        compared = f"{abs(total)} {'more' if total > 0 else 'fewer'} than" if total else "as many as"
        words = [f"{change:+d} {kind} ({counts[kind]} instead of {allowed[kind]})" for kind, change in changes.items()]
        if changes:
            (above if max(changes.values()) > 0 else below).append(
                f"{counts['total']} {what}, {compared} the budget of {allowed['total']}: {', '.join(words)}")
    return above, below


def check(name: str, run: dry_run.DryRun) -> None:
    """Check what was compiled against the budget of the configuration ``name``."""
    above, below = differences(cost(run), read()[name])
    anew = "`python tests/ascend/write_budgets.py` writes the budgets anew"
    assert not above, f"{name}: {'; '.join(above + below)}; if it is worth that, {anew}"
    if below:
        warnings.warn(f"{name}: {'; '.join(below)}; so that it stays, {anew}", stacklevel=2)

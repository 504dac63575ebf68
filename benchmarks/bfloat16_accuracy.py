"""The accuracy of encoders trained in float32 and in bfloat16 by the recipe of the quickstart, with several seeds.

Nothing else differs; the frozen encoders are evaluated in float32. A CPU with AVX-512 but without bfloat16 takes part
too: oneDNN emulates it there, slowly, with the same roundings.
"""
import argparse
import json
import runpy
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List

import common

LEVELS = {"float32": "O0", "bfloat16": "O2"}
RECIPE, EVALUATION = common.ROOT / "configs/quickstart.yaml", common.ROOT / "configs/quickstart_eval.yaml"


def script(options: argparse.Namespace, parent: common.Parent) -> None:
    """The worker: a script of this project on a CPU that is taken to support bfloat16."""
    from src.layers.cpu import library
    load = library.load
    library.load = lambda: load()._replace(has_bfloat16=True)

    def run(name: str, arguments: List[str]) -> Dict[str, Any]:
        sys.argv = [name, *arguments]
        try:
            runpy.run_path(str(common.ROOT / name), run_name="__main__")
        except SystemExit as ended:
            return {"status": ended.code or 0}
        return {"status": 0}

    parent.answer({"emulated": not load().has_bfloat16})
    parent.serve(run)


def run_script(name: str, *arguments: Any) -> Dict[str, Any]:
    """Run a script to its end and return the facts of its worker."""
    worker = common.Worker("script", common.LAUNCHER_ENVIRONMENT)
    status = worker.ask(name=name, arguments=[str(argument) for argument in arguments])["status"]
    worker.close()
    if status:
        sys.exit(f"{name} has ended with status {status}; its messages stand above")
    return worker.facts


def accuracy_of(folder: Path) -> float:
    """Return the linear accuracy that linear_eval.py recorded in ``folder``."""
    records = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return next(record["accuracy"] for record in records if record["kind"] == "linear_eval")


def measure(options: argparse.Namespace) -> None:
    """Train and evaluate with every seed in both types, and save the accuracies."""
    machine, facts = common.machine(), {}
    accuracies: Dict[str, List[float]] = {precision: [] for precision in LEVELS}
    with tempfile.TemporaryDirectory() as temporary:
        data, dataset = (options.data, "cifar10") if options.data else (Path(temporary) / "shapes", "shapes")
        for seed in range(options.seeds):
            for precision, level in LEVELS.items():
                folder = Path(temporary) / f"{precision}-{seed}"
                places = ("--train_dataset_path", data, "--train_output_path", folder, "--report", False)
                facts = run_script("train.py", "--device_target", "CPU", "--config", RECIPE, "--dataset_name", dataset,
                                   "--amp_level", level, "--seed", seed, *places)
                run_script("linear_eval.py", "--device_target", "CPU", "--config", EVALUATION,
                           "--encoder_checkpoint_path", folder, *places)
                accuracies[precision].append(accuracy_of(folder))
    differences = [low - full for low, full in zip(accuracies["bfloat16"], accuracies["float32"])]
    common.save("bfloat16_accuracy", {
        "machine": machine,
        "settings": {"recipe": RECIPE.name, "evaluation": EVALUATION.name, "seeds": options.seeds, "dataset": dataset},
        **facts,
        **{precision: {"mean": statistics.mean(values), "linear_accuracy_by_seed": values}
           for precision, values in accuracies.items()},
        "difference": {"mean": statistics.mean(differences), "lowest": min(differences), "highest": max(differences)},
    })


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    flags.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    flags.add_argument("--data", help="folder of CIFAR-10, in place of the shapes that are drawn")
    common.run(flags, {"script": script}, measure)

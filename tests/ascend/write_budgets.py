"""Write tests/ascend/budgets.json anew: what the train steps cost on Ascend now, by a dry run.

    python tests/ascend/write_budgets.py
"""
import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
from ascend import budgets, stand_ins

from src.common.files import write_text


def main() -> None:
    if stand_ins.why_not():
        sys.exit(stand_ins.why_not())
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as two_at_a_time:
        stand_ins.build(Path(folder))
        runs = dict(zip(budgets.CONFIGURATIONS, two_at_a_time.map(
            lambda name: budgets.compiled(Path(folder), name), budgets.CONFIGURATIONS)))
    for name, run in runs.items():
        if run.status:
            sys.exit(f"{name} does not compile:\n{run.said}")
    found = {name: budgets.cost(run) for name, run in runs.items()}
    for name, cost in found.items():
        print(f"{name}: {cost['kernels']['total']} kernels, {cost['collectives']['total']} of them collectives; "
              f"and {sum(runs[name].views.values())} views, which are not launched")
    write_text(budgets.FILE, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

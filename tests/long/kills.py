"""Kill the scripts hundreds of times, start them again, and compare their ends with those of runs without a kill.

    python tests/long/kills.py calls train            # after every rename, link, sync and removal in the run's folder
    python tests/long/kills.py calls train_two        # the same on rank 0 of two
    python tests/long/kills.py random all --kills 40  # at random moments, by turns

Scripts: train, train_two, linear_eval, finetune. It is started by hand, because it takes hours.
"""
import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
import helpers  # noqa: E402

# Python imports it at its start: it kills the process after the call with the number KILL_AFTER that changes KILL_IN.
TRAP = """
import os, signal
wanted, folder, count = int(os.environ["KILL_AFTER"]), os.environ["KILL_IN"], 0
def watched(call):
    def watching(*arguments, **options):
        global count
        place = arguments[call.__name__ == "symlink"]
        place = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else os.path.abspath(place)
        result = call(*arguments, **options)
        if place.startswith(folder) and os.environ.get("RANK_ID", "0") == "0":
            count += 1
            if count == wanted:
                os.kill(os.getpid(), signal.SIGKILL)
        return result
    return watching
for name in ("rename", "replace", "symlink", "link", "fsync", "unlink", "remove", "rmdir", "mkdir", "truncate"):
    setattr(os, name, watched(getattr(os, name)))
"""
TIMES = ("seconds", "images_per_second")
KEY = ("kind", "protocol", "training", "seed", "epoch")  # of several records with one key, readers take the last


class Script(NamedTuple):
    """How a script is started, for the first time and again."""

    command: Sequence[str]
    again: Sequence[str] = ()
    two: bool = False


def scripts(data: Path, run: Path) -> Dict[str, Script]:
    """Return the scripts, which have their data and, where they need one, a finished run below ``data``."""
    python, place = (sys.executable,), ("--train_dataset_path", str(data / "data"))
    small = [str(flag) for flag in helpers.SMALL]
    train = [*small, "--epoch_size", "2", "--keep_checkpoint_max", "1", "--eval_every", "1"]
    two = ["sh", str(ROOT / "scripts/run_distribution_train_msrun.sh"), "2", "cifar10", str(data / "data"), *train]
    of_run = ("--encoder_checkpoint_path", str(data / "run"), *place)
    return {
        "train": Script([*python, str(ROOT / "train.py"), *train, *place], ["--resume"]),
        "train_two": Script(two, ["--resume"], two=True),
        "linear_eval": Script([*python, str(ROOT / "linear_eval.py"), *of_run, "--batch_size", "16",
                               "--epoch_size", "6", "--save_checkpoint_epochs", "2"]),
        "finetune": Script([*python, str(ROOT / "finetune.py"), *of_run, "--epoch_size", "2", "--batch_size", "10",
                            "--label_fraction", "0.2", "--repeat", "2", "--learning_rate", "0.2"]),
    }


def start(script: Script, run: Path, *more: str, **environment: str) -> subprocess.Popen:
    """Start a script for ``run``, in a process group of its own."""
    run.parent.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen([*script.command, "--train_output_path", str(run), *more], cwd=run.parent,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
                            env={**os.environ, "PYTHON": sys.executable, "DEVICE_TARGET": "CPU",
                                 "MASTER_PORT": str(random.randint(10_000, 60_000)), **environment})


def outcome(run: Path) -> Dict[str, Any]:
    """Return what a reader sees of a run's end, without times: the records that count, and the bytes of weights."""
    written = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    counting = {tuple(record.get(name) for name in KEY): {
        name: value for name, value in record.items() if name not in TIMES} for record in written}
    found: Dict[str, Any] = {"records": counting}
    for file in sorted(run.rglob("*.ckpt")):
        holds = "linear_classifier" if "linear_classifier" in file.name else "simclr"
        found[file.relative_to(run).as_posix()] = {
            name: value.tobytes() for name, value in helpers.values(file, holds).items()}
    found["hidden"] = sorted(path.name for path in run.rglob(".*"))
    return found


def differences(run: Path, reference: Dict[str, Any]) -> List[str]:
    """Return in what a run's end differs."""
    found = outcome(run)
    return [name for name in {**found, **reference} if found.get(name) != reference.get(name)]


def ranks_of(run: Path) -> List[int]:
    """Return the process ids of the ranks of a run: what says train.py and its folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if any(word.endswith(".py") for word in command[:3]) and str(run) in command and "-m" not in command:
            found.append(int(process.name))
    return sorted(found)


def killed_after(script: Script, run: Path, trap: Path, call: int) -> bool:
    """Start a script that is killed after a call; return whether it came so far."""
    process = start(script, run, KILL_AFTER=str(call), KILL_IN=str(run), PYTHONPATH=str(trap))
    text = process.communicate(timeout=600)[0]
    if process.returncode == 0:
        return False
    assert process.returncode in (-signal.SIGKILL, 137), text
    return True


def killed_at_random(script: Script, run: Path, seconds: float) -> str:
    """Start a script, kill it at a random moment of the ``seconds`` that it takes, and say when and what."""
    process = start(script, run)
    moment = random.uniform(0, seconds)
    time.sleep(moment)
    ranks = ranks_of(run) if script.two else [process.pid]
    for rank in ranks[:1] if script.two and random.random() < 0.5 else ranks[-1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(rank, signal.SIGKILL)
    process.communicate(timeout=600)
    return f"{moment:.1f} s"


def judged(script: Script, run: Path, reference: Dict[str, Any], what: str) -> bool:
    """Start a killed script again; say and return whether its end is that of one that was not killed."""
    process = start(script, run, *script.again)
    text = process.communicate(timeout=600)[0]
    refused = "already holds a fine-tuned network" in text  # it was killed when everything was done
    problem = text[-2000:] if process.returncode and not refused else ", ".join(differences(run, reference))
    sys.stdout.write(f"{what}: {problem or 'the same'}\n")
    sys.stdout.flush()
    return not problem


def main() -> Optional[str]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("when", choices=("calls", "random"))
    parser.add_argument("script", choices=("train", "train_two", "linear_eval", "finetune", "all"))
    parser.add_argument("--kills", type=int, default=10, help="at random moments")
    parser.add_argument("--first", type=int, default=1, help="call to begin with")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    good = bad = 0
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        trap = work / "trap"
        trap.mkdir()
        (trap / "sitecustomize.py").write_text(TRAP)
        helpers.write_cifar(work / "data")
        first = start(scripts(work, work / "run")["train"], work / "run")
        assert first.wait() == 0, first.communicate()[0]
        known = scripts(work, work / "run")
        chosen = list(known) if options.script == "all" else [options.script]
        references, durations = {}, {}
        for name in chosen:
            begin = time.monotonic()
            process = start(known[name], work / f"{name}_reference" / "out")
            text = process.communicate()[0]
            assert process.returncode == 0, text
            durations[name] = time.monotonic() - begin
            references[name] = outcome(work / f"{name}_reference" / "out")
        run = work / "killed" / "out"
        number = options.first
        while options.when == "calls" or good + bad < options.kills:
            name = chosen[(good + bad) % len(chosen)]
            script = known[name]
            if options.when == "calls":
                what = f"{name}, after call {number}"
                if not killed_after(script, run, trap, number):
                    break
                number += 1
            else:
                what = f"{name}, after {killed_at_random(script, run, durations[name])}"
            if judged(script, run, references[name], what):
                good += 1
            else:
                bad += 1
            shutil.rmtree(run.parent, ignore_errors=True)
    sys.stdout.write(f"{options.when}, {options.script}: {good} of {good + bad} with the same end\n")
    return f"{bad} have another end" if bad else None


if __name__ == "__main__":
    sys.exit(main())

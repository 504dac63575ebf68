"""The cost of long runs: memory, open files and threads over many steps, and the start with large data and records.

`run`: train.py itself, a small network on shapes with an evaluation every 50 steps, the page and TensorBoard, is
looked at from outside after every epoch. `large`: the start of train.py on image folders and records of any size.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

import common

STEPS_PER_EPOCH, BATCH = 50, 16
NETWORK = ("--encoder", "resnet18", "--width_multiplier", "0.0625", "--projection_dimension", "8", "--seed", "0")


def usage_of(process: int) -> Dict[str, int]:
    """Return resident memory in bytes, open files and threads of a process."""
    place = Path("/proc", str(process))
    pages = int((place / "statm").read_text().split()[1])
    return {"memory": pages * os.sysconf("SC_PAGE_SIZE"), "files": len(list((place / "fd").iterdir())),
            "threads": len(list((place / "task").iterdir()))}


def watch(options: argparse.Namespace) -> None:
    """Watch a run after every epoch, and save the slopes over the second half of the epochs."""
    import numpy as np
    machine = common.machine()
    epochs = options.steps // STEPS_PER_EPOCH
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        process = subprocess.Popen(
            [sys.executable, str(common.ROOT / "train.py"), *NETWORK, "--dataset_name", "shapes",
             "--train_dataset_path", str(Path(folder, "shapes")), "--num_samples", str(STEPS_PER_EPOCH * BATCH),
             "--batch_size", str(BATCH), "--epoch_size", str(epochs), "--eval_every", "1", "--tensorboard",
             "--train_output_path", str(run)], stdout=subprocess.DEVNULL)
        found: List[Dict[str, Any]] = []
        while process.poll() is None:
            time.sleep(0.1)
            metrics = run / "metrics.jsonl"
            done = metrics.read_text().count('"monitor"') if metrics.exists() else 0
            if done > len(found):
                try:
                    found.append({"step": done * STEPS_PER_EPOCH, **usage_of(process.pid)})
                except OSError:
                    break  # it has just ended
        assert process.wait() == 0
    later = found[len(found) // 2:]
    steps = [look["step"] for look in later]
    slopes = {name: float(np.polyfit(steps, [look[name] for look in later], 1)[0])
              for name in ("memory", "files", "threads")}
    common.save("endurance", {"machine": machine, "network": " ".join(NETWORK), "steps": epochs * STEPS_PER_EPOCH,
                              "evaluation_every": STEPS_PER_EPOCH, "slope_per_step_second_half": slopes,
                              "looks": found})


def large(options: argparse.Namespace) -> None:
    """Time the parts of a start that read much, and save the times."""
    machine = common.machine()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        record = {"kind": "pretrain", "loss": 5.0, "contrastive_accuracy": 0.5, "last_loss": 5.0, "gradient_norm": 1.0,
                  "learning_rate": 1e-3, "seconds": 1.0, "images_per_second": 1.0}
        train = [sys.executable, str(common.ROOT / "train.py"), *NETWORK, "--dataset_name", "shapes",
                 "--train_dataset_path", str(place / "shapes"), "--batch_size", "16", "--num_samples", "64"]

        def timed(name: str, command: List[str]) -> str:
            begin = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            found[name] = round(time.perf_counter() - begin, 1)
            return done.stdout

        run = place / "run"
        small = [*train, "--epoch_size", "1", "--train_output_path", str(run)]
        timed("a run of an epoch, seconds", small)
        timed("resumed after its last epoch, seconds", [*small, "--resume"])
        with (run / "metrics.jsonl").open("a") as file:
            while file.tell() < options.megabytes * 1e6:
                file.write(json.dumps({**record, "epoch": 1, "note": "x" * 800}) + "\n")
        timed(f"the same with {options.megabytes} MB of records, seconds", [*small, "--resume"])
        lines = [json.dumps({**record, "epoch": epoch + 1, "loss": 5 + 1 / (epoch + 1)}) for epoch in
                 range(options.epochs)]
        (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        timed(f"page of {options.epochs} epochs, seconds", [sys.executable, str(common.ROOT / "report.py"), str(run)])
        found[f"page of {options.epochs} epochs, MB"] = round((run / "report.html").stat().st_size / 1e6, 2)

        import numpy as np
        from PIL import Image
        images = place / "images"
        picture = place / "picture.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(picture)
        for number in range(options.images):
            if number % 1000 == 0:
                (images / "train" / f"class{number // 1000:04d}").mkdir(parents=True)
            os.symlink(picture, images / "train" / f"class{number // 1000:04d}" / f"{number}.png")
        said = timed(f"views of {options.images} image files, seconds", [
            sys.executable, str(common.ROOT / "scripts/show_views.py"), *NETWORK, "--dataset_name", "imagefolder",
            "--train_dataset_path", str(images), "--image_size", "32", "--batch_size", "16", "--train_output_path",
            str(place / "views")])
        sys.stdout.write(said)
    common.save("endurance_large", {"machine": machine, "found": found})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "large"))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=1_000_000)
    given = parser.parse_args()
    {"run": watch, "large": large}[given.what](given)

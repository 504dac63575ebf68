"""Seconds and bytes of a run's page with 2,500 test images: to compute their map, to write the page, and to open it.

The run is `--run`, a folder with a sample that linear_eval.py wrote. By default it has made-up records and images of
`shapes`, with clusters for representations. Chromium opens a page, from the request to the last drawn plot, which
needs selenium and chromedriver, as the tests do.
"""
import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

CLASSES, FEATURES, EPOCHS = 10, 256, 100


def make(folder: Path) -> float:
    """Make the folder of a run of 100 epochs with a sample, and return the seconds of its map."""
    import numpy as np

    from src.data.shapes import draw
    from src.evaluation.shown import ASKED, MOST, NEAREST, places_of
    from src.run import sample
    from src.run.layout import Layout

    rng, layout, images = np.random.default_rng(0), Layout(folder), draw(MOST, 0)
    centres = 3 * rng.normal(size=(CLASSES, FEATURES))
    nearest = rng.integers(0, MOST, (ASKED, NEAREST))
    features = (centres[images.labels] + rng.normal(size=(MOST, FEATURES))).astype(np.float16)
    begin = time.perf_counter()
    places = places_of(features)
    seconds = time.perf_counter() - begin
    sample.write(layout.sample, sample.Sample(
        images.pixels, features, images.labels, tuple(map(str, range(CLASSES))), np.arange(ASKED),
        images.pixels[nearest], images.labels[nearest], places))
    layout.records.write_text("".join(json.dumps({
        "kind": "pretrain", "epoch": epoch, "loss": 8 / epoch, "contrastive_accuracy": 1 - 1 / epoch,
        "gradient_norm": 1 / epoch, "learning_rate": 1e-3, "images_per_second": 300.0}) + "\n"
        for epoch in range(1, EPOCHS + 1)))
    return seconds


def seconds_to_open(file: Path, rounds: int) -> "list[float]":
    """Return how long headless Chromium takes to open and draw the page, in each round."""
    from selenium import webdriver
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    taken = []
    for _ in range(rounds):
        browser.get("about:blank")
        begin = time.perf_counter()
        browser.get(file.as_uri())
        while browser.execute_script("return document.documentElement.dataset.drawn") != "yes":
            time.sleep(0.01)
        taken.append(time.perf_counter() - begin)
    browser.quit()
    return taken


def measure(options: argparse.Namespace) -> None:
    """Write and open the page several times, and save how long that took."""
    machine = common.machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        seconds_of_map = None  # a given run has its map
        if options.run:
            shutil.copytree(options.run, folder, ignore=shutil.ignore_patterns("checkpoint", "features"))
        else:
            folder.mkdir()
            seconds_of_map = make(folder)
        written = []
        for _ in range(options.rounds):
            begin = time.perf_counter()
            subprocess.run([sys.executable, common.ROOT / "report.py", folder], check=True, stdout=subprocess.DEVNULL)
            written.append(time.perf_counter() - begin)
        page = folder / "report.html"
        opened = seconds_to_open(page, options.rounds)
        common.save(options.save_as, {
            "machine": machine, "run": "given" if options.run else "made up",
            "seconds_of_map": seconds_of_map,
            "seconds_to_write": {"median": statistics.median(written), "by_round": written},
            "seconds_to_open": {"median": statistics.median(opened), "by_round": opened},
            "megabytes": page.stat().st_size / 1e6})


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    flags.add_argument("--run", type=Path, default=None, help="folder of a run that was evaluated")
    flags.add_argument("--rounds", type=int, default=5, help="number of times that each is measured")
    flags.add_argument("--save_as", default="report_page", help="name of the file in results/")
    common.run(flags, {}, measure)

"""Last step of quickstart.sh: classify test images with the exported file and sum the run up.

    python scripts/lib/quickstart_summary.py RUN_FOLDER DATA_SET DATA_FOLDER SECONDS
"""
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from src.common.logs import log_to_console
from src.data.images import channels_first
from src.device import environment
from src.run import records
from src.run.layout import Layout

IMAGES = 8


def accuracy(folder: Path) -> float:
    """Return the accuracy of the linear evaluation in a run's folder."""
    found = records.read(Layout(folder).records)
    return [record["accuracy"] for record in found if record["kind"] == records.LINEAR_EVAL][-1]


def main(run: Path, name: str, data: str, seconds: int) -> None:
    environment.prepare("CPU", 0)
    from src import dataset
    from src.deploy import predicting

    log_to_console()
    test = dataset.load(name, data, "test")
    classes = test.classes
    shown = np.random.default_rng(0).permutation(len(test.labels))[:IMAGES]
    model = run / "simclr.mindir"
    probabilities, _ = predicting.open_model(str(model), None).run(channels_first(test.pixels[shown]))
    for index, row in zip(shown, probabilities):
        verdict = "right" if row.argmax() == test.labels[index] else "wrong"
        print(f"  test image {index:5d}: {classes[test.labels[index]]:<10}  read as {classes[row.argmax()]:<10} "
              f"({row.max():4.0%} sure)  {verdict}")
    before, after = accuracy(run / "untrained"), accuracy(run)
    print(f"""
Summary ({seconds // 60} min {seconds % 60} s after the install)
  data        {name}: images and test labels from {data}
  pretrained  a small ResNet-18, without labels, from random weights
  accuracy    of a linear classifier on its features, {len(test.labels)} test images:
                 untrained encoder   {before:6.1%}
                 after pretraining   {after:6.1%}   (chance: {1 / len(classes):.0%})
  files       {run}
                 checkpoint/latest         the encoder, to resume, evaluate or export
                 linear_classifier/latest  the classifier
                 simclr.mindir             both as one model: uint8 images in, probabilities out
                 metrics.jsonl             every number above and more
Look at it: {Layout(run).report}
Next: README.md, section "Quick Start".""")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))

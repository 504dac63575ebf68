"""The curves of one run or of several over each other, drawn by bokeh."""
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from bokeh.models import HoverTool, NumeralTickFormatter
from bokeh.palettes import Colorblind
from bokeh.plotting import figure

from src.report.runs import Story
from src.run import records

# Okabe and Ito's, without the yellow and the black that one does not see on light or on dark paper. With more runs they
# begin again, with another dash.
COLOURS = (*(colour for colour in Colorblind[8] if colour not in ("#F0E442", "#000000")), "#808080")
DASHES = ("solid", "dashed", "dotted")
HEIGHT = 260  # pixels


class Curve(NamedTuple):
    """What is drawn over the epochs: a key of the records of one kind.

    ``axis`` names the quantity with its unit; ``meaning`` says what one reads from it; ``percent`` is for shares.
    """

    key: str
    kind: str
    title: str
    axis: str
    meaning: str
    percent: bool = False


CURVES = (
    Curve("loss", records.PRETRAIN, "Contrastive loss", "mean of the epoch (nats)",
          "Falls while the network learns to tell images apart."),
    Curve("contrastive_accuracy", records.PRETRAIN, "Contrastive accuracy", "views (%)",
          "Views whose most similar one in the batch is of the same image.", True),
    Curve("knn_accuracy", records.MONITOR, "kNN accuracy of the monitor", "test images (%)",
          "Test images whose class their nearest training images tell: the first sign of good representations.", True),
    Curve("learning_rate", records.PRETRAIN, "Learning rate", "at the end of the epoch",
          "Warm-up, then decay."),
    Curve("gradient_norm", records.PRETRAIN, "Gradient norm", "mean of the epoch",
          "Length of the gradient of all weights: rising far, it announces that training diverges."),
    Curve("alignment", records.MONITOR, "Alignment", "mean squared distance",
          "Between the embeddings of two views of an image: 0 where they coincide, 2 by chance."),
    Curve("uniformity", records.MONITOR, "Uniformity", "log of the mean Gaussian potential",
          "Of the embeddings of different images: 0 where all are equal, towards -4 where they fill the sphere."),
    Curve("effective_rank", records.MONITOR, "Effective rank", "dimensions",
          "How many directions the representations use; it falls in a collapse."),
    Curve("images_per_second", records.PRETRAIN, "Speed", "images per second",
          "Measured over whole epochs; the first one compiles."),
    Curve("loss", records.CLASSIFIER_EPOCH, "Loss of the linear classifier", "last step of the epoch (nats)",
          "Training of the linear classifier on frozen representations."),
    Curve("loss", records.FINETUNE, "Loss of fine-tuning", "mean of the epoch (nats)",
          "Training of the whole network with labels."),
    Curve("train_accuracy", records.FINETUNE, "Training accuracy of fine-tuning", "training images (%)",
          "Images of the batches whose class was right.", True),
)


class Drawn(NamedTuple):
    """A curve as a bokeh figure, and its points (epoch, value) by the name of what they are of."""

    curve: Curve
    figure: figure
    points: Dict[str, List[Tuple[int, float]]]


def style_of(number: int) -> Dict[str, str]:
    """Return colour and dash of a run by its number."""
    return {"line_color": COLOURS[number % len(COLOURS)],
            "line_dash": DASHES[number // len(COLOURS) % len(DASHES)]}


def draw(runs: Sequence[Story]) -> List[Drawn]:
    """Draw every curve that at least one of the runs has points of. A run's lines are named ``run-`` and its number."""
    found = [_drawn(curve, runs) for curve in CURVES]
    return [drawn for drawn in found if drawn.points]


def _lines(run: Story, curve: Curve) -> List[Tuple[str, List[Tuple[int, float]]]]:
    """Return the names and points of a run's lines, one for every training and seed.

    Where an epoch was trained again, it and those after it are of the last time.
    """
    lines: Dict[Any, Dict[int, float]] = {}
    for record in run.of_kind(curve.kind):
        if record.get(curve.key) is not None:
            line = lines.setdefault((record.get("training"), record.get("seed")), {})
            while line and next(reversed(line)) >= record["epoch"]:
                line.popitem()
            line[record["epoch"]] = record[curve.key]
    trainings = list(dict.fromkeys(training for training, _ in lines))
    return [(run.name + (f", training {trainings.index(training) + 1}" if len(trainings) > 1 else "")
             + (f", seed {seed}" if len(lines) > 1 else ""), list(line.items()))
            for (training, seed), line in lines.items()]


def _drawn(curve: Curve, runs: Sequence[Story]) -> Drawn:
    plot = figure(height=HEIGHT, sizing_mode="stretch_width", x_axis_label="epoch", y_axis_label=curve.axis,
                  tools="pan,box_zoom,reset,save", toolbar_location="right")
    factor, points = 100 if curve.percent else 1, {}
    for number, run in enumerate(runs):
        for name, line in _lines(run, curve):
            epochs, values = [epoch for epoch, _ in line], [factor * value for _, value in line]
            points[name] = list(zip(epochs, values))
            data = {"epoch": epochs, "value": values, "name": [name] * len(epochs)}
            plot.line("epoch", "value", source=data, name=f"run-{number}", line_width=2, **style_of(number))
            plot.scatter("epoch", "value", source=data, name=f"run-{number}", size=6, line_color=None,
                         fill_color=style_of(number)["line_color"])
    plot.add_tools(HoverTool(tooltips=[("", "@name"), ("epoch", "@epoch"), (curve.title, "@value{%.4g}")],
                             formatters={"@value": "printf"}, mode="mouse"))
    plot.toolbar.logo, plot.toolbar.autohide = None, True
    plot.yaxis.formatter.power_limit_low = -5  # 0.001 as it is
    plot.xaxis.ticker.min_interval = 1
    plot.xaxis.formatter = NumeralTickFormatter(format="0,0")
    return Drawn(curve, plot, points)

"""Draws the curves of runs over each other, with bokeh."""
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from bokeh.models import HoverTool, NumeralTickFormatter
from bokeh.palettes import Colorblind
from bokeh.plotting import figure

from src.report.runs import RunSummary
from src.run import records

# Okabe and Ito's colours, without yellow and black, which are hard to see on white or on dark paper. Further runs take
# the same colours again with another dash.
COLOURS = (*(colour for colour in Colorblind[8] if colour not in ("#F0E442", "#000000")), "#808080")
DASHES = ("solid", "dashed", "dotted")
HEIGHT = 260  # pixels


class Curve(NamedTuple):
    """A measurement to draw over the epochs: a key of one kind of records.

    ``axis`` names the quantity and its unit, ``meaning`` tells how to read it. A share is drawn in ``percent``.
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


class Drawing(NamedTuple):
    """A curve as a bokeh figure, and its points (epoch, value) by the name of the line."""

    curve: Curve
    figure: figure
    points: Dict[str, List[Tuple[int, float]]]


def style_of(number: int) -> Dict[str, str]:
    """Return colour and dash of a run by its number."""
    return {"line_color": COLOURS[number % len(COLOURS)],
            "line_dash": DASHES[number // len(COLOURS) % len(DASHES)]}


def draw(runs: Sequence[RunSummary]) -> List[Drawing]:
    """Draw every curve that at least one run has points of. The lines of a run are named ``run-`` and its number."""
    drawings = [_draw_one(curve, runs) for curve in CURVES]
    return [drawing for drawing in drawings if drawing.points]


def _lines(run: RunSummary, curve: Curve) -> List[Tuple[str, List[Tuple[int, float]]]]:
    """Return the names and points of a run's lines, one for every training and seed."""
    lines: Dict[Any, Dict[int, float]] = {}
    for record in run.of_kind(curve.kind):
        if record.get(curve.key) is not None:
            line = lines.setdefault((record.get("training"), record.get("seed")), {})
            # After an epoch that was trained again, the later ones of the time before no longer count.
            while line and next(reversed(line)) >= record["epoch"]:
                line.popitem()
            line[record["epoch"]] = record[curve.key]
    trainings = {training for training, _ in lines}
    return [(run.name + (f", {training}" if len(trainings) > 1 else "") + (f", seed {seed}" if len(lines) > 1 else ""),
             list(line.items())) for (training, seed), line in lines.items()]


def _draw_one(curve: Curve, runs: Sequence[RunSummary]) -> Drawing:
    plot = figure(height=HEIGHT, sizing_mode="stretch_width", x_axis_label="epoch", y_axis_label=curve.axis,
                  tools="pan,box_zoom,reset,save", toolbar_location="right")
    factor, points = 100 if curve.percent else 1, {}
    for number, run in enumerate(runs):
        for name, line in _lines(run, curve):
            points[name] = [(epoch, factor * value) for epoch, value in line]
            epochs, values = zip(*points[name])
            data = {"epoch": epochs, "value": values, "name": [name] * len(epochs)}
            plot.line("epoch", "value", source=data, name=f"run-{number}", line_width=2, **style_of(number))
            plot.scatter("epoch", "value", source=data, name=f"run-{number}", size=6, line_color=None,
                         fill_color=style_of(number)["line_color"])
    plot.add_tools(HoverTool(tooltips=[("", "@name"), ("epoch", "@epoch"), (curve.title, "@value{%.4g}")],
                             formatters={"@value": "printf"}, mode="mouse"))
    plot.toolbar.logo, plot.toolbar.autohide = None, True
    plot.yaxis.formatter.power_limit_low = -5  # so that 0.001 is not written as a power
    plot.xaxis.ticker.min_interval = 1  # epochs are whole
    plot.xaxis.formatter = NumeralTickFormatter(format="0,0")
    return Drawing(curve, plot, points)

"""The representations of test images on a plane, by t-SNE (van der Maaten and Hinton 2008)."""
import hashlib
import html
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Optional, Sequence

import numpy as np
from bokeh.models import HoverTool
from bokeh.plotting import figure

from src.common.files import written_whole
from src.report.curves import COLOURS
from src.report.pictures import Sheet
from src.run.sample import Sample

PERPLEXITY = 30.0
HEIGHT = 520  # pixels
# What one sees of a dot. Its picture is a part of the sheet, which the page defines as a variable of CSS.
TOOLTIP = """<div style="width: 96px; height: 96px; image-rendering: pixelated; background-image: var(--{sheet});
background-size: {size}; background-position: @place"></div><div>@name{{safe}}</div>"""
MARKERS = (("circle", "\u25cf"), ("triangle", "\u25b2"), ("square", "\u25a0"), ("diamond", "\u25c6"),
           ("inverted_triangle", "\u25bc"), ("star", "\u2605"), ("hex", "\u2b22"))


def coordinates(sample: Sample) -> np.ndarray:
    """Return a place for every image of ``sample``, float32 (N, 2); the same for the same sample and scikit-learn.

    Of fewer than four images, and of a collapsed encoder, whose representations are all the same, there is no map: all
    get the same place. (scikit-learn would never end.)
    """
    from sklearn.manifold import TSNE  # here: it takes a second
    rows = sample.features.astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    if len(rows) < 4 or not np.isfinite(rows).all() or np.ptp(rows, axis=0).max() < 1e-4:
        return np.zeros((len(rows), 2), np.float32)
    return TSNE(perplexity=min(PERPLEXITY, (len(rows) - 1) / 3), init="pca", random_state=0).fit_transform(rows)


def kept(file: Path, sample_file: Path, sample: Sample, compute: bool) -> Optional[np.ndarray]:
    """Return the places of ``sample`` from ``file``, if they are of it, else computed and kept if possible, or None.

    Args:
        file: where they are kept.
        sample_file: where the sample is.
        compute: whether what is not there is computed, which takes some seconds.
    """
    digest = hashlib.sha256(sample_file.read_bytes()).hexdigest()
    # Missing, or damaged, for which NumPy raises all kinds of errors: it is computed again.
    with suppress(Exception), np.load(file, allow_pickle=False) as found:
        places = found["places"]
        if str(found["sample"]) == digest and places.shape == (len(sample.labels), 2) and places.dtype.kind == "f":
            return places
    if not compute:
        return None
    places = coordinates(sample)
    with suppress(OSError), written_whole(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, places=places, sample=digest)  # beside someone else's run it may not be written
    return places


class Look(NamedTuple):
    """How the dots of a class look: ``symbol`` is its ``marker`` in text."""

    colour: str
    marker: str
    symbol: str


def look_of(number: int) -> Look:
    """Return how class ``number`` looks: 49 of them look different, and seven in a row in colour and in shape."""
    marker, symbol = MARKERS[number % len(MARKERS)]
    return Look(COLOURS[(number + number // len(MARKERS)) % len(COLOURS)], marker, symbol)


def draw(sample: Sample, places: np.ndarray, sheet: Sheet, name: str, classes: Sequence[str]) -> figure:
    """Draw the places as dots, those of a class by one glyph that is named ``class-`` and its number among ``classes``.

    ``name`` is that of the sheet's variable in CSS. Where there are no ``classes``, all dots are alike.
    """
    plot = figure(height=HEIGHT, sizing_mode="stretch_width", match_aspect=True, tools="pan,wheel_zoom,box_zoom,reset",
                  toolbar_location="right")
    plot.toolbar.logo, plot.toolbar.autohide = None, True
    plot.axis.visible = plot.grid.visible = False  # neither axis nor scale means anything
    of_images = np.array(sheet.places(), dtype=object)
    # Escaped here: not every version of bokeh does it in a tooltip of one's own.
    titles = np.array([html.escape(sample.classes[label]) for label in sample.labels], dtype=object)
    numbers = np.array([classes.index(sample.classes[label]) if classes else 0 for label in sample.labels])
    for number in np.unique(numbers).tolist():
        of_class = numbers == number
        look = look_of(number)
        data = {"x": places[of_class, 0].tolist(), "y": places[of_class, 1].tolist(),
                "place": of_images[of_class].tolist(), "name": titles[of_class].tolist()}
        plot.scatter("x", "y", source=data, name=f"class-{number}", marker=look.marker, size=8, line_color=None,
                     fill_color=look.colour, fill_alpha=0.8)
    plot.add_tools(HoverTool(tooltips=TOOLTIP.format(sheet=name, size=sheet.size), point_policy="snap_to_data"))
    return plot

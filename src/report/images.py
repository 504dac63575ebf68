"""The test images on a page: their map, and the training images whose representations are nearest."""
import base64
import html
import io
from typing import Dict, List, NamedTuple, Tuple

import numpy as np
from bokeh.models import HoverTool
from bokeh.plotting import figure
from PIL import Image

from src.report.curves import COLOURS
from src.report.runs import RunSummary
from src.run.sample import Sample

JPEG_QUALITY = 85
MAP_HEIGHT = 520  # pixels
# What pointing at a dot shows. Its image is a part of the sheet, which the page defines as a variable of CSS.
TOOLTIP = """<div style="width: 96px; height: 96px; image-rendering: pixelated; background-image: var(--{sheet});
background-size: {size}; background-position: @place"></div><div>@name{{safe}}</div>"""
MARKERS = (("circle", "\u25cf"), ("triangle", "\u25b2"), ("square", "\u25a0"), ("diamond", "\u25c6"),
           ("inverted_triangle", "\u25bc"), ("star", "\u2605"), ("hex", "\u2b22"))


class Sheet:
    """Small images uint8 (N, side, side, 3) in one picture, of which CSS shows one at a time.

    ``uri`` is the picture, ``size`` the background-size in CSS that lets one image fill an element.
    """

    def __init__(self, images: np.ndarray):
        self.count, side = images.shape[:2]
        self.across = max(1, int(np.ceil(np.sqrt(self.count))))
        self.down = max(1, -(-self.count // self.across))
        self.size = f"{100 * self.across}% {100 * self.down}%"
        picture = np.zeros((self.down * self.across, *images.shape[1:]), np.uint8)
        picture[:self.count] = images
        picture = picture.reshape(self.down, self.across, side, side, 3).transpose(0, 2, 1, 3, 4)
        stream = io.BytesIO()
        Image.fromarray(picture.reshape(self.down * side, self.across * side, 3)).save(
            stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
        self.uri = f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"

    def place(self, number: int) -> str:
        """Return the background-position of an image in CSS."""
        row, column = divmod(number, self.across)
        # CSS 2.1: 0 % is the first of the columns or rows, 100 % the last one.
        return f"{100 * column / max(1, self.across - 1):.6g}% {100 * row / max(1, self.down - 1):.6g}%"


class Gallery(NamedTuple):
    """The images of one run. ``number`` is its number on the page.

    ``sheet`` has the test images, ``nearest`` the training images near to some of them. A row has such a test image
    (its place on the sheet, its class), and its training images (place, class, whether the class is the same).
    """

    number: int
    name: str
    sheet: Sheet
    nearest: Sheet
    rows: List[Tuple[Tuple[str, str], List[Tuple[str, str, bool]]]]
    plot: figure


def look_of(number: int) -> Tuple[str, str, str]:
    """Return colour, marker and the marker as text of class ``number``.

    49 classes look different, and seven in a row differ in both colour and marker.
    """
    return (COLOURS[(number + number // len(MARKERS)) % len(COLOURS)], *MARKERS[number % len(MARKERS)])


def gallery(run: RunSummary, number: int, class_numbers: Dict[str, int]) -> Gallery:
    """Return the images of a run that has a sample; ``class_numbers`` as for ``draw_map``."""
    sample = run.sample
    sheet, nearest = Sheet(sample.pictures), Sheet(sample.nearest_pictures.reshape(-1, *sample.pictures.shape[1:]))
    rows = []
    for row, (asked, labels) in enumerate(zip(sample.asked.tolist(), sample.nearest_labels.tolist())):
        own = sample.labels[asked]
        rows.append(((sheet.place(asked), sample.classes[own]), [
            (nearest.place(row * len(labels) + rank), sample.classes[label], bool(label == own))
            for rank, label in enumerate(labels)]))
    return Gallery(number, run.name, sheet, nearest, rows, draw_map(sample, sheet, f"sheet-{number}", class_numbers))


def draw_map(sample: Sample, sheet: Sheet, variable: str, class_numbers: Dict[str, int]) -> figure:
    """Draw the test images as dots, those of a class in one glyph, which is named ``class-`` and the class's number.

    ``class_numbers`` has the numbers of the classes on the whole page; where it is empty, all dots look alike.
    ``variable`` names the picture ``sheet`` in CSS.
    """
    plot = figure(height=MAP_HEIGHT, sizing_mode="stretch_width", match_aspect=True,
                  tools="pan,wheel_zoom,box_zoom,reset", toolbar_location="right")
    plot.toolbar.logo, plot.toolbar.autohide = None, True
    plot.axis.visible = plot.grid.visible = False  # neither directions nor scale mean anything
    glyphs: Dict[int, List[int]] = {}
    for image, label in enumerate(sample.labels.tolist()):
        glyphs.setdefault(class_numbers.get(sample.classes[label], 0), []).append(image)
    for number, images in glyphs.items():
        colour, marker, _ = look_of(number)
        # Not every version of bokeh escapes the values in a tooltip of HTML.
        names = [html.escape(sample.classes[sample.labels[image]]) for image in images]
        data = {"x": sample.places[images, 0].tolist(), "y": sample.places[images, 1].tolist(),
                "place": [sheet.place(image) for image in images], "name": names}
        plot.scatter("x", "y", source=data, name=f"class-{number}", marker=marker, size=8, line_color=None,
                     fill_color=colour, fill_alpha=0.8)
    plot.add_tools(HoverTool(tooltips=TOOLTIP.format(sheet=variable, size=sheet.size), point_policy="snap_to_data"))
    return plot

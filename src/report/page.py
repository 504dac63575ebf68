"""The page of one run, or of several beside each other: one HTML file that opens without a network."""
import base64
import json
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from bokeh.embed import json_item
from bokeh.resources import Resources
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from src.common.errors import UserError
from src.common.files import reason_of, write_text
from src.common.logs import logger
from src.report import curves, tsne
from src.report.listing import encoder_of, percent
from src.report.pictures import Sheet
from src.report.runs import RESULTS, Story, read, told_apart
from src.run import records
from src.run.layout import Layout
from src.run.records import Record
from src.settings.given import Role, flags_of
from src.settings.scripts import SCRIPTS

TEMPLATE = "page.html"
MOST_CLASSES = 49  # that are drawn apart and have a confusion matrix
UNTRAINED = "untrained"  # the folder, in a run's, of an evaluation of its encoder before training
PROTOCOLS = {records.LINEAR_SGD: "linear classifier, Adam", records.LINEAR_LBFGS: "linear classifier, L-BFGS",
             records.KNN: "nearest neighbours", records.FINE_TUNED: "fine-tuned network",
             records.SUPERVISED: "supervised, from random weights"}
FREE = 10  # seconds that the pages of a training may take, however short it is


class Setting(NamedTuple):
    """A setting with its value, and whether that is not its default."""

    name: str
    value: Any
    changed: bool


class Gallery(NamedTuple):
    """What is shown of a run's sample. ``number`` is its own on the page.

    ``sheet`` has its pictures, ``nearest`` those of the training images that lie next to some of them, in ``rows``:
    the image that was asked for and the nearest, each as (place on its sheet, class, whether that is the right one).
    ``plot`` is the map, or None where it is not there.
    """

    number: int
    story: Story
    sheet: Sheet
    nearest: Sheet
    rows: List[Tuple[Tuple[str, str], List[Tuple[str, str, bool]]]]
    plot: Any


def write(runs: Sequence[Story], path: Path, compute: bool = True) -> None:
    """Write the page of ``runs`` to ``path``, whole.

    Args:
        runs: what is shown.
        path: of the file.
        compute: whether maps that are not there are computed, which takes some seconds each.

    Raises:
        UserError: it cannot be written.
    """
    text = render(runs, compute)
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({reason_of(error)}); name a run first whose folder can") from None


def try_to_write(folder: Path, compute: bool) -> Optional[str]:
    """Write the page of the run in ``folder`` there; return what was wrong, in one line, if it could not be done."""
    try:
        write([read(folder, quiet=True)], Layout(folder).report, compute)
    except Exception as error:  # whatever it is: the run is worth more
        return reason_of(error)
    return None


class Keeper:
    """A sink of records that writes the page of the run in ``folder`` anew after what is worth it.

    That is every result; a measurement of the monitor, as long as the pages take less than a twentieth of the time;
    and an epoch, as long as they take less than a two-hundredth. That a page cannot be written is a warning, once: it
    must not end a training.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.begun = time.perf_counter()
        self.spent = 0.0  # seconds on pages
        self.failed: Optional[str] = None

    def __call__(self, record: Record) -> None:
        begin = time.perf_counter()
        if not self._has_time_for(record["kind"], begin - self.begun):
            return
        failed = try_to_write(self.folder, compute=False)
        if failed and not self.failed:
            logger.warning("warning: the run's page could not be written (%s); the run goes on; `python report.py %s` "
                           "tells more", failed, self.folder)
        self.failed = self.failed or failed
        self.spent += time.perf_counter() - begin

    def _has_time_for(self, kind: str, passed: float) -> bool:
        if kind in RESULTS:
            return True
        return self.spent <= (FREE + passed / 20 if kind == records.MONITOR else passed / 200)


def render(runs: Sequence[Story], compute: bool = True) -> str:
    """Return the page of ``runs`` as HTML. Whatever comes from files and names is escaped."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = percent
    runs = told_apart(runs)
    untrained = _untrained(runs)
    drawn, shown = curves.draw(runs), [run for run in (*runs, *untrained) if run.sample]
    classes = list(dict.fromkeys(name for run in shown for name in run.sample.classes))
    classes = classes if len(classes) <= MOST_CLASSES else []  # too many to be told apart
    galleries = [_gallery(run, number, classes, compute) for number, run in enumerate(shown)]
    figures = [*(json_item(each.figure, f"curve-{number}") for number, each in enumerate(drawn)),
               *(json_item(each.plot, f"map-{each.number}") for each in galleries if each.plot)]
    page = environment.get_template(TEMPLATE).render(
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        runs=[{"number": number, "story": run, "encoder": encoder_of(run), **curves.style_of(number)}
              for number, run in enumerate(runs)],
        sheets=[(run.name, base64.b64encode(run.views).decode()) for run in runs if run.views],
        before={result.protocol_id: result.mean for run in untrained for result in run.results},
        protocols=PROTOCOLS, most_classes=MOST_CLASSES, differing=_differing(runs),
        settings=[_settings(run) for run in runs], curves=drawn, galleries=galleries,
        looks=[(name, tsne.look_of(number)) for number, name in enumerate(classes)],
        has_map=any(gallery.plot for gallery in galleries),
        figures=json.dumps(figures).replace("<", "\\u003c"), bokeh="\n".join(Resources("inline", components=["bokeh"])
                                                                             .js_raw))
    return page.encode("utf-8", "backslashreplace").decode()  # names may be no UTF-8


def _untrained(runs: Sequence[Story]) -> List[Story]:
    """Return what is known of the untrained encoder of a single run: an evaluation in its folder ``untrained``."""
    return [read(run.path / UNTRAINED) for run in runs if len(runs) == 1 and Layout(run.path / UNTRAINED).holds_run]


def _gallery(run: Story, number: int, classes: Sequence[str], compute: bool) -> Gallery:
    sample, layout = run.sample, Layout(run.path)
    places = tsne.kept(layout.map, layout.sample, sample, compute)
    sheet, nearest = Sheet(sample.pictures), Sheet(sample.nearest_pictures.reshape(-1, *sample.pictures.shape[1:]))
    each = sample.nearest_labels.shape[1]
    rows = []
    for row, asked in enumerate(sample.asked.tolist()):
        label = sample.labels[asked]
        rows.append(((sheet.place(asked), sample.classes[label]), [
            (nearest.place(row * each + rank), sample.classes[other], bool(other == label))
            for rank, other in enumerate(sample.nearest_labels[row].tolist())]))
    plot = None if places is None else tsne.draw(sample, places, sheet, f"sheet-{number}", classes)
    return Gallery(number, run, sheet, nearest, rows, plot)


def _settings(run: Story) -> Dict[str, List[Setting]]:
    """Return every script's settings, those that are not the defaults first.

    A default that follows from others is not known here, so such a setting counts as chosen where it has a value.
    """
    return {script: sorted((Setting(name, value, _is_changed(script, name, value))
                            for name, value in config["settings"].items()), key=lambda setting: not setting.changed)
            for script, config in run.configs.items()}


def _is_changed(script: str, name: str, value: Any) -> bool:
    flag = next((flag for flag in flags_of(SCRIPTS[script]) if flag.name == name), None)
    return flag is None or not _is_circumstance(script, name) and value != flag.metadata["default"]


def _is_circumstance(script: str, name: str) -> bool:
    return name in (flag.name for flag in flags_of(SCRIPTS[script], Role.CIRCUMSTANCE))


def _differing(runs: Sequence[Story]) -> List[Tuple[str, str, List[Any]]]:
    """Return script, setting and the value in each run, of what is not the same in all; None where it is not known.

    Where and how the runs were run is left out.
    """
    names = {(script, name): None for run in runs for script, config in run.configs.items()
             for name in config["settings"] if not _is_circumstance(script, name)}
    rows = ((script, name, [run.configs.get(script, {"settings": {}})["settings"].get(name) for run in runs])
            for script, name in names)
    return [(script, name, values) for script, name, values in rows if any(value != values[0] for value in values)]

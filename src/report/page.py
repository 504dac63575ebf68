"""The page of one run, or of several beside each other: one HTML file that opens without a network."""
import base64
import json
import time
from dataclasses import Field
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from bokeh.embed import json_item
from bokeh.resources import Resources
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from src.common.errors import UserError
from src.common.files import reason_of, write_text
from src.report import curves, images
from src.report.listing import encoder_of, percent
from src.report.runs import RESULT_KINDS, RunSummary, read, with_distinct_names
from src.run import records
from src.run.layout import Layout
from src.run.records import Record
from src.settings.given import Role, flags_of
from src.settings.scripts import SCRIPTS

TEMPLATE = "page.html"
MOST_CLASSES = 49  # with more, classes have neither own dots nor a confusion matrix
UNTRAINED = "untrained"  # a folder in a run's folder: the evaluation of its encoder before training
PROTOCOLS = {records.LINEAR_SGD: "linear classifier, Adam", records.LINEAR_LBFGS: "linear classifier, L-BFGS",
             records.KNN: "nearest neighbours", records.FINE_TUNED: "fine-tuned network",
             records.SUPERVISED: "supervised, from random weights"}
TIME_SHARE = 20  # between pages after epochs passes so many times the time that a page takes


def write(runs: Sequence[RunSummary], path: Path) -> None:
    """Write the page of ``runs`` to the file ``path``. Raises a UserError where the file cannot be written."""
    text = render(runs)
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({reason_of(error)}); name a run first whose folder can") from None


class PageWriter:
    """A sink of records that keeps the page of the run in ``folder`` up to date.

    Every result and every measurement of the monitor is on the page at once. The page also follows the epochs as long
    as it takes little time.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.next_time = 0.0  # of time.perf_counter: earlier than that no epoch has a page

    def __call__(self, record: Record) -> None:
        begin = time.perf_counter()
        if record["kind"] not in (*RESULT_KINDS, records.MONITOR) and begin < self.next_time:
            return
        write([read(self.folder, quiet=True)], Layout(self.folder).report)
        end = time.perf_counter()
        self.next_time = end + TIME_SHARE * (end - begin)


def render(runs: Sequence[RunSummary]) -> str:
    """Return the page of ``runs`` as HTML. All text from files and names is escaped."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = percent
    runs = with_distinct_names(runs)
    untrained = _untrained(runs)
    drawings = curves.draw(runs)
    with_images = [run for run in (*runs, *untrained) if run.sample]
    classes = dict.fromkeys(name for run in with_images for name in run.sample.classes)
    # A class has one number, and so one look, on all maps.
    class_numbers = {name: number for number, name in enumerate(classes) if len(classes) <= MOST_CLASSES}
    galleries = [images.gallery(run, number, class_numbers) for number, run in enumerate(with_images)]
    figures = [*(json_item(drawing.figure, f"curve-{number}") for number, drawing in enumerate(drawings)),
               *(json_item(gallery.plot, f"map-{gallery.number}") for gallery in galleries)]
    page = environment.get_template(TEMPLATE).render(
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        runs=[{"number": number, "summary": run, "encoder": encoder_of(run), **curves.style_of(number)}
              for number, run in enumerate(runs)],
        sheets=[(run.name, base64.b64encode(run.views).decode()) for run in runs if run.views],
        before={result.protocol_id: result.mean for run in untrained for result in run.results},
        protocols=PROTOCOLS, most_classes=MOST_CLASSES, differing=_differing(runs),
        settings=[_settings(run) for run in runs], curves=drawings, galleries=galleries,
        looks=[(name, *images.look_of(number)) for name, number in class_numbers.items()],
        # Without "<", no name can end the script that the figures stand in.
        figures=json.dumps(figures).replace("<", "\\u003c"),
        bokeh="\n".join(Resources("inline", components=["bokeh"]).js_raw))
    return page.encode("utf-8", "backslashreplace").decode()  # file names need not be UTF-8


def _untrained(runs: Sequence[RunSummary]) -> List[RunSummary]:
    """Return the evaluation of the untrained encoder, which is shown beside a single run that has one."""
    return [read(run.path / UNTRAINED) for run in runs if len(runs) == 1 and Layout(run.path / UNTRAINED).holds_run]


def _settings(run: RunSummary) -> Dict[str, List[Tuple[str, Any, bool]]]:
    """Return name, value and whether the user changed it, of every script's settings, changed ones first."""
    settings = {}
    for script, config in run.configs.items():
        # A default of None follows from other settings; such a setting counts as changed where it has a value.
        defaults = {flag.name: flag.metadata["default"] for flag in _method_flags(script)}
        rows = [(name, value, value != defaults.get(name, value)) for name, value in config["settings"].items()]
        settings[script] = sorted(rows, key=lambda row: not row[2])
    return settings


def _differing(runs: Sequence[RunSummary]) -> List[Tuple[str, str, List[Any]]]:
    """Return script, setting and the value in each run of the settings that are not the same in all runs."""
    rows = [(script, flag.name, [run.configs.get(script, {"settings": {}})["settings"].get(flag.name) for run in runs])
            for script in SCRIPTS for flag in _method_flags(script)]
    return [row for row in rows if any(value != row[2][0] for value in row[2])]


def _method_flags(script: str) -> List[Field]:
    """Return the flags of a script, without those that say where and how it runs."""
    return flags_of(SCRIPTS[script], Role.NETWORK, Role.LEARNING)

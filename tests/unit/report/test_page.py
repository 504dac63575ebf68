"""The page of a run, as text: what is in it, and that nothing of it becomes HTML that was not meant to."""
import json
from html.parser import HTMLParser

import pytest
from report_runs import CONFUSION, evaluated, make, pretrained, sampled

from src.report import curves, page, runs
from src.run import records


class Reader(HTMLParser):
    """Collects the elements of a page, and the texts of table rows."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.rows, self.in_cell = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.in_cell = True
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.in_cell = False

    def handle_data(self, data):
        if self.in_cell:
            self.rows[-1][-1] += data

    def row(self, title):
        return next([text.strip() for text in row] for row in self.rows if row and row[0].strip() == title)


def render(*folders):
    return page.render([runs.read(folder) for folder in folders])


def test_what_is_on_the_page_of_a_run(tmp_path):
    repeated = {"kind": "repeated_eval", "protocol_id": "linear_sgd", "protocol": "by <some> protocol", "images": 30,
                "seeds": [0, 1], "accuracies": [0.7, 0.8], "accuracy_mean": 0.75, "accuracy_std": 0.0707,
                "accuracy_interval": [0.6, 0.87]}
    text = render(make(tmp_path / "run", [*pretrained(4), evaluated(0.7), evaluated(0.8, seed=1), repeated,
                                          evaluated(0.55, "knn", "knn_eval")]))
    found = Reader(text)
    assert found.row("linear classifier, Adam")[1:6] == ["75.00 %", "60.00 % to 87.00 %", "7.07 % of 2", "4", "30"]
    assert found.row("nearest neighbours")[1:4] == ["55.00 %", "45.00 % to 65.00 %", ""]
    assert found.row("square") == ["square", "90.00 %", *map(str, CONFUSION[1])]
    figures = [attributes for tag, attributes in found.elements if tag == "figure"]
    assert len(figures) == 8 and all("over the epochs" in figure["aria-label"] for figure in figures)


def test_settings_that_are_not_the_default_come_first(tmp_path):
    found = Reader(render(make(tmp_path, batch_size=128, temperature=0.5, epoch_size=4)))
    rows = [(row[0].strip(), attributes.get("class")) for row, attributes in zip(
        (row for row in found.rows if row), (attributes for tag, attributes in found.elements if tag == "tr"))]
    marks = [mark for name, mark in rows if name in ("encoder", "width_multiplier", "epoch_size", "learning_rate",
                                                     "batch_size", "temperature", "dataset_name")]
    assert marks == sorted(marks, key=lambda mark: mark is None) and set(marks) == {"changed", None}
    changed = {name for name, mark in rows if mark}
    assert {"encoder", "epoch_size", "learning_rate"} <= changed and not {"batch_size", "temperature"} & changed


def test_several_runs(tmp_path):
    found = Reader(render(make(tmp_path / "one", pretrained(4)), make(tmp_path / "two", pretrained(2), seed=1)))
    assert ["train.py", "seed", "0", "1"] in found.rows and "learning_rate" not in {row[1] for row in found.rows
                                                                                    if row[:1] == ["train.py"]}
    assert [attributes["data-shows"] for tag, attributes in found.elements if "data-shows" in attributes] == [
        "run-0", "run-1"]
    assert found.row("one")[1:] == ["1: 8", "2: 4", "3: 2.667", "4: 2"]


def test_nothing_becomes_html_that_was_not_meant_to(tmp_path):
    folder = make(tmp_path / "<img src=x onerror=alert(1)>",
                  [*pretrained(2), evaluated(0.7), {"kind": "finetune", "epoch": 1, "seed": "</script><b>", "loss": 1}],
                  dataset_name="<i>&")
    sampled(folder)  # which has a class with such a name
    text = render(folder)
    tags = {tag for tag, _ in Reader(text).elements}
    assert not tags & {"b", "i", "img", "some"}
    assert "&lt;b&gt;bar&lt;/b&gt;" in text and "by &lt;some&gt; protocol" in text and "&lt;i&gt;&amp;" in text
    assert text.count("</script>") == text.count("<script")


def test_the_page_asks_nothing_of_a_network(tmp_path):
    found = Reader(render(make(tmp_path, pretrained(2))))
    places = [value for _, attributes in found.elements for name, value in attributes.items()
              if name in ("src", "href", "action", "srcset", "data")]
    assert places and all(place.startswith("#") for place in places)


def test_a_run_without_epochs_needs_no_script(tmp_path):
    text = render(make(tmp_path))
    assert "<script" not in text and "Not evaluated yet" in text and len(text) < 20_000


def test_an_epoch_that_was_trained_again_is_drawn_as_the_last_time(tmp_path):
    run = runs.read(make(tmp_path, [*pretrained(3), *pretrained(1, loss=5.0)]))
    (loss, *_) = curves.draw([run])
    assert loss.points == {tmp_path.name: [(1, 5.0)]}  # what came after it is of the time before


def test_trainings_and_seeds_have_lines_of_their_own(tmp_path):
    def tuned(training, seed):
        return {"kind": "finetune", "epoch": 1, "loss": 2.0, "train_accuracy": 0.5, "seed": seed, "training": training}
    run = runs.read(make(tmp_path / "run", [tuned("a", 0), tuned("a", 1), tuned("b", 0)]))
    for drawn in curves.draw([run]):
        assert list(drawn.points) == ["run, training 1, seed 0", "run, training 1, seed 1", "run, training 2, seed 0"]
    assert [drawn.curve.title for drawn in curves.draw([run])] == ["Loss of fine-tuning",
                                                                  "Training accuracy of fine-tuning"]


def test_where_a_run_was_run_is_no_difference(tmp_path):
    found = Reader(render(make(tmp_path / "one", train_output_path="a"), make(tmp_path / "two", train_output_path="b")))
    assert not any(row[:1] == ["train.py"] for row in found.rows)


def test_the_same_run_twice(tmp_path):
    folder = make(tmp_path / "run", pretrained(2))
    sampled(folder)
    assert Reader(render(folder, folder)).row("run (2)")[1:] == ["1: 8", "2: 4"]


def test_many_classes_have_no_matrix(tmp_path):
    names = [f"class {number}" for number in range(60)]
    result = evaluated(0.7) | {"class_accuracy": dict.fromkeys(names, 0.25), "confusion": [[1] * 60] * 60}
    found = Reader(render(make(tmp_path, [result])))
    assert found.row("class 59") == ["class 59", "25.00 %"]


@pytest.mark.long
def test_a_run_keeps_its_page(tmp_path):
    """After a measurement and a result at once, after an epoch where little time goes into pages."""
    folder, file = make(tmp_path), tmp_path / "report.html"
    keeper, append = page.Keeper(folder), records.appended_to(folder / "metrics.jsonl")
    epoch, measured = pretrained(2), list(pretrained(2))[-1]

    def written_after(record):
        file.unlink(missing_ok=True)
        append(record)
        keeper(record)
        return file.exists()

    assert written_after(next(epoch)) and not written_after(next(epoch))
    assert written_after(measured) and not written_after(measured | {"kind": "linear_classifier"})
    assert written_after(evaluated(0.7)) and "70.00 %" in file.read_text()
    keeper.spent = 0
    assert written_after(measured | {"kind": "pretrain", "loss": 1.0, "contrastive_accuracy": 0.5})
    keeper.spent = page.FREE + 100
    assert not written_after(measured) and written_after(evaluated(0.7))


def test_a_page_that_cannot_be_written_ends_nothing(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(page.logger, "warning", lambda text, *values: said.append(text % values))
    (make(tmp_path) / "config.yaml").write_text("no settings")
    keeper = page.Keeper(tmp_path)
    for _ in range(3):
        keeper(evaluated(0.7))
    assert len(said) == 1 and f"python report.py {tmp_path}" in said[0] and "\n" not in said[0]
    assert not (tmp_path / "report.html").exists()


def test_figures_are_data(tmp_path):
    text = render(make(tmp_path, pretrained(2)))
    figures = json.loads(text.split('id="figures">')[1].split("</script>")[0])
    assert [figure["target_id"] for figure in figures] == [f"curve-{number}" for number in range(len(figures))]

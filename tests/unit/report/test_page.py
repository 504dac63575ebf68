"""The page as text: what is on it, and that no name becomes HTML."""
import json
from html.parser import HTMLParser

import pytest
from report_runs import CONFUSION, evaluated, make, pretrained, repeated, sampled

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


def test_the_numbers_are_those_of_the_records(tmp_path):
    text = render(make(tmp_path / "run", [
        *pretrained(4), evaluated(0.7), evaluated(0.8, seed=1), repeated(0.75, 0.0707),
        evaluated(0.55, "knn", "knn_eval")]))
    content = Reader(text)
    assert content.row("linear classifier, Adam")[1:6] == ["75.00 %", "60.00 % to 90.00 %", "7.07 % of 2", "4", "30"]
    assert content.row("nearest neighbours")[1:4] == ["55.00 %", "45.00 % to 65.00 %", ""]
    assert content.row("square") == ["square", "90.00 %", *map(str, CONFUSION[1])]
    assert content.row("run")[1:] == ["1: 8", "2: 4", "3: 2.667", "4: 2"]  # the values of the first curve
    labels = [attributes["aria-label"] for tag, attributes in content.elements if tag == "figure"]
    assert len(labels) == 8 and all("over the epochs" in label for label in labels)
    figures = json.loads(text.split('id="figures">')[1].split("</script>")[0])
    assert [figure["target_id"] for figure in figures] == [f"curve-{number}" for number in range(8)]


def test_settings_that_were_changed_come_first(tmp_path):
    rows = page._settings(runs.read(make(tmp_path, batch_size=128, temperature=0.5, train_output_path="x")))["train.py"]
    assert {"encoder", "epoch_size", "learning_rate"} <= {name for name, _, changed in rows if changed}
    assert {"batch_size", "temperature", "train_output_path"} <= {name for name, _, changed in rows if not changed}
    assert [changed for _, _, changed in rows] == sorted((changed for _, _, changed in rows), reverse=True)


def test_several_runs_have_curves_over_each_other_and_their_differences(tmp_path):
    content = Reader(render(make(tmp_path / "one", pretrained(4), train_output_path="a"),
                            make(tmp_path / "two", pretrained(2), train_output_path="b", seed=1)))
    # Where a run was run is no difference.
    assert [row for row in content.rows if row[:1] == ["train.py"]] == [["train.py", "seed", "0", "1"]]
    assert [attributes["data-shows"] for tag, attributes in content.elements if "data-shows" in attributes] == [
        "run-0", "run-1"]
    assert content.row("one")[1:] == ["1: 8", "2: 4", "3: 2.667", "4: 2"] and content.row("two")[1:] == ["1: 8", "2: 4"]


def test_no_name_becomes_html(tmp_path):
    folder = make(tmp_path / "<img src=x onerror=alert(1)>",
                  [*pretrained(2), evaluated(0.7), {"kind": "finetune", "epoch": 1, "seed": "</script><b>", "loss": 1}],
                  dataset_name="<i>&")
    sampled(folder)  # has a class with such a name
    text = render(folder)
    assert not {tag for tag, _ in Reader(text).elements} & {"b", "i", "img", "some"}
    assert "&lt;b&gt;bar&lt;/b&gt;" in text and "by &lt;some&gt; protocol" in text and "&lt;i&gt;&amp;" in text
    assert text.count("</script>") == text.count("<script")


def test_the_page_needs_no_network_and_without_figures_no_script(tmp_path):
    content = Reader(render(make(tmp_path / "a", pretrained(2))))
    links = [value for _, attributes in content.elements for name, value in attributes.items()
             if name in ("src", "href", "action", "srcset", "data")]
    assert links and all(link.startswith("#") for link in links)
    text = render(make(tmp_path / "b"))
    assert "<script" not in text and "Not evaluated yet" in text and len(text) < 20_000


def test_a_restarted_training_or_evaluation_leaves_the_same_page(tmp_path):
    evaluation = [{"kind": "linear_classifier", "epoch": epoch, "seed": 0, "loss": 1 / epoch} for epoch in (1, 2)]
    evaluation += [evaluated(0.7), evaluated(0.8, seed=1), repeated(0.75, 0.07)]
    training = list(pretrained(4))
    once = make(tmp_path / "once" / "run", [*training, *evaluation])
    again = make(tmp_path / "again" / "run", [*pretrained(3, loss=9.0), *training[1:], *evaluation[:4], *evaluation])
    first, second = (render(folder).split("<main>")[1].split("<script>")[0] for folder in (
        make(once, training[:1]), make(again, training[:1])))
    assert first == second and "75.00 %" in first
    (loss, *_) = curves.draw([runs.read(once)])
    assert loss.points == {"run": [(1, 8.0)]}  # epoch 1 was trained again, and the later epochs no longer count


def test_trainings_and_seeds_have_lines_of_their_own(tmp_path):
    run = runs.read(make(tmp_path / "run", [
        {"kind": "finetune", "epoch": 1, "loss": 2.0, "seed": seed, "training": training}
        for training, seed in (("a", 0), ("a", 1), ("b", 0))]))
    (drawing,) = curves.draw([run])
    assert list(drawing.points) == ["run, a, seed 0", "run, a, seed 1", "run, b, seed 0"]


def test_many_classes_have_no_matrix(tmp_path):
    names = [f"class {number}" for number in range(60)]
    result = evaluated(0.7) | {"class_accuracy": dict.fromkeys(names, 0.25), "confusion": [[1] * 60] * 60}
    assert Reader(render(make(tmp_path, [result]))).row("class 59") == ["class 59", "25.00 %"]


def test_a_run_has_its_page_while_it_goes_on(tmp_path, monkeypatch):
    folder, file, clock = make(tmp_path), tmp_path / "report.html", [100.0]

    def write_for_a_second(path, text):
        path.write_text(text)
        clock[0] += 1

    monkeypatch.setattr(page.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(page, "write_text", write_for_a_second)
    writer, append = page.PageWriter(folder), records.appended_to(folder / "metrics.jsonl")
    epoch, _, measured = pretrained(2)

    def is_written_after(record):
        file.unlink(missing_ok=True)
        append(record)
        writer(record)
        return file.exists()

    assert is_written_after(epoch) and not is_written_after(epoch)
    assert is_written_after(measured) and is_written_after(measured)
    assert is_written_after(evaluated(0.7)) and "70.00 %" in file.read_text()
    clock[0] += page.TIME_SHARE - 1
    assert not is_written_after(epoch)
    clock[0] += 2  # a page takes 1 s, and the wait 20 s
    assert is_written_after(epoch)


@pytest.mark.parametrize("names, expected", [(("a/x", "b/y"), ["x", "y"]), (("a/x", "b/x"), ["a/x", "b/x"])])
def test_runs_of_one_name_are_told_apart(tmp_path, monkeypatch, names, expected):
    monkeypatch.chdir(tmp_path)
    folders = [make(tmp_path / name, pretrained(1)).relative_to(tmp_path) for name in names]
    assert [run.name for run in runs.with_distinct_names([runs.read(folder) for folder in folders])] == expected

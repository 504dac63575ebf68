"""Folders of runs whose files are damaged or hostile: one line, or a page that is harmless."""
import json
import re

import numpy as np
import pytest
from helpers import call_script, done, state_of
from markupsafe import escape
from refusals import case, link_loop, pipe, refuse
from report_runs import CLASSES, evaluated, make, pretrained, sampled

HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(1)>'


@pytest.fixture
def run(tmp_path):
    return make(tmp_path / "run", [*pretrained(4), evaluated(0.7)])


@pytest.mark.parametrize("name, prepare", [
    case("nothing", "none", lambda place: None),
    case("empty", "empty", lambda place: (place / "empty").mkdir()),
    case("link loop", "loop", lambda place: link_loop(place / "loop")),
    case("pipes", "pipes", lambda place: ((place / "pipes").mkdir(), pipe(place / "pipes" / "metrics.jsonl"),
                                          pipe(place / "pipes" / "config.yaml"))),
    case("control characters", "\x1b[31m\n", lambda place: None)])
def test_what_is_no_run(tmp_path, name, prepare):
    prepare(tmp_path)
    refuse(("report.py", name), tmp_path, "^report.py: .*: holds no run", "name the --train_output_path")


@pytest.mark.parametrize("name", ["none", "empty"])
def test_lists_of_no_runs(tmp_path, name):
    (tmp_path / "empty").mkdir()
    refuse(("report.py", "--list", name), tmp_path, f"--list: .*{name}", "takes a folder|name the folder")


@pytest.mark.parametrize("content", [
    case("empty", b""), case("a list", b"settings: [1, 2]"), case("no YAML", b"settings: ["),
    case("binary", b"\xff\xfe\0\0"),
    case("a Python object", b"settings: !!python/object/apply:os.system ['touch made-by-yaml']")])
def test_settings(run, tmp_path, content):
    (run / "config.yaml").write_bytes(content)
    refuse(("report.py", "run"), tmp_path, "report.py: run/config.yaml: ", "")
    result = call_script("report.py", "--list", ".", cwd=tmp_path)
    assert result.returncode == 2 and "warning: left out: run/config.yaml" in result.stdout


def with_objects(path):
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, "classes": np.array([{"a": 1}], object)})


@pytest.mark.parametrize("damage", [
    case("empty", lambda path: path.write_bytes(b"")),
    case("truncated", lambda path: path.write_bytes(path.read_bytes()[:999])),
    case("damaged", lambda path: path.write_bytes(path.read_bytes()[:900] + bytes(50) + path.read_bytes()[950:])),
    case("objects", with_objects)])
def test_samples(run, tmp_path, damage):
    sampled(run)
    damage(run / "sample.npz")
    refuse(("report.py", "run"), tmp_path, "report.py: run/sample.npz: is damaged", "remove it, and")


@pytest.mark.parametrize("line", [case("cut", json.dumps(evaluated(0.7))[:50]), case("zeros", "\0" * 30)])
def test_records(run, tmp_path, line):
    with (run / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    out = done(call_script("report.py", "run", cwd=tmp_path))
    assert re.search(r"^warning: run/metrics.jsonl: 1 lines", out, re.M)
    assert out.replace("\n", "").isprintable()


@pytest.mark.parametrize("command", [("train.py",), ("train.py", "--resume"), ("linear_eval.py",), ("finetune.py",)])
@pytest.mark.parametrize("prepare", [lambda path: path.mkdir(), pipe], ids=["folder", "pipe"])
def test_records_that_cannot_be_written(finished, tmp_path, command, prepare):
    (tmp_path / "run").mkdir()
    prepare(tmp_path / "run" / "metrics.jsonl")
    encoder = () if command[0] == "train.py" else ("--encoder_checkpoint_path", finished / "run")
    refuse((*command, *encoder, "--train_dataset_path", finished / "data", "--train_output_path", "run"), tmp_path,
           "--train_output_path: run/metrics.jsonl is not a file", "name another folder")


def test_nothing_in_a_page_is_run(tmp_path):
    classes = dict.fromkeys((HOSTILE, "a", "b"), 0.5)
    hostile = {"protocol": HOSTILE, "protocol_id": HOSTILE, "dataset": HOSTILE, "class_accuracy": classes}
    run = make(tmp_path / f"run {HOSTILE.replace('/', '')}", [
        *pretrained(4, training=HOSTILE), {**evaluated(0.5), **hostile}, {**evaluated(0.4), HOSTILE: HOSTILE}],
        dataset_name=HOSTILE, encoder=HOSTILE, **{HOSTILE: HOSTILE})
    assert CLASSES[2] == "<b>bar</b>"
    sampled(run)
    done(call_script("report.py", run, cwd=tmp_path))
    page = (run / "report.html").read_text()
    assert page.count(str(escape(HOSTILE))) > 5
    assert "<img src=x" not in page and "<b>bar" not in page
    assert len(re.findall("<script", page)) == len(re.findall("</script>", page)) == 3  # bokeh, the figures, the page's


def test_names_that_are_no_utf8(tmp_path):
    run = make(tmp_path / "run", [*pretrained(2), {
        **evaluated(0.5), "class_accuracy": {"caf\udce9": 1, "b": 0, "c": 0}}])
    sampled(run)
    done(call_script("report.py", "run", cwd=tmp_path))
    assert "caf\\udce9" in (run / "report.html").read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written(run, tmp_path):
    (run / "report.html").mkdir()
    before = state_of(tmp_path)
    refuse(("report.py", "run"), tmp_path, "run/report.html: cannot be written", "")
    assert state_of(tmp_path) == before

"""Folders of runs whose files are damaged or hostile, given to report.py: one line, or a page that is harmless."""
import io
import json
import re
import zipfile

import numpy as np
import pytest
from helpers import call_script, done, state_of
from markupsafe import escape
from refusals import SECONDS, case, link_loop, no_longer_than, pipe, refuse
from report_runs import CLASSES, evaluated, make, pretrained, sampled

HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(1)>'


@pytest.fixture
def run(tmp_path):
    return make(tmp_path / "run", [*pretrained(4), evaluated(0.7)])


# --- what is no run ---

@pytest.mark.parametrize("name, prepare, culprit, remedy", [
    case("nothing", "none", lambda place: None, "none: holds no run", "name the --train_output_path"),
    case("empty", "empty", lambda place: (place / "empty").mkdir(), "empty: holds no run",
         "name the --train_output_path"),
    case("file", "file", lambda place: (place / "file").write_text("x"), "file: holds no run",
         "name the --train_output"),
    case("link loop", "loop", lambda place: link_loop(place / "loop"), "loop: holds no run", "name the --train_output"),
    case("pipes", "pipes", lambda place: ((place / "pipes").mkdir(), pipe(place / "pipes" / "metrics.jsonl"),
                                          pipe(place / "pipes" / "config.yaml")), "pipes: holds no run", "name the"),
    case("name too long", "x" * 300, lambda place: None, "x: .*(too long|holds no run)", "name|check"),
    case("control characters", "\x1b[31m\n", lambda place: None, r"\\x1b\[31m\\n: holds no run", "name the"),
])
def test_what_is_no_run(tmp_path, name, prepare, culprit, remedy):
    prepare(tmp_path)
    refuse(("report.py", name), tmp_path, culprit, remedy)


@pytest.mark.parametrize("name", ["none", "empty"])
def test_lists_of_no_runs(tmp_path, name):
    (tmp_path / "empty").mkdir()
    refuse(("report.py", "--list", name), tmp_path, f"--list: .*{name}", "takes a folder|name the folder")


# --- config.yaml ---

def bomb(levels=12):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, levels)]
    return "settings: {}\n" + "\n".join(lines)


CONFIGS = [
    case("empty", "", "is damaged"),
    case("no settings", "versions: {}", "is damaged"),
    case("a list", "settings: [1, 2]", "is damaged"),
    case("no YAML", "settings: [", "is damaged"),
    case("binary", b"\xff\xfe\0\0", "is not text in UTF-8"),
    case("a Python object", "settings: !!python/object/apply:os.system ['touch made-by-yaml']", "is damaged"),
    case("deep nesting", "settings: " + "[" * 1_000, "is damaged"),
    case("aliases that grow", bomb(), "is damaged"),
    case("a large file", "settings: {a: 1}\n" + 2**16 * "#", "has more than 65536 bytes"),
]


@pytest.mark.parametrize("content, culprit", CONFIGS)
def test_settings(run, tmp_path, content, culprit):
    (run / "config.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    refuse(("report.py", "run"), tmp_path, f"report.py: run/config.yaml: {culprit}",
           "restore the file, or remove it")
    result = call_script("report.py", "--list", ".", cwd=tmp_path)
    assert result.returncode == 2 and "warning: left out: run/config.yaml" in result.stdout


# --- sample.npz ---

def arrays(**changes):
    """Return what writes a sample with other parts."""
    def change(path):
        with np.load(path) as found:
            parts = {name: found[name] for name in found.files}
        for name, value in changes.items():
            parts[name] = value(parts[name])
        np.savez(path, **parts)
    return change


def without_pictures(path):
    with np.load(path) as found:
        parts = {name: found[name] for name in found.files if name != "pictures"}
    np.savez(path, **parts)


def zip_bomb(path):
    """Half a gigabyte of zeros in as many kilobytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("pictures.npy", "w") as stream:
        for _ in range(512):
            stream.write(bytes(2**20))


def with_header(shape):
    def write(path):
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(path, "a") as file:
            file.writestr("pictures.npy", stream.getvalue())
    return write


@pytest.mark.parametrize("damage", [
    case("empty", lambda path: path.write_bytes(b"")),
    case("text", lambda path: path.write_text("no archive")),
    case("truncated", lambda path: path.write_bytes(path.read_bytes()[:999])),
    case("damaged", lambda path: path.write_bytes(path.read_bytes()[:900] + bytes(50) + path.read_bytes()[950:])),
    case("one array", lambda path: (np.save(path.with_name("x.npy"), np.zeros(3)),
         path.with_name("x.npy").rename(path))),
    case("no pictures", without_pictures),
    case("objects", arrays(classes=lambda old: np.array([{"a": 1}], object))),
    case("another shape", arrays(pictures=lambda old: old[:, :, :, 0])),
    case("another type", arrays(pictures=lambda old: old.astype(float))),
    case("fewer labels", arrays(labels=lambda old: old[1:])),
    case("labels of no class", arrays(labels=lambda old: old + 9)),
    case("negative labels", arrays(labels=lambda old: -old)),
    case("numbers of no image", arrays(asked=lambda old: old + 99)),
    case("a number for the neighbours", arrays(nearest_labels=lambda old: np.int32(3))),
    case("features of nothing", arrays(features=lambda old: old.astype(str))),
    case("large when unpacked", zip_bomb),
    case("absurd size", with_header((2**40, 2**10))),
])
def test_samples(run, tmp_path, damage):
    sampled(run)
    damage(run / "sample.npz")
    refuse(("report.py", "run"), tmp_path, "report.py: run/sample.npz: is damaged", "remove it, and")


# --- records: what is none is left out, with a warning ---

def record(**changes):
    return json.dumps({**evaluated(0.7), **changes})


def epoch(**changes):
    return json.dumps({**next(pretrained(1)), **changes})


@pytest.mark.parametrize("line", [
    case("cut", record()[:50]), case("zeros", "\0" * 30), case("control characters", "\x1b[31m"), case("text", "x"),
    case("a list", "[1, 2]"), case("a number", "3"), case("no kind", "{}"), case("a number for the kind",
         '{"kind": 3}'),
    case("deep nesting", "[" * 100_000), case("an endless number", '{"kind": "pretrain", "epoch": ' + "9" * 5000 + "}"),
    case("a number beyond floats", epoch(loss=0).replace('"loss": 0', '"loss": 1e999')),
    case("NaN", epoch(loss=float("nan"))), case("a huge epoch", epoch(epoch=10**300)), case("a text",
         epoch(loss="low")),
    case("a list for a loss", epoch(loss=[1])), case("a boolean", epoch(loss=True)), case("no accuracy",
         record(accuracy=None)),
    case("a huge accuracy", record(accuracy=10**400)), case("a list for a protocol", record(protocol_id=["a"])),
    case("a number for a protocol", record(protocol=3)), case("a text for a seed", record(seed="0")),
    case("an interval of one", record(accuracy_interval=[1])), case("texts for classes", record(class_accuracy=["a"])),
    case("a text for a class", record(class_accuracy={"a": "b"})), case("a matrix of texts", record(confusion=[["a"]])),
    case("a crooked matrix", record(confusion=[[1, 2], [3]])), case("a number for a matrix", record(confusion=3)),
    case("a list for a training", epoch(training=[1]))])
def test_records(run, tmp_path, line):
    with (run / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    with no_longer_than(2 * SECONDS):
        out = done(call_script("report.py", "run", cwd=tmp_path))
    assert re.search(r"^warning: run/metrics.jsonl: left out is what is no record, in 1 lines", out, re.M)
    assert out.replace("\n", "").isprintable()


# --- what is hostile is shown as it is ---

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
    refuse(("report.py", "run"), tmp_path, "run/report.html: cannot be written", "name a run first whose folder can")
    assert state_of(tmp_path) == before

"""Settings that hypothesis makes up: whatever is read is a value that means the same again, or one line of a user's
error. tests/long/fuzz_readers.py does it for as long as one likes.
"""
import copy
import json

import pytest
import yaml
from helpers import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from src.common.errors import UserError, printable
from src.distributed import rank_table
from src.settings.given import Given, flags_of
from src.settings.parsing import parse, read_recipe
from src.settings.scripts import SCRIPTS, TrainSettings
from src.settings.types import BOOLEAN, PATH, URL

ANY_TEXT = st.text(st.characters())  # surrogates too, as in names that are no UTF-8
RECIPES = [path.read_bytes() for path in sorted((ROOT / "configs").glob("*.yaml"))]
TABLES = [path.read_text() for path in sorted((ROOT / "tests" / "rank_tables").glob("*.json"))]
FLAGS = [(script, field) for script, settings_type in SCRIPTS.items() for field in flags_of(settings_type)]
PIECES = [b"", b": ", b"\n", b"- ", b"[", b"}", b"&a ", b"*a", b"!!", b'"', b"NaN", b"1e999", b"\\u0000"]
unhurried = settings(deadline=None)  # the machine may be busy with other tests
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(
    ["1.0", "completed", "0", "16", "10.0.0.1", "::1", "fe80::1%0"]))
JSON = st.recursive(SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(
    st.one_of(st.text(), st.sampled_from(["server_list", "device", "rank_id", "device_ip"])), inner, max_size=4)))
YAML = st.recursive(st.one_of(SCALARS, st.dates(), st.datetimes(), st.binary()), lambda inner: st.one_of(
    st.lists(inner, max_size=4), st.sets(st.integers(), max_size=3), st.dictionaries(
        st.one_of(st.text(), st.integers(), st.none(), st.sampled_from([field.name for _, field in FLAGS])), inner)))


def outcome(call, *arguments):
    """Return what a call returns, or None after a user's error, which must have one line to say."""
    try:
        return call(*arguments)
    except UserError as error:
        line = printable(str(error))
        assert line.strip() and line.isprintable()
        return None


@st.composite
def damaged(draw, originals):
    """One of ``originals``, which are bytes, with a few places changed, lost or doubled."""
    content = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(content)))
        end = draw(st.integers(begin, min(len(content), begin + 40)))
        there = content[begin:end]
        content = content[:begin] + draw(st.one_of(
            st.binary(max_size=8), st.just(there + there), st.just(there[::-1]),
            st.sampled_from(PIECES))) + content[end:]
    return content


@unhurried
@given(st.sampled_from(FLAGS), ANY_TEXT)
def test_the_value_of_a_flag(flag, text):
    script, field = flag
    found = outcome(parse, SCRIPTS[script], [f"--{field.name}={text}"])
    if found:
        value = found.chosen[field.name]
        assert field.metadata["takes"].convert(str(value)) == value


@unhurried
@given(st.sampled_from(FLAGS), st.from_regex(r"[-+]?[0-9._eE]*\Z") | st.integers().map(str) | st.floats().map(repr))
def test_what_looks_like_a_number(flag, text):
    script, field = flag
    found = outcome(parse, SCRIPTS[script], [f"--{field.name}", text])
    if found and field.metadata["takes"] not in (PATH, URL):
        assert found.chosen[field.name] == float(text)


@unhurried
@given(st.sampled_from(sorted(SCRIPTS)), st.lists(st.one_of(
    ANY_TEXT, ANY_TEXT.map(lambda text: f"--{text}"), st.sampled_from([f"--{field.name}" for _, field in FLAGS])),
    max_size=6))
def test_a_command_line(script, argv):
    try:
        found = outcome(parse, SCRIPTS[script], argv)
    except SystemExit as ended:
        assert ended.code == 0 and any(text.startswith("-") for text in argv)  # --help, or -h among other letters
    else:
        assert found is None or isinstance(found, Given)


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """A function that has a reader read some bytes as a file."""
    file = tmp_path_factory.mktemp("fuzz") / "file"

    def call(reader, content):
        file.write_bytes(content)
        return outcome(reader, str(file))
    return call


def recipe(path):
    return read_recipe(path, TrainSettings)


def table(path):
    return rank_table.read(path, "RANK_TABLE_FILE")


@unhurried
@given(content=st.one_of(st.binary(), st.text().map(str.encode), damaged(RECIPES)))
def test_a_recipe_of_any_bytes(read, content):
    found = read(recipe, content)
    if found:
        assert found == read(recipe, yaml.safe_dump(found).encode())


@settings(unhurried, max_examples=50)
@given(document=YAML)
def test_a_recipe_of_any_values(read, document):
    content = yaml.safe_dump(document, allow_unicode=True).encode()
    found = read(recipe, content)
    assert found is None or isinstance(document, dict) and found.keys() <= document.keys()


@st.composite
def good_recipes(draw):
    """Some flags of train.py with values that they take."""
    fields = draw(st.lists(st.sampled_from([field for field in flags_of(TrainSettings) if field.name != "config"]),
                           min_size=1, max_size=8, unique_by=lambda field: field.name))
    return {field.name: draw(_values(field.metadata["takes"])) for field in fields}


def _values(takes):
    if takes is BOOLEAN:
        return st.booleans()
    if takes in (PATH, URL):
        # The line breaks of other times become spaces where PyYAML writes them as they are.
        return st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\x85\u2028\u2029"), min_size=1,
                       max_size=60)
    if takes.expects.startswith("one of "):
        return st.sampled_from(takes.expects[len("one of "):].split(", "))
    values = st.integers(0, 2**32) if takes.expects.startswith("an integer") else st.floats(0, 2000)
    return values.filter(lambda value: _is_taken(takes, value))


def _is_taken(takes, value):
    try:
        return takes.convert(str(value)) == value
    except ValueError:
        return False


@settings(unhurried, max_examples=50)
@given(values=good_recipes(), allow_unicode=st.booleans())
def test_a_good_recipe_is_what_was_written(read, values, allow_unicode):
    assert read(recipe, yaml.safe_dump(values, allow_unicode=allow_unicode).encode()) == values


@unhurried
@given(content=st.one_of(st.binary(), st.text().map(str.encode), damaged([text.encode() for text in TABLES])))
def test_a_rank_table_of_any_bytes(read, content):
    survives_writing(read, read(table, content))


@settings(unhurried, max_examples=50)
@given(document=JSON)
def test_a_rank_table_of_any_values(read, document):
    survives_writing(read, read(table, json.dumps(document).encode()))


@settings(unhurried, max_examples=50)
@given(text=st.sampled_from(TABLES), data=st.data())
def test_a_rank_table_with_other_values_in_it(read, text, data):
    document = copy.deepcopy(json.loads(text))
    for _ in range(data.draw(st.integers(1, 3))):
        part = document
        while True:
            names = range(len(part)) if isinstance(part, list) else sorted(part)
            if not names:
                break
            name = data.draw(st.sampled_from(names))
            if not isinstance(part[name], (list, dict)) or data.draw(st.integers(0, 4)) == 0:
                part[name] = data.draw(JSON)
                break
            part = part[name]
    survives_writing(read, read(table, json.dumps(document).encode()))


def survives_writing(read, found):
    """Check that a rank table, where there is one, is the same after it was written."""
    if found:
        assert sorted(device.rank_id for device in found.devices) == list(range(found.size))
        assert read(table, rank_table.as_json(found).encode()) == found

"""Settings that hypothesis makes up: readers return values that mean the same again, or raise a UserError of one line.

tests/long/fuzz_readers.py does the same for as long as one likes.
"""
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

ANY_TEXT = st.text(st.characters())  # surrogates too, as in names that are no UTF-8
RECIPES = [path.read_bytes() for path in sorted((ROOT / "configs").glob("*.yaml"))]
TABLES = [path.read_bytes() for path in sorted((ROOT / "tests" / "rank_tables").glob("*.json"))]
FLAGS = [(script, field) for script, settings_type in SCRIPTS.items() for field in flags_of(settings_type)]
unhurried = settings(deadline=None)  # the machine may be busy with other tests
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text())
DOCUMENTS = st.recursive(SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.one_of(
    st.text(), st.sampled_from(["server_list", "device", "rank_id", "device_ip", "seed", "encoder"])), inner)))


def outcome(call, *arguments):
    """Return what a call returns, or None after a UserError of one line."""
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
        part = content[begin:end]
        content = content[:begin] + draw(st.one_of(st.binary(max_size=8), st.just(part + part))) + content[end:]
    return content


@unhurried
@given(st.sampled_from(FLAGS), ANY_TEXT | st.from_regex(r"[-+]?[0-9._eE]*\Z") | st.floats().map(repr))
def test_the_value_of_a_flag(flag, text):
    script, field = flag
    parsed = outcome(parse, SCRIPTS[script], [f"--{field.name}={text}"])
    if parsed:
        value = parsed.chosen[field.name]
        assert field.metadata["takes"].convert(str(value)) == value
        assert isinstance(value, (str, bool)) or value == float(text)


@unhurried
@given(st.sampled_from(sorted(SCRIPTS)), st.lists(st.one_of(
    ANY_TEXT, ANY_TEXT.map(lambda text: f"--{text}"), st.sampled_from([f"--{field.name}" for _, field in FLAGS])),
    max_size=6))
def test_a_command_line(script, argv):
    try:
        parsed = outcome(parse, SCRIPTS[script], argv)
    except SystemExit as ended:
        assert ended.code == 0 and any(text.startswith("-") for text in argv)  # --help, or -h among other letters
    else:
        assert parsed is None or isinstance(parsed, Given)


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """A function that writes bytes to a file and calls a reader with it."""
    file = tmp_path_factory.mktemp("fuzz") / "file"

    def call(reader, content, *arguments):
        file.write_bytes(content)
        return outcome(reader, str(file), *arguments)
    return call


@unhurried
@given(content=st.one_of(st.binary(), damaged(RECIPES), DOCUMENTS.map(lambda value: yaml.safe_dump(value).encode())))
def test_a_recipe_of_any_bytes(read, content):
    values = read(read_recipe, content, TrainSettings)
    if values:
        again = yaml.safe_dump({name: str(value) for name, value in values.items()}).encode()
        assert read(read_recipe, again, TrainSettings) == values


@unhurried
@given(content=st.one_of(st.binary(), damaged(TABLES), DOCUMENTS.map(lambda value: json.dumps(value).encode())))
def test_a_rank_table_of_any_bytes(read, content):
    table = read(rank_table.read, content, "RANK_TABLE_FILE")
    assert table is None or sorted(device.rank_id for device in table.devices) == list(range(table.size))

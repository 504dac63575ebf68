"""What travels with an exported model comes back as it was, or is refused."""
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.common.errors import UserError
from src.deploy import signature
from src.deploy.signature import Signature

ABOUT = Signature("uint8", 32, 37, 4, 128, ("cat", "Hündchen", "猫"), "cifar10")
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)


@given(st.lists(st.text()), st.integers(1, 1000), st.integers(0, 1000))
def test_it_comes_back(classes, side, margin):
    about = Signature("float32", side, side + margin, 1, 7, tuple(classes), "shapes")
    assert Signature.of(about.text(), "x") == about
    encoder = Signature("uint8", side, side + margin, 1, 7, None, "shapes")
    assert Signature.of(encoder.text(), "x") == encoder


@given(st.text() | JSON.map(json.dumps))
def test_anything_else_is_refused(text):
    with pytest.raises(UserError, match="x: what it says of its images is damaged .*; export it again"):
        Signature.of(text, "x")


@given(st.sampled_from(sorted(json.loads(ABOUT.text()))), JSON)
def test_a_value_that_makes_no_sense_is_refused_or_is_taken_as_it_is(name, value):
    values = {**json.loads(ABOUT.text()), name: value}
    try:
        found = Signature.of(json.dumps(values), "x")
    except UserError:
        return
    assert json.loads(found.text()) == values


def test_a_file_keeps_its_own(tmp_path):
    model, other = tmp_path / "a.mindir", tmp_path / "b.mindir"
    model.write_bytes(b"weights")
    signature.write_beside(model, ABOUT)
    assert signature.read_beside(model) == ABOUT
    other.write_bytes(b"other weights")
    with pytest.raises(UserError, match="b.mindir: has no b.mindir.json beside it"):
        signature.read_beside(other)
    signature.beside(model).rename(signature.beside(other))
    with pytest.raises(UserError, match="b.mindir: b.mindir.json beside it is another file's"):
        signature.read_beside(other)
    Path(signature.beside(other)).write_bytes(b"\xff\0")
    with pytest.raises(UserError, match="is damaged"):
        signature.read_beside(other)

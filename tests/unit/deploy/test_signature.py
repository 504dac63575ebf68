"""The signature of an exported model comes back as it was, or is refused."""
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.common.errors import UserError
from src.deploy.signature import Signature

ABOUT = Signature("uint8", 32, 37, 4, 128, ("cat", "Hündchen", "猫", "caf\udce9"), "cifar10")
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)


@pytest.mark.parametrize("classes", [ABOUT.classes, None])
def test_it_comes_back(classes):
    about = Signature("float32", 32, 37, 1, 7, classes, "shapes")
    about.text().encode("ascii")  # names of folders may be no UTF-8
    assert Signature.of(about.text(), "x") == about


@given(st.text() | JSON.map(json.dumps))
def test_anything_else_is_refused(text):
    with pytest.raises(UserError, match="^x: .*damaged"):
        Signature.of(text, "x")


@pytest.mark.parametrize("change", [{"dtype": "int8"}, {"side": "32"}, {"batch_size": 0}, {"classes": [1]}])
def test_a_damaged_value_is_refused(change):
    with pytest.raises(UserError, match="^x: .*damaged"):
        Signature.of(json.dumps({**json.loads(ABOUT.text()), **change}), "x")

"""What the dry runs share: the stand-ins for CANN's libraries, and the train steps that were compiled."""
import os
import shutil

import pytest
from ascend import budgets
from ascend import stand_ins as making

from src.common.files import one_at_a_time


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory):
    """The folder of the stand-ins; where they cannot be made, the tests are skipped."""
    if making.why_not():
        pytest.skip(making.why_not())
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "stand_ins"
    with one_at_a_time(folder):  # several workers share them
        if not folder.exists():
            unfinished = folder.with_name("unfinished_stand_ins")
            shutil.rmtree(unfinished, ignore_errors=True)
            making.build(unfinished)
            unfinished.rename(folder)
    return folder


@pytest.fixture(scope="module")
def compiled(stand_ins):
    """Return a function that compiles a configuration of the budgets for one rank, once, and gives what was counted."""
    runs = {}

    def run(name, rank=0):
        if (name, rank) not in runs:
            runs[name, rank] = budgets.compiled(stand_ins, name, rank)
        assert runs[name, rank].status == 0, runs[name, rank].said
        return runs[name, rank]
    return run

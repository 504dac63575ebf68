"""The notebook runs, and both its saved and its new outputs show what its text says."""
import re

import pytest
from helpers import ROOT

pytestmark = pytest.mark.long

nbclient = pytest.importorskip("nbclient")  # not required for Python 3.9
nbformat = pytest.importorskip("nbformat")
NOTEBOOK = ROOT / "docs" / "first_steps.ipynb"


def shown(notebook):
    """Return the text and the number of pictures in the outputs of the cells, which must have no errors."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    text = "".join(output.get("text", "") for output in outputs)
    return text, sum("image/png" in output.get("data", {}) or "image/jpeg" in output.get("data", {})
                     for output in outputs)


def check(notebook):
    text, pictures = shown(notebook)
    share = {name: float(value) for name, value in re.findall(r"^((?:kNN|linear), \w+): (\d+\.\d)%$", text, re.M)}
    assert pictures == 3
    assert share["kNN, untrained"] < 40 and share["kNN, trained"] > share["kNN, untrained"] + 20
    assert share["linear, untrained"] < 50 and share["linear, trained"] > 75


def test_the_notebook_runs_and_the_network_learns():
    notebook = nbformat.read(NOTEBOOK, 4)
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    check(notebook)


def test_the_saved_outputs_are_complete():
    check(nbformat.read(NOTEBOOK, 4))

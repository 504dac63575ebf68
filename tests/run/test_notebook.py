"""The notebook runs, and its saved outputs show what its text says."""
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


def accuracies(text):
    return {name: float(value) for name, value in re.findall(r"^((?:kNN|linear), \w+): (\d+\.\d)%$", text, re.M)}


def test_the_notebook_runs():
    """On a tenth of the training images: whether the network learns, the saved outputs and the quickstart show."""
    notebook = nbformat.read(NOTEBOOK, 4)
    (loading,) = (cell for cell in notebook.cells if "dataset.load(" in cell.source)
    loading.source += "\nimages = images.first(1000)"
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    text, pictures = shown(notebook)
    assert pictures == 3 and len(accuracies(text)) == 4


def test_the_saved_outputs_are_complete():
    text, pictures = shown(nbformat.read(NOTEBOOK, 4))
    share = accuracies(text)
    assert pictures == 3
    assert share["kNN, untrained"] < 40 and share["kNN, trained"] > share["kNN, untrained"] + 20
    assert share["linear, untrained"] < 50 and share["linear, trained"] > 75

"""The order of imports: a module imports from its own layer and from the layers below it."""
import ast
import subprocess
import sys

import pytest
from helpers import ROOT

LAYERS = ("common", "settings", "distributed", "device", "data", "layers", ("dataset", "resnet", "simclr_model",
          "nt_xent", "lr_generator", "optimizer"), "run", "report", "weights", "evaluation", "training", "deploy")
HEIGHT = {name: height for height, layer in enumerate(LAYERS)
          for name in ([layer] if isinstance(layer, str) else layer)}
FILES = sorted(file.relative_to(ROOT) for file in (ROOT / "src").rglob("*.py"))
MODULES = {".".join(file.with_suffix("").parts[1:]): file for file in FILES}


def imported(file):
    """Return the names below src that a file imports anywhere, such as run.checkpoint."""
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "src":
            yield from (f"{node.module}.{alias.name}"[len("src."):] for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name[len("src."):] for alias in node.names if alias.name.startswith("src."))


def modules(file):
    """Return the modules of src that a file imports, or from which it imports a name."""
    for name in imported(file):
        module = name if name in MODULES else name.rpartition(".")[0]
        if module in MODULES:
            yield module


def test_src_has_the_names_that_the_house_page_lists():
    names = {path.stem for path in (ROOT / "src").iterdir() if not path.name.startswith(("_", "."))}
    assert names == set(HEIGHT) and len(names) == 18


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_point_down(file):
    if file.name == "__init__.py":
        assert (ROOT / file).read_text() == ""
        return
    own = file.relative_to("src").parts[0].removesuffix(".py")
    for name in imported(file):
        assert HEIGHT[name.split(".")[0]] <= HEIGHT[own], f"{file} imports src.{name}"


def test_no_modules_import_each_other():
    graph = {file: {MODULES[name] for name in modules(file)} for file in FILES}
    done = set()
    while len(done) < len(graph):
        free = {file for file in graph if file not in done and graph[file] <= done | {file}}
        assert free, f"modules that import each other: {sorted(map(str, graph.keys() - done))}"
        done |= free


@pytest.mark.parametrize("name", ["settings", "run.layout", "run.records", "report", "dataset", "run.preparing"])
def test_mindspore_is_not_imported_before_the_environment_is_set(name):
    code = f"""
import importlib, pkgutil, sys
module = importlib.import_module("src.{name}")
for other in pkgutil.iter_modules(getattr(module, "__path__", [])):
    importlib.import_module(f"src.{name}.{{other.name}}")
imported = {{"mindspore", "torch", "sklearn"}} & sys.modules.keys()
assert not imported, imported
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr

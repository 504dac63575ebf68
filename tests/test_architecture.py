"""The order of the modules: data flows one way."""
import ast
import re

from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
ORDER = re.findall(r"\w+\.py", README.split("\nsrc/  ")[1].split("\ntests/")[0])


def imported_from_src(file):
    """Return the modules of src that a file imports at its top."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module == "src":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("src."):
            yield node.module.split(".")[1]


def test_the_readme_lists_every_module():
    assert sorted(ORDER) == sorted(file.name for file in (ROOT / "src").glob("*.py") if file.name != "__init__.py")


def test_imports_point_up_the_readmes_list():
    for position, name in enumerate(ORDER):
        later = {f"{module}.py" for module in imported_from_src(ROOT / "src" / name)} - set(ORDER[:position])
        assert not later, f"{name} imports {later}, which stand below it"

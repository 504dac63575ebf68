"""The pages are true of the tree: what they name is there, and their links lead somewhere."""
import json
import re

import communication
import pytest
from helpers import ROOT

PAGES = sorted(path for folder in (ROOT, ROOT / "docs", ROOT / "benchmarks") for path in folder.glob("*.md"))


def anchors(page):
    """Return the anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for heading in re.findall(r"^#+ (.+)$", text, re.M):
        yield re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page):
    named = re.findall(r"`((?:src|docs|tests|benchmarks|scripts|configs)/[\w./-]+)`", page.read_text(encoding="utf-8"))
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing, f"{page.name} names {missing}"


def test_the_tables_of_communication_are_what_was_counted():
    saved = json.loads((ROOT / "benchmarks" / "results" / "communication.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")
    for table in communication.tables({int(devices): found for devices, found in saved["devices"].items()}):
        assert f"\n\n{table}\n\n" in page


def test_the_readme_is_one_screen_and_a_bit():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 250

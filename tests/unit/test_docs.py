"""The pages agree with the code: links, names of files and flags exist, and the template for a script runs."""
import json
import os
import re
import subprocess
import sys

import communication
import pytest
import yaml
from helpers import ROOT

from src.settings.given import flags_of
from src.settings.scripts import SCRIPTS

PAGES = sorted(path for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "models/*/*.md")
               for path in ROOT.glob(pattern))


def anchors(page):
    """Return the anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for heading in re.findall(r"^#+ (.+)$", text, re.M):
        yield re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_named_files_exist(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}"
    for name in re.findall(r"`((?:src|docs|tests|benchmarks|scripts|configs)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}"
    for symbol, name in re.findall(r"`(\w+)(?:\.\w+)?` (?:in|of) `(src/[\w./]+\.py)`", text):
        code = (ROOT / name).read_text(encoding="utf-8")
        assert re.search(rf"^(?:(?:class|def) )?{symbol}\b", code, re.M), f"{page.name} names {symbol} in {name}"


def test_the_flags_in_the_pages_exist():
    known = {script: [field.name for field in flags_of(settings)] for script, settings in SCRIPTS.items()}
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for script, arguments in re.findall(r"^ *python ([a-z_]+\.py)(.*)$", text, re.M):
            for flag in re.findall(r"--(\w+)", arguments.split("#")[0]) if script in known else ():
                assert flag in known[script], f"{page.name}: {script} has no --{flag}"


def test_the_template_for_a_script_runs(tmp_path, cifar_folder):
    house = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    (template,) = re.findall(r"^```python\n(.*?)^```", house, re.M | re.S)
    script = tmp_path / "count.py"
    script.write_text(template, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, str(script), "--dataset_name", "cifar10", "--train_dataset_path", str(cifar_folder),
         "--train_output_path", "counted", "--device_target", "CPU"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    config = yaml.safe_load((tmp_path / "counted" / "count_config.yaml").read_text())
    assert config["settings"]["dataset_name"] == "cifar10"
    counts = [json.loads(line)["images"] for line in (tmp_path / "counted" / "metrics.jsonl").read_text().splitlines()]
    assert sum(counts) == 100


def test_the_tables_of_communication_show_the_counted_figures():
    saved = json.loads((ROOT / "benchmarks" / "results" / "communication.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")
    for table in communication.tables({int(devices): counts for devices, counts in saved["devices"].items()}):
        assert f"\n\n{table}\n\n" in page


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 250

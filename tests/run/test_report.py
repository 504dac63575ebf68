"""report.py as a user calls it, and its page in a browser."""
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT
from report_runs import evaluated, make, pretrained, sampled

from src.report.images import Sheet


def report(*arguments):
    return subprocess.run([sys.executable, str(ROOT / "report.py"), *map(str, arguments)], capture_output=True,
                          text=True, timeout=60)


def test_the_page_is_written_into_the_first_run(tmp_path):
    first, second = make(tmp_path / "first", pretrained(4)), make(tmp_path / "second", pretrained(2))
    result = report(first, second, first)  # one run is named twice
    assert (result.returncode, result.stdout, result.stderr) == (0, f"written: {first / 'report.html'}\n", "")
    assert sorted(path.name for path in first.iterdir()) == ["config.yaml", "metrics.jsonl", "report.html"]
    assert not (second / "report.html").exists() and "<title>2 runs" in (first / "report.html").read_text()


def test_the_list(tmp_path):
    make(tmp_path / "run", [*pretrained(4), evaluated(0.5)])
    result = report("--list", tmp_path)
    assert result.returncode == 0 and result.stdout.splitlines()[1].split() == [
        "50.00", "%", "40.00", "%", "4", "epochs", "shapes", "resnet18", "x", "0.25", "run"]


@pytest.mark.parametrize("arguments, culprit", [
    ((), "--list"), (("{run}", "--list", "{run}"), "--list"), (("{empty}",), "{empty}"),
    (("--list", "{empty}/nowhere"), "{empty}/nowhere"), (("--best", "{run}"), "--best")])
def test_bad_input(tmp_path, arguments, culprit):
    places = {"empty": tmp_path / "empty", "run": make(tmp_path / "run")}
    places["empty"].mkdir()
    result = report(*(argument.format(**places) for argument in arguments))
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("report.py: ") and culprit.format(**places) in result.stderr
    assert not (tmp_path / "run" / "report.html").exists()


# --- in a browser ---

@pytest.fixture(scope="module")
def browser():
    """Headless Chromium. Tests are skipped where it is not installed: selenium would download it."""
    webdriver = pytest.importorskip("selenium.webdriver")
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("no chromedriver on the PATH; on Debian: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chromium = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chromium
    chromium.quit()


def until(browser, condition):
    """Wait until ``condition`` holds of the page."""
    from selenium.webdriver.support.ui import WebDriverWait
    WebDriverWait(browser, 30).until(condition)


def opened(browser, *folders, scheme="light"):
    """Write the page of the runs, open it, and wait until all figures are drawn."""
    assert report(*folders).returncode == 0
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia",
                            {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    browser.get((folders[0] / "report.html").as_uri())
    if browser.execute_script("return typeof Bokeh !== 'undefined'"):
        until(browser, lambda page: page.execute_script("return document.documentElement.dataset.drawn") == "yes")


def check_no_errors_and_no_network(browser):
    """Check that the console has no error and that nothing was requested from a network."""
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [message["params"]["request"]["url"] for message in messages
            if message["method"] == "Network.requestWillBeSent"]
    assert urls and all(url.startswith(("file:", "data:", "blob:")) for url in urls)


def drawn(browser):
    """Return how many pixels of every plot have the colour of the first run."""
    return browser.execute_script("""
        return [...document.querySelectorAll("figure > div")].map((place) => {
            const walk = (root) => [...root.querySelectorAll("*")].flatMap(
                (each) => [each, ...(each.shadowRoot ? walk(each.shadowRoot) : [])])
            return walk(place).filter((each) => each.tagName === "CANVAS").reduce((sum, canvas) => {
                const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
                for (let i = 0; i < data.length; i += 4)
                    sum += data[i] === 0 && data[i + 1] === 114 && data[i + 2] === 178 && data[i + 3] === 255
                return sum
            }, 0)
        })""")


@pytest.mark.long
@pytest.mark.parametrize("lines", [[*pretrained(4), evaluated(0.7)], list(pretrained(1)), [evaluated(0.7)], []],
                         ids=["finished", "in progress", "evaluation alone", "just begun"])
def test_a_page_opens(browser, tmp_path, lines):
    opened(browser, make(tmp_path / "run", lines))
    assert browser.find_element("tag name", "h1").text == "run"
    assert all(drawn(browser))
    check_no_errors_and_no_network(browser)


@pytest.mark.long
def test_runs_are_shown_and_hidden(browser, tmp_path):
    opened(browser, make(tmp_path / "one", pretrained(4)), make(tmp_path / "two", pretrained(3)))
    before = drawn(browser)
    assert all(before)
    box = browser.find_element("css selector", "input[data-shows=run-0]")
    box.send_keys(" ")  # by keyboard
    until(browser, lambda page: not any(drawn(page)))
    box.send_keys(" ")
    until(browser, lambda page: drawn(page) == before)
    check_no_errors_and_no_network(browser)


@pytest.mark.long
def test_pointing_at_a_dot_shows_its_image(browser, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    run = make(tmp_path / "run", pretrained(2))
    sampled(run)
    opened(browser, run)
    place = browser.find_element("id", "map-0")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", place)
    x, y = browser.execute_script("""
        const plot = Bokeh.documents.flatMap((each) => each.roots()).find(
            (each) => each.renderers.some((drawn) => drawn.name === "class-2"))
        const view = [...Bokeh.index.all_views()].find((each) => each.model === plot)
        const dots = plot.renderers.find((drawn) => drawn.name === "class-2").data_source.data
        const box = view.canvas_view.el.getBoundingClientRect()
        return [box.left + view.frame.x_scale.compute(dots.x[2]), box.top + view.frame.y_scale.compute(dots.y[2])]""")
    actions = ActionChains(browser)
    actions.w3c_actions.pointer_action.move_to_location(int(x), int(y))
    actions.perform()

    def picture(page):
        return page.execute_script("""
            const walk = (root) => [...root.querySelectorAll("*")].flatMap(
                (each) => [each, ...(each.shadowRoot ? walk(each.shadowRoot) : [])])
            const found = walk(document).find((each) => each.style && each.style.width === "96px"
                                                        && each.getBoundingClientRect().width > 0)
            return found && [getComputedStyle(found).backgroundImage.slice(0, 20),
                             getComputedStyle(found).backgroundPosition, found.parentElement.innerText]""")

    until(browser, picture)
    image, position, text = picture(browser)
    assert image.startswith('url("data:image/jpeg')
    assert position == Sheet(np.zeros((24, 8, 8, 3), np.uint8)).place(8)  # the third of class 2 is image 8
    assert "<b>bar</b>" in text
    check_no_errors_and_no_network(browser)


@pytest.mark.long
@pytest.mark.parametrize("scheme, paper, width", [
    ("light", "rgb(255, 255, 255)", 360), ("dark", "rgb(13, 17, 23)", 1600)])
def test_the_page_has_the_readers_colours_and_width(browser, tmp_path, scheme, paper, width):
    browser.set_window_size(width, 900)
    opened(browser, make(tmp_path / ("a rather long name of a run " * 4), [*pretrained(4), evaluated(0.7)]),
           scheme=scheme)
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == paper
    assert browser.execute_script("return Bokeh.documents[0].roots()[0].background_fill_color") == (
        "#ffffff" if scheme == "light" else "#0d1117")
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    check_no_errors_and_no_network(browser)

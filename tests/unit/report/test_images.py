"""The pictures of a page, and the map of representations."""
import base64
import io
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from report_runs import evaluated, make, pretrained, sampled

from src.report import page, runs, tsne
from src.report.pictures import Sheet
from src.run import sample


def shown(sheet, number):
    """Return what a browser shows of a sheet in a square element, as CSS 2.1 has background-position in percent."""
    whole = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet.uri.split(",")[1]))))
    (width, height), (x, y) = (re.findall(r"([\d.]+)%", text) for text in (sheet.size, sheet.place(number)))
    across, down = round(float(width) / 100), round(float(height) / 100)
    assert whole.shape[:2] == (down * sheet.side, across * sheet.side)
    left, top = float(x) / 100 * (across - 1) * sheet.side, float(y) / 100 * (down - 1) * sheet.side
    assert abs(left - round(left)) < 0.01 and abs(top - round(top)) < 0.01
    return whole[round(top):, round(left):][:sheet.side, :sheet.side]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 9))
def test_css_shows_the_image_that_is_meant(count, side):
    images = np.repeat(4 * np.arange(count), side * side * 3).reshape(count, side, side, 3).astype(np.uint8)
    sheet = Sheet(images)
    for number in range(count):
        assert np.abs(np.median(shown(sheet, number)) - 4.0 * number) < 40 / side


def test_a_sheet_of_nothing():
    sheet = Sheet(np.zeros((0, 8, 8, 3), np.uint8))
    assert sheet.places() == [] and sheet.uri.startswith("data:image/jpeg")


def test_classes_look_different():
    looks = [tsne.look_of(number) for number in range(49)]
    assert len(set(looks)) == 49
    assert len({look.colour for look in looks[:7]}) == len({look.marker for look in looks[:7]}) == 7


def test_the_map_is_kept_until_the_sample_is_another(tmp_path, monkeypatch):
    file, sample_file = tmp_path / "map.npz", tmp_path / "sample.npz"
    found = sampled(tmp_path)
    assert tsne.kept(file, sample_file, found, compute=False) is None
    places = tsne.kept(file, sample_file, found, compute=True)
    assert places.shape == (24, 2) and np.isfinite(places).all()
    monkeypatch.setattr(tsne, "coordinates", lambda _: np.zeros((9, 2)))
    assert np.array_equal(tsne.kept(file, sample_file, found, compute=True), places)
    other = sampled(tmp_path, count=9)
    assert tsne.kept(file, sample_file, other, compute=False) is None
    assert not tsne.kept(file, sample_file, other, compute=True).any()


def test_what_is_alike_lies_together(tmp_path):
    sample = sampled(tmp_path, count=90)
    places = tsne.coordinates(sample)
    assert np.array_equal(places, tsne.coordinates(sample))
    distances = np.linalg.norm(places[:, None] - places, axis=2) + 1e9 * np.eye(len(places))
    assert (sample.labels[distances.argmin(1)] == sample.labels).mean() > 0.95


@pytest.mark.parametrize("rows", [
    np.zeros((9, 4)), np.ones((9, 4)), np.full((9, 4), np.nan), np.eye(4)[:1], np.eye(4)[:3]])
def test_what_has_no_map(tmp_path, rows):
    """scikit-learn would crash, or never end."""
    sample = sampled(tmp_path)._replace(features=rows.astype(np.float16))
    assert np.array_equal(tsne.coordinates(sample), np.zeros((len(rows), 2)))


def test_four_images_have_a_map(tmp_path):
    places = tsne.coordinates(sampled(tmp_path, count=4))
    assert places.shape == (4, 2) and np.ptp(places) > 0


def test_a_map_that_cannot_be_kept_or_is_damaged_is_drawn_all_the_same(tmp_path):
    sample, file = sampled(tmp_path), tmp_path / "map.npz"
    file.mkdir()
    places = tsne.kept(file, tmp_path / "sample.npz", sample, compute=True)
    file.rmdir()
    file.write_bytes(b"PK")
    assert np.array_equal(tsne.kept(file, tmp_path / "sample.npz", sample, compute=True), places)


def test_classes_have_one_look_on_all_maps(tmp_path):
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    found = sampled(first)
    sample.write(second / "sample.npz", found._replace(classes=("square", "dot", "disc")))
    text = page.render([runs.read(first), runs.read(second)])
    assert text.count('data-shows="class-') == 4  # disc, square, bar; dot
    figures = json.loads(text.split('id="figures">')[1].split("</script>")[0])
    for figure in figures:
        dots = re.findall(r'"name": "class-(\d)"', json.dumps(figure))
        assert sorted(dots) == (["0", "1", "2"] if figure["target_id"] == "map-0" else ["0", "1", "3"])


def test_the_page_of_a_run_with_images(tmp_path):
    run = make(tmp_path / "run", pretrained(2))
    sampled(run)
    text = page.render([runs.read(run)], compute=False)
    assert "There is no map yet" in text and "map-0" not in text
    text = page.render([runs.read(run)])
    assert 'id="map-0"' in text and text.count('data-shows="class-') == 3
    rows = re.findall(r'<td class="asked">.*?</tr>', text, re.S)
    assert len(rows) == 3
    # images 0, 1 and 2 are of these classes, and so are their nearest: 0 1, 2 0, 1 2
    assert [len(re.findall('class="wrong"', row)) for row in rows] == [1, 2, 1]
    assert "&lt;b&gt;bar&lt;/b&gt;" in rows[2]


def test_the_sheet_of_views_is_a_part_of_the_page(tmp_path):
    run = make(tmp_path / "run", pretrained(1))
    assert "<img" not in page.render([runs.read(run)])
    Image.new("RGB", (3, 2), "red").save(run / "views.png")
    (uri,) = re.findall(r'src="data:image/png;base64,(.*?)"', page.render([runs.read(run)]))
    assert Image.open(io.BytesIO(base64.b64decode(uri))).size == (3, 2)


@pytest.mark.long
def test_the_untrained_encoder_is_shown_beside(tmp_path):
    run = make(tmp_path / "run", [*pretrained(2), evaluated(0.75), evaluated(0.7, "knn")])
    sampled(run)
    assert "of the untrained encoder" not in page.render([runs.read(run)])
    sampled(make(run / "untrained", [evaluated(0.375)], script="eval_"))
    text = page.render([runs.read(run)])
    rows = re.findall(r"<strong>(.*?)</strong></td>\s*<td class=\"number\">(.*?)</td>", text)
    assert "of the untrained encoder" in text and rows == [("75.00 %", "37.50 %"), ("70.00 %", "")]
    assert 'id="map-0"' in text and 'id="map-1"' in text
    assert 'id="map-1"' not in page.render([runs.read(run), runs.read(make(tmp_path / "other", pretrained(1)))])

"""The images of a page, and their map."""
import base64
import io
import json
import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from report_runs import evaluated, make, pretrained, sampled

from src.report import images, page, runs
from src.run import sample


def shown(sheet, number, side):
    """Return what a browser shows of a sheet in a square element: CSS 2.1, background-position in percent."""
    whole = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet.uri.split(",")[1]))))
    (width, height), (x, y) = (re.findall(r"([\d.]+)%", text) for text in (sheet.size, sheet.place(number)))
    across, down = round(float(width) / 100), round(float(height) / 100)
    assert whole.shape[:2] == (down * side, across * side)
    left, top = float(x) / 100 * (across - 1) * side, float(y) / 100 * (down - 1) * side
    assert abs(left - round(left)) < 0.01 and abs(top - round(top)) < 0.01
    return whole[round(top):, round(left):][:side, :side]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 60), st.integers(1, 9))
def test_css_shows_the_right_image(count, side):
    pictures = np.repeat(4 * np.arange(count), side * side * 3).reshape(count, side, side, 3).astype(np.uint8)
    sheet = images.Sheet(pictures)
    assert sheet.uri.startswith("data:image/jpeg")
    for number in range(count):
        assert np.abs(np.median(shown(sheet, number, side)) - 4.0 * number) < 40 / side


def test_classes_look_different():
    looks = [images.look_of(number) for number in range(49)]
    assert len(set(looks)) == 49
    assert len({look[0] for look in looks[:7]}) == len({look[1] for look in looks[:7]}) == 7


def test_a_class_has_one_look_on_all_maps(tmp_path):
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    kept = sampled(first)
    sample.write(second / "sample.npz", kept._replace(classes=("square", "dot", "disc")))
    text = page.render([runs.read(first), runs.read(second)])
    assert text.count('data-shows="class-') == 4  # disc, square, bar; dot
    for figure in json.loads(text.split('id="figures">')[1].split("</script>")[0]):
        dots = re.findall(r'"name": "class-(\d)"', json.dumps(figure))
        assert sorted(dots) == (["0", "1", "2"] if figure["target_id"] == "map-0" else ["0", "1", "3"])


def test_the_dots_of_a_map_are_the_places_of_the_sample(tmp_path):
    kept = sampled(make(tmp_path))
    sheet = images.Sheet(kept.pictures)
    plot = images.draw_map(kept, sheet, "sheet", {name: number for number, name in enumerate(kept.classes)})
    (glyph,) = [glyph for glyph in plot.renderers if glyph.name == "class-2"]
    data = glyph.data_source.data
    assert np.array_equal([data["x"], data["y"]], kept.places[2::3].T)
    assert data["place"] == [sheet.place(number) for number in range(2, 24, 3)]
    assert set(data["name"]) == {"&lt;b&gt;bar&lt;/b&gt;"}


def test_neighbours_of_other_classes_are_marked_and_views_are_shown(tmp_path):
    run = make(tmp_path / "run", pretrained(2))
    sampled(run)
    Image.new("RGB", (3, 2), "red").save(run / "views.png")
    text = page.render([runs.read(run)])
    assert 'id="map-0"' in text and text.count('data-shows="class-') == 3
    rows = re.findall(r'<td class="asked">.*?</tr>', text, re.S)
    # Images 0, 1 and 2 have these classes; the classes of their neighbours are 0 1, 2 0 and 1 2.
    assert [len(re.findall('class="wrong"', row)) for row in rows] == [1, 2, 1]
    (uri,) = re.findall(r'src="data:image/png;base64,(.*?)"', text)
    assert Image.open(io.BytesIO(base64.b64decode(uri))).size == (3, 2)


def test_the_untrained_encoder_is_shown_beside_a_single_run(tmp_path):
    run = make(tmp_path / "run", [*pretrained(2), evaluated(0.75), evaluated(0.7, "knn")])
    sampled(run)
    sampled(make(run / "untrained", [evaluated(0.375)], script="eval_"))
    text = page.render([runs.read(run)])
    rows = re.findall(r"<strong>(.*?)</strong></td>\s*<td class=\"number\">(.*?)</td>", text)
    assert "of the untrained encoder" in text and rows == [("75.00 %", "37.50 %"), ("70.00 %", "")]
    assert 'id="map-1"' in text
    assert 'id="map-1"' not in page.render([runs.read(run), runs.read(make(tmp_path / "other", pretrained(1)))])

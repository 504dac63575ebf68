"""Folders are searched for images in order, and what cannot be read is named."""
import os

import pytest

from src.common.errors import UserError
from src.data import image_listing
from src.data.image_listing import images_below


def test_folders_are_searched_in_order_and_links_in_circles_end(tmp_path, caplog, monkeypatch):
    for name in ("b/x.PNG", "a/y.jpeg", "a/deep/z.jpg", ".hidden/x.png", "a/.x.png", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "deep" / "circle").symlink_to(tmp_path)
    monkeypatch.setattr(image_listing.logger, "propagate", True)
    assert [str(file.relative_to(tmp_path)) for file in images_below(tmp_path)] == ["a/y.jpeg", "a/deep/z.jpg",
                                                                                   "b/x.PNG"]
    (warning,) = caplog.messages
    assert " 1 files " in warning and "notes.txt" in warning


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    """os.walk would skip it."""
    with pytest.raises(UserError, match=f"{tmp_path}/none: cannot be read"):
        images_below(tmp_path / "none")
    if os.getuid() != 0:  # root may read everything
        (tmp_path / "private").mkdir(mode=0)
        with pytest.raises(UserError, match="Permission denied"):
            images_below(tmp_path)


def test_the_limit_lets_the_largest_cameras_through():
    assert image_listing.MOST_PIXELS >= 12_000 * 8_000

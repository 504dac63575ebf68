"""Files are written whole: flushed beside their place, then renamed; what they replace goes last.

The files of the scripts are looked at where these are run anyway, with the fixture ``trace``.
"""
import itertools
import os

import numpy as np
import pytest
from helpers import values
from mindspore import Parameter, Tensor

from src.common.files import written_whole
from src.run import checkpoint
from src.run.layout import Series
from src.run.saver import Saver
from src.settings.network import Network

INFO = {"holds": "simclr", "network": Network("resnet18"), "settings": {"dataset_name": "shapes"}}


@pytest.fixture(params=["at once", "beside"])
def saved(request, tmp_path):
    """Save epochs 1, 2 and 3, the newest alone is kept, and each has its number in it; returns the series."""
    def call(shape):
        series, parameter = Series(tmp_path, "net"), Parameter(Tensor(np.zeros(shape, np.float32)), name="p")

        with Saver(series, [parameter], INFO, 1) as beside:
            for epoch in (1, 2, 3):
                parameter.asnumpy()[...] = epoch
                if request.param == "beside":
                    beside(epoch)
                else:
                    checkpoint.save_epoch(series, epoch, [parameter], INFO, 1)
        return series
    return call


def test_an_older_checkpoint_goes_when_the_new_one_stands(saved, tmp_path, trace):
    series = saved(1000)
    trace.check(tmp_path)
    for epoch in (2, 3):
        new, old = str(series.of_epoch(epoch)), str(series.of_epoch(epoch - 1))
        (source,) = (event[1] for event in trace.events if event[0] == "replace" and event[2] == new)
        links = [number for number, event in enumerate(trace.events)
                 if event[0] == "replace" and event[2] == str(series.latest)]
        assert trace.index("fsync", source) < trace.index("replace", source, new) < links[epoch - 1] \
            < trace.index("unlink", old)
    assert os.readlink(series.latest) == "net-3.ckpt"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "net-3.ckpt"]
    assert (values(series.of_epoch(3))["p"] == 3).all()


def test_at_every_moment_latest_is_a_whole_checkpoint(saved, tmp_path, monkeypatch):
    """Wherever a process is killed: before and after every call that changes the folder, it can be loaded."""
    series, seen = Series(tmp_path, "net"), []

    def look():
        is_there = os.path.lexists(series.latest)
        seen.append(checkpoint.load(str(tmp_path), "simclr", "x").info["epoch"] if is_there else None)

    def watched(call):
        def looked_at(*arguments, **options):
            look()
            call(*arguments, **options)
            look()
        return looked_at

    for name in ("replace", "unlink", "symlink", "rename"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    saved(10)
    assert [epoch for epoch, _ in itertools.groupby(seen)] == [None, 1, 2, 3]


@pytest.mark.parametrize("is_there", [False, True])
def test_after_an_error_the_old_file_stands(tmp_path, is_there):
    file = tmp_path / "file"
    if is_there:
        file.write_text("old")
    with pytest.raises(ValueError), written_whole(file) as temporary:
        temporary.write_text("half")
        raise ValueError
    assert [path.read_text() for path in tmp_path.iterdir()] == is_there * ["old"]

"""Checkpoints are whole, strict and found again."""
import os

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from src.common.errors import DamagedError, UserError
from src.run import checkpoint
from src.run.layout import LATEST, Layout, Series
from src.settings.network import Network

NETWORK = Network("resnet18", 0.25, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0), projection_dimension=8)
INFO = {"holds": "simclr", "network": NETWORK, "settings": {"dataset_name": "shapes"}, "epoch": 1, "note": "naïve"}


def parameters(*shapes, prefix="p"):
    rng = np.random.default_rng(0)
    return [Parameter(Tensor(rng.normal(size=shape).astype(np.float32)), name=f"{prefix}{index}")
            for index, shape in enumerate(shapes)]


@pytest.fixture
def said(caplog, monkeypatch):
    """Return what is logged."""
    monkeypatch.setattr(checkpoint.logger, "propagate", True)
    return caplog


@pytest.fixture
def series(tmp_path):
    """Checkpoints of epochs 0 to 3 in a run's folder."""
    series = Layout(tmp_path).checkpoints
    for epoch in range(4):
        checkpoint.save_epoch(series, epoch, parameters((30,)), INFO, keep=5)
    return series


def flip(file, bit):
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def newest(series):
    return checkpoint.newest_whole(series, "simclr", "resume").info["epoch"]


# --- what is written is read ---

def test_what_is_saved_is_loaded(tmp_path):
    saved = [*parameters((2, 3), (4,)), Parameter(Tensor(np.array([7], np.int32)), name="global_step")]
    series = Layout(tmp_path).checkpoints
    checkpoint.save_epoch(series, 3, saved, INFO, keep=5)
    for place in (series.of_epoch(3), tmp_path, series.folder, series.latest):
        loaded = checkpoint.load(str(place), "simclr", "flag")
        assert loaded.path == series.of_epoch(3) and loaded.network == NETWORK
        assert {**loaded.info, "network": NETWORK} == {**INFO, "epoch": 3, "mindspore": ms.__version__}
        targets = [Parameter(Tensor(np.zeros(p.shape, p.asnumpy().dtype)), name=p.name) for p in saved]
        checkpoint.load_into(targets, loaded.parameters, "x")
        for target, original in zip(targets, saved):
            assert np.array_equal(target.asnumpy(), original.asnumpy())


def test_the_newest_are_kept_and_the_untrained_one(tmp_path):
    for epoch in (0, 1, 2, 9, 10, 11):
        checkpoint.save_epoch(Series(tmp_path, "net"), epoch, parameters((1,)), INFO, keep=2)
        assert (tmp_path / LATEST).resolve().name == f"net-{epoch}.ckpt"
    (tmp_path / "net-5.ckpt.txt").write_text("not one of them")
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["net-0.ckpt", "net-10.ckpt", "net-11.ckpt"]


def test_a_failed_save_leaves_the_old_one(series, monkeypatch):
    def cut_short(entries, name, **_):
        with open(name, "wb") as file:
            file.write(b"half")
        raise OSError("disk full")

    before = sorted(series.folder.iterdir())
    monkeypatch.setattr(checkpoint.ms, "save_checkpoint", cut_short)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save_epoch(series, 4, parameters((1,)), INFO, keep=2)
    assert sorted(series.folder.iterdir()) == before and newest(series) == 3


@pytest.mark.parametrize("given, message", [
    (parameters((2, 3)), r"p1 is missing$"),
    (parameters((2, 3), (4,), (5,)), r"p2 is unknown$"),
    (parameters((3, 2), (4,)), r"p0 is \(\(3, 2\), 'Float32'\) instead of \(\(2, 3\), 'Float32'\)$"),
    ([*parameters((2, 3)), Parameter(Tensor(np.zeros(4, np.float16)), name="p1")], r"p1 is .*Float16.*Float32"),
    (parameters((2, 3), (4,), prefix="moment1.p"), r"p0 is missing; p1 is missing; moment1.p0 is unknown; and 1 more$"),
])
def test_nothing_is_left_unloaded(given, message):
    targets = parameters((2, 3), (4,))
    before = [target.asnumpy().copy() for target in targets]
    with pytest.raises(UserError, match="a.ckpt does not fit the network: " + message):
        checkpoint.load_into(targets, {parameter.name: parameter for parameter in given}, "a.ckpt")
    assert all(np.array_equal(target.asnumpy(), old) for target, old in zip(targets, before))


# --- damage ---

REFUSED = "is (damaged|not a checkpoint of this project)"  # before MindSpore reads the file

def test_every_flipped_bit_is_noticed_before_mindspore_reads_the_file(tmp_path, monkeypatch):
    """150 of them anywhere, and all bits of the checksum and of what announces it."""
    file = tmp_path / "net.ckpt"
    checkpoint.save(file, parameters((40, 30), (50,)), INFO)
    assert checkpoint.load(str(file), "simclr", "flag")
    whole, end = file.read_bytes(), 8 * (file.stat().st_size - 17)
    monkeypatch.setattr(checkpoint.ms, "load_checkpoint", None)
    for bit in (*np.random.default_rng(0).choice(end, 150, replace=False), *range(end, 8 * len(whole))):
        flip(file, int(bit))
        with pytest.raises(DamagedError, match=f"^--flag: .*net.ckpt {REFUSED}"):
            checkpoint.load(str(file), "simclr", "flag")
        file.write_bytes(whole)


@pytest.mark.parametrize("damage", [
    lambda content: b"", lambda content: content[:-1], lambda content: content[:-17],
    lambda content: content[:len(content) // 2], lambda content: content[:-512] + bytes(512)])
def test_a_file_that_has_lost_its_end_is_damaged(series, damage, monkeypatch, said):
    series.of_epoch(3).write_bytes(damage(series.of_epoch(3).read_bytes()))
    with monkeypatch.context() as patch, pytest.raises(DamagedError, match=REFUSED):
        patch.setattr(checkpoint.ms, "load_checkpoint", None)
        checkpoint.load(str(series.of_epoch(3)), "simclr", "x")
    assert newest(series) == 2


def test_the_newest_whole_one_is_taken(series, said):
    assert newest(series) == 3 and not said.messages
    flip(series.of_epoch(3), 99)
    assert newest(series) == 2
    assert "checkpoint_simclr-3.ckpt is damaged" in said.messages[0] and str(series.of_epoch(2)) in said.messages[0]
    for place in (series.folder.parent, series.folder, series.latest):  # as every script names a run
        assert checkpoint.load(str(place), "simclr", "x").info["epoch"] == 2
    for epoch in (0, 1, 2):
        series.of_epoch(epoch).write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match="--resume: none of the 4 checkpoints in .* is whole .*3.ckpt is damaged"):
        newest(series)


@pytest.mark.parametrize("link", [None, "nowhere", "latest", ""])
def test_without_latest_the_newest_counts(series, said, link):
    series.latest.unlink()
    if link == "":
        series.latest.mkdir()
    elif link:
        series.latest.symlink_to(link)
    assert newest(series) == 3 and f"{series.latest} points at no checkpoint" in said.messages[0]


def test_a_copy_in_the_place_of_latest_may_be_older_than_the_files_beside_it(series, said):
    """Tools that follow links leave one."""
    series.latest.unlink()
    series.latest.write_bytes(series.of_epoch(1).read_bytes())
    assert newest(series) == 3 and "points at no checkpoint" in said.messages[0]


def test_a_series_goes_back(series, said):
    checkpoint.go_back_to(checkpoint.load(str(series.of_epoch(2)), "simclr", "x"), series, 1)
    assert [file.name for file in series.files()] == ["checkpoint_simclr-2.ckpt"] and series.of_epoch(0).exists()
    assert os.readlink(series.latest) == "checkpoint_simclr-2.ckpt"
    assert "checkpoint_simclr-3.ckpt" in said.messages[0]


def test_other_files_are_refused(tmp_path):
    whole, foreign = tmp_path / "net-1.ckpt", tmp_path / "foreign.ckpt"
    checkpoint.save(whole, parameters((100,)), INFO)
    ms.save_checkpoint(nn.Dense(2, 2), str(foreign), crc_check=True)
    for path, holds, message in ((tmp_path / "no.ckpt", "simclr", "no checkpoint at .*no.ckpt"),
                                 (tmp_path, "simclr", "no checkpoint at "),
                                 (whole, "linear_classifier", "holds a simclr, takes a linear_classifier"),
                                 (foreign, "simclr", "was not written by this project")):
        with pytest.raises(UserError, match=f"^--resume: .*{message}"):
            checkpoint.load(str(path), holds, "resume")

"""Checkpoints are whole, strict and found again."""
import os

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from src.common.errors import DamagedError, UserError
from src.run import checkpoint
from src.run.layout import Layout, Series
from src.settings.network import Network

NETWORK = Network("resnet18", 0.25, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0), projection_dimension=8)
INFO = {"holds": "simclr", "network": NETWORK, "settings": {"dataset_name": "shapes"}, "epoch": 1, "note": "naïve"}


def parameters(*shapes, prefix="p"):
    rng = np.random.default_rng(0)
    return [Parameter(Tensor(rng.normal(size=shape).astype(np.float32)), name=f"{prefix}{index}")
            for index, shape in enumerate(shapes)]


def test_what_is_saved_is_loaded(tmp_path):
    saved = [*parameters((2, 3), (4,)), Parameter(Tensor(np.array([7], np.int32)), name="global_step")]
    series = Layout(tmp_path).checkpoints
    checkpoint.save_epoch(series, 3, saved, INFO, keep=5)
    file = series.of_epoch(3)
    for place in (file, tmp_path, series.folder, series.latest):
        found = checkpoint.load(str(place), "simclr", "flag")
        assert found.path == file
        assert found.network == NETWORK
        assert {**found.info, "network": NETWORK} == {**INFO, "epoch": 3, "mindspore": ms.__version__}
        targets = [Parameter(Tensor(np.zeros(p.shape, p.asnumpy().dtype)), name=p.name) for p in saved]
        checkpoint.load_into(targets, found.parameters, "x")
        for target, original in zip(targets, saved):
            assert np.array_equal(target.asnumpy(), original.asnumpy())


def test_the_newest_are_kept_and_the_untrained_one(tmp_path):
    for epoch in (0, 1, 2, 9, 10, 11):
        checkpoint.save_epoch(Series(tmp_path, "net"), epoch, parameters((1,)), INFO, keep=2)
        assert (tmp_path / "latest").resolve().name == f"net-{epoch}.ckpt"
    (tmp_path / "net-5.ckpt.txt").write_text("not one of them")
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["net-0.ckpt", "net-10.ckpt", "net-11.ckpt"]


def test_a_failed_save_leaves_the_old_one(tmp_path, monkeypatch):
    checkpoint.save_epoch(Series(tmp_path, "net"), 1, parameters((1,)), INFO, keep=2)

    def cut_short(entries, name, **_):
        with open(name, "wb") as file:
            file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint.ms, "save_checkpoint", cut_short)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save_epoch(Series(tmp_path, "net"), 2, parameters((1,)), INFO, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "net-1.ckpt"]
    assert checkpoint.load(str(tmp_path), "simclr", "flag").info["epoch"] == 1


@pytest.mark.parametrize("there, message", [
    ([], r"p0 is missing; p1 is missing$"),
    (parameters((2, 3)), r"p1 is missing$"),
    (parameters((2, 3), (4,), (5,)), r"p2 is unknown$"),
    (parameters((3, 2), (4,)), r"p0 is \(\(3, 2\), 'Float32'\) instead of \(\(2, 3\), 'Float32'\)$"),
    (parameters((2, 3), (4,), prefix="moment1.p"), r"p0 is missing; p1 is missing; moment1.p0 is unknown; and 1 more$"),
])
def test_nothing_is_left_unloaded(there, message):
    targets = parameters((2, 3), (4,))
    before = [target.asnumpy().copy() for target in targets]
    with pytest.raises(UserError, match="a.ckpt does not fit the network: " + message):
        checkpoint.load_into(targets, {parameter.name: parameter for parameter in there}, "a.ckpt")
    assert all(np.array_equal(target.asnumpy(), old) for target, old in zip(targets, before))


def test_types_must_match():
    target = Parameter(Tensor(np.zeros(2, np.float32)), name="p0")
    half = Parameter(Tensor(np.zeros(2, np.float16)), name="p0")
    with pytest.raises(UserError, match="p0 is .*Float16.* instead of .*Float32"):
        checkpoint.load_into([target], {"p0": half}, "a.ckpt")


def test_part_renames():
    both = {p.name: p for p in [*parameters((1,), prefix="encoder."), *parameters((1,), prefix="moment1.encoder.")]}
    assert [(name, p.name) for name, p in checkpoint.part(both, "encoder.").items()] == [("0", "0")]


def test_other_files_are_refused(tmp_path):
    def message(path, holds="simclr"):
        with pytest.raises(UserError) as error:
            checkpoint.load(str(path), holds, "resume")
        assert "\n" not in str(error.value)
        return str(error.value)

    assert message(tmp_path / "no.ckpt").startswith(f"--resume: no checkpoint at {tmp_path}/no.ckpt")
    assert message(tmp_path).startswith(f"--resume: no checkpoint at {tmp_path}")
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    assert "is not a checkpoint that MindSpore can read" in message(tmp_path / "text.ckpt")
    whole = tmp_path / "net-1.ckpt"
    checkpoint.save(whole, parameters((100,)), INFO)
    (tmp_path / "cut.ckpt").write_bytes(whole.read_bytes()[:-50])
    assert "is not a checkpoint that MindSpore can read" in message(tmp_path / "cut.ckpt")
    assert "holds a simclr, takes a linear_classifier" in message(whole, "linear_classifier")
    from mindspore import save_checkpoint
    save_checkpoint(nn.Dense(2, 2), str(tmp_path / "foreign.ckpt"))
    assert "was not written by this project" in message(tmp_path / "foreign.ckpt")


# --- damage ---

@pytest.fixture
def said(caplog, monkeypatch):
    """Return what is logged."""
    monkeypatch.setattr(checkpoint.logger, "propagate", True)
    return caplog


def flipped(file, bit):
    """Flip a bit of a file."""
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def test_every_flipped_bit_is_noticed(tmp_path, said):
    """150 of them, wherever they are, and nothing of the file reaches MindSpore."""
    file = tmp_path / "net.ckpt"
    checkpoint.save(file, parameters((40, 30), (50,)), INFO)
    whole = file.read_bytes()
    assert checkpoint.load(str(file), "simclr", "flag") and not said.messages
    for bit in np.random.default_rng(0).choice(8 * (len(whole) - 17), 150, replace=False):
        flipped(file, int(bit))
        with pytest.raises(UserError, match="^--flag: .*net.ckpt is damaged: its bytes do not have the checksum"):
            checkpoint.load(str(file), "simclr", "flag")
        file.write_bytes(whole)
    for bit in range(8 * (len(whole) - 17), 8 * len(whole)):  # of the checksum itself, and of what announces it
        flipped(file, bit)
        try:
            checkpoint.load(str(file), "simclr", "flag")
        except UserError:
            said.clear()
        else:
            assert "has no checksum" in said.messages.pop()
            said.clear()
        file.write_bytes(whole)


@pytest.mark.parametrize("kept", [0, 1, 16, 17, 100, -18, -1])
def test_a_file_that_was_cut_is_no_checkpoint(tmp_path, kept):
    file = tmp_path / "net.ckpt"
    checkpoint.save(file, parameters((40, 30), (50,)), INFO)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError, match="^--flag: .*net.ckpt"):
        found = checkpoint.load(str(file), "simclr", "flag")
        checkpoint.load_into(parameters((40, 30), (50,)), found.parameters, f"--flag: {file}")


def test_a_file_of_an_earlier_version_has_no_checksum(tmp_path, said, monkeypatch):
    file, save = tmp_path / "net.ckpt", ms.save_checkpoint
    monkeypatch.setattr(checkpoint.ms, "save_checkpoint",
                        lambda *arguments, crc_check, **more: save(*arguments, **more))
    checkpoint.save(file, parameters((3,)), INFO)
    assert checkpoint.load(str(file), "simclr", "flag").info["note"] == "naïve"
    (warning,) = said.messages
    assert f"--flag: {file} has no checksum, as those of earlier versions" in warning


@pytest.fixture
def series(tmp_path):
    found = Layout(tmp_path).checkpoints
    for epoch in range(4):
        checkpoint.save_epoch(found, epoch, parameters((30,)), INFO, keep=5)
    return found


def newest(series):
    return checkpoint.newest_whole(series, "simclr", "resume").info["epoch"]


def test_the_newest_whole_one_is_found(series, said):
    assert newest(series) == 3 and not said.messages
    flipped(series.of_epoch(3), 99)
    assert newest(series) == 2
    assert "checkpoint_simclr-3.ckpt is damaged" in said.messages[0] and said.messages[0].endswith(
        f"taken is the newest whole checkpoint, {series.of_epoch(2)}")
    series.of_epoch(2).write_bytes(b"")
    assert newest(series) == 1
    for epoch in (0, 1):
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
    assert newest(series) == 3
    assert f"{series.latest} points at no checkpoint; taken is" in said.messages[0]


def test_what_is_newer_than_the_one_taken_goes(series, said):
    checkpoint.go_back_to(checkpoint.load(str(series.of_epoch(1)), "simclr", "x"), series, 9)
    assert [file.name for file in series.files()] == ["checkpoint_simclr-1.ckpt"]
    assert series.of_epoch(0).exists()
    assert os.readlink(series.latest) == "checkpoint_simclr-1.ckpt"
    assert "removed" in said.messages[0] and "checkpoint_simclr-2.ckpt, checkpoint_simclr-3.ckpt" in said.messages[0]


def test_what_a_killed_process_has_not_removed_goes(series):
    checkpoint.go_back_to(checkpoint.load(str(series.of_epoch(3)), "simclr", "x"), series, 2)
    assert [file.name for file in series.files()] == ["checkpoint_simclr-2.ckpt", "checkpoint_simclr-3.ckpt"]


def test_a_copy_in_the_place_of_latest_is_older_than_what_is_beside_it(series, said):
    """As tools leave it that follow links: what they copied first is not what the run has come to."""
    series.latest.unlink()
    series.latest.write_bytes(series.of_epoch(1).read_bytes())
    assert newest(series) == 3 and "points at no checkpoint" in said.messages[0]


@pytest.mark.parametrize("damage", [
    lambda content: content[:-1], lambda content: content[:-17 - 1], lambda content: content[:len(content) // 2],
    lambda content: content[:-512] + bytes(512), lambda content: bytes(len(content)), lambda content: content[:1]])
def test_a_file_that_has_lost_its_end_is_not_one_of_an_earlier_version(series, damage, monkeypatch, said):
    """It has no checksum either, and MindSpore is not to see it."""
    content = series.of_epoch(3).read_bytes()
    series.of_epoch(3).write_bytes(damage(content))
    with monkeypatch.context() as patch, pytest.raises(DamagedError, match="no.* a checkpoint that MindSpore can read"):
        patch.setattr(checkpoint.ms, "load_checkpoint", None)
        checkpoint.load(str(series.of_epoch(3)), "simclr", "x")
    assert newest(series) == 2


def test_without_its_checksum_alone_a_file_is_one_of_an_earlier_version(series, said):
    content = series.of_epoch(3).read_bytes()
    series.of_epoch(3).write_bytes(content[:-17])
    assert newest(series) == 3 and "has no checksum" in said.messages[0]


@pytest.mark.parametrize("place", ["", "checkpoint", "checkpoint/latest"])
def test_every_script_finds_the_newest_whole_one(series, said, place):
    flipped(series.of_epoch(3), 99)
    found = checkpoint.load(str(series.folder.parent / place), "simclr", "encoder_checkpoint_path")
    assert found.info["epoch"] == 2 and "3.ckpt is damaged" in said.messages[0]

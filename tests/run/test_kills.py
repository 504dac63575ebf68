"""Wherever train.py is killed, a resumed run comes to the same end.

After every call that changes its folder, the folder is copied as a killed process would leave it. tests/long/kills.py
does the same by hand with real kills, and for the other scripts.
"""
import os
import shutil
import threading

import pytest
from helpers import EPOCHS, arguments, call_script, done, equal, values

from src.run import checkpoint, records
from src.run.layout import Layout

CALLS = ("rename", "replace", "symlink", "fsync", "unlink", "mkdir")


@pytest.fixture(scope="module")
def left(finished, tmp_path_factory):
    """What a run has left after each of its calls, in their order: (call, folder)."""
    folder = tmp_path_factory.mktemp("left")
    run, found = folder / "run", []

    def watched(name, call):
        def watching(*arguments, **options):
            result = call(*arguments, **options)
            with lock:
                if not busy.is_set() and run.exists():
                    busy.set()
                    copy = folder / str(len(found))
                    shutil.copytree(run, copy, symlinks=True)
                    found.append((name, copy))
                    busy.clear()
            return result
        return watching

    busy = threading.Event()  # copying makes such calls too
    lock = threading.RLock()
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, watched(name, getattr(os, name)))
        done(call_script("train.py", *arguments(run, "--keep_checkpoint_max", 1, "--report", "False"), cwd=finished))
    return found


def epoch_after(folder):
    """Return the epoch that a run goes on after, or None where it begins again."""
    whole = checkpoint.newest_whole(Layout(folder).checkpoints, "simclr", "resume")
    return whole and whole.info["epoch"]


@pytest.mark.long
def test_at_every_moment_there_is_a_whole_checkpoint_and_its_records_are_there(left):
    epochs = [epoch_after(folder) for _, folder in left]
    first = epochs.index(0)
    assert set(epochs[:first]) == {None}
    assert epochs[first:] == sorted(epochs[first:]) and set(epochs[first:]) == set(range(EPOCHS + 1))
    assert {name for name, _ in left} == set(CALLS) and len(left) > 30
    for (_, folder), epoch in zip(left, epochs):
        metrics = folder / "metrics.jsonl"
        there = records.read(metrics) if metrics.exists() else []
        assert {record["epoch"] for record in there if record["kind"] == "pretrain"} >= set(range(1, (epoch or 0) + 1))


@pytest.mark.long
def test_from_there_it_ends_as_if_nothing_was(finished, left):
    """Of the moments of the second epoch's checkpoint: the file is there without a link, and with an unfinished one."""
    def is_unlinked(folder):
        return os.readlink(folder / "checkpoint" / "latest") == "checkpoint_simclr-1.ckpt" and (
            folder / "checkpoint" / "checkpoint_simclr-2.ckpt").exists()

    moments = [folder for _, folder in left if (folder / "checkpoint" / "latest").is_symlink() and is_unlinked(folder)]
    assert [bool(list((folder / "checkpoint").glob(".latest.*.part"))) for folder in moments[::len(moments) - 1]] == [
        False, True]
    for folder in moments[::len(moments) - 1]:
        done(call_script("train.py", *arguments(folder, "--keep_checkpoint_max", 1, "--resume"), cwd=finished))
        equal(values(finished / "run"), values(folder))
        assert not list(folder.rglob(".*"))
        assert [record["epoch"] for record in records.read(folder / "metrics.jsonl")
                if record["kind"] == "pretrain"] == list(range(1, EPOCHS + 1))

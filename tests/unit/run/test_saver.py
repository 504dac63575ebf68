"""Saving beside the training: what is saved, when, and where an error is raised."""
import contextlib
import threading

import mindspore as ms
import numpy as np
import pytest
from helpers import values
from mindspore import Parameter, Tensor

from src.common.errors import UserError
from src.run import checkpoint, saver
from src.run.layout import Series
from src.run.saver import Saver
from src.settings.network import Network

INFO = {"holds": "simclr", "network": Network("resnet18"), "settings": {"dataset_name": "shapes"}}


@pytest.fixture
def parameters():
    """Parameters of the kinds that a learner has: large, of one number, a scalar, and float16."""
    rng = np.random.default_rng(0)
    return [Parameter(Tensor(rng.normal(size=(300, 1000)).astype(np.float32)), name="weight"),
            Parameter(Tensor(np.array([7], np.int32)), name="global_step"),
            Parameter(Tensor(np.float32(3)), name="scale"),
            Parameter(Tensor(rng.normal(size=(3, 5)).astype(np.float16)), name="half")]


@pytest.fixture
def gate():
    """An event that a write waits for."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def written(monkeypatch):
    """The epochs that were written, each with the number of steps; the writing itself is left out."""
    epochs = []
    monkeypatch.setattr(checkpoint, "save_epoch", lambda series, epoch, copies, *_: epochs.append(
        (epoch, int(copies[1].asnumpy()[0]))))
    return epochs


def change(parameters):
    """Change the values as a step does, in place."""
    for parameter in parameters:
        parameter.asnumpy()[...] += 1
    ms.ops.assign_add(parameters[0], Tensor(np.ones(parameters[0].shape, np.float32)))


def test_a_save_is_of_its_moment_and_to_the_byte_what_it_would_be_at_once(tmp_path, parameters, gate):
    """The epochs after the first are copied into the memory of the one before."""
    beside, at_once, calls = Series(tmp_path / "beside", "net"), Series(tmp_path / "at_once", "net"), []
    with Saver(beside, parameters, INFO, 2, before=lambda: calls.append(gate.wait(30)),
               after=lambda: calls.append("sent")) as save:
        for epoch in (1, 2, 3):
            gate.clear()
            checkpoint.save_epoch(at_once, epoch, parameters, INFO, keep=2)
            save(epoch)
            change(parameters)
            gate.set()
            save.wait()
            assert beside.of_epoch(epoch).read_bytes() == at_once.of_epoch(epoch).read_bytes()
    assert calls == [True, "sent"] * 3
    assert values(tmp_path / "beside" / "latest")["global_step"] == [9]
    assert [file.name for file in beside.files()] == ["net-2.ckpt", "net-3.ckpt"]


def test_one_save_is_under_way_at_most_and_the_end_waits_for_the_last(tmp_path, parameters, gate, written):
    with Saver(Series(tmp_path, "net"), parameters, INFO, 2, before=lambda: gate.wait(30)) as save:
        save(1)
        change(parameters)
        second = threading.Thread(target=save, args=(2,))
        second.start()
        second.join(0.3)
        assert second.is_alive() and not written  # it waits, and has not overwritten the first one's copy
        gate.set()
        second.join(30)
        assert written[0] == (1, 7)
    assert written == [(1, 7), (2, 8)]


@pytest.mark.parametrize("interruptions", [1, 2])
def test_an_interruption_does_not_leave_the_last_one_behind(tmp_path, parameters, written, monkeypatch, interruptions):
    def interrupted(*_):
        raise KeyboardInterrupt

    slow = threading.Event()
    with pytest.raises(KeyboardInterrupt), Saver(
            Series(tmp_path, "net"), parameters, INFO, 2, before=lambda: slow.wait(0.3)) as save:
        save(1)
        if interruptions == 1:
            raise KeyboardInterrupt
        monkeypatch.setattr(save, "wait", interrupted)
    assert written == [(1, 7)]


def test_an_interruption_while_it_copies_saves_the_epoch_that_it_copied(tmp_path, parameters, written, monkeypatch):
    """All of it, and under its own number: the thread copies on."""
    class Interrupted:
        def result(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Saver(Series(tmp_path, "net"), parameters, INFO, 2) as save:
        save(0)
        change(parameters)
        save.hold(1)
        save.wait()
        change(parameters)
        submit = save.thread.submit

        def interrupt(*arguments):
            monkeypatch.undo()
            monkeypatch.setattr(checkpoint, "save_epoch", lambda series, epoch, copies, *_: written.append(
                (epoch, int(copies[1].asnumpy()[0]))))
            submit(*arguments)
            return Interrupted()

        monkeypatch.setattr(save.thread, "submit", interrupt)
        save.hold(2)
    assert written == [(0, 7), (2, 9)]


@pytest.mark.parametrize("ending, expected", [(None, [(1, 7)]), (ValueError, [(1, 7), (3, 9)])])
def test_what_is_kept_is_written_where_the_context_ends_with_an_error_alone(tmp_path, parameters, written, ending,
                                                                            expected):
    with pytest.raises(ending) if ending else contextlib.nullcontext(), Saver(
            Series(tmp_path, "net"), parameters, INFO, 2) as save:
        save(1)
        for epoch in (2, 3):
            save.wait()
            change(parameters)
            save.hold(epoch)
        change(parameters)
        if ending:
            raise ending
    assert written == expected


def failing():
    raise UserError("disk full")


def test_an_error_reaches_the_next_save_once_or_the_end(tmp_path, parameters):
    with pytest.raises(UserError, match="disk full"), Saver(Series(tmp_path, "net"), parameters, INFO, 2,
                                                            before=failing) as save:
        save(1)
        with pytest.raises(UserError, match="disk full"):
            save(2)
        save.wait()
        save(2)


def test_an_error_of_the_training_goes_first(tmp_path, parameters, monkeypatch):
    lines = []
    monkeypatch.setattr(saver.logger, "warning", lambda text, *rest: lines.append(text % rest))
    with pytest.raises(ValueError, match="the cause"), Saver(Series(tmp_path, "net"), parameters, INFO, 2,
                                                             before=failing) as save:
        save(1)
        raise ValueError("the cause")
    assert lines == ["warning: disk full"]


def test_an_epoch_that_is_held_does_not_wait_for_a_cloud(tmp_path, parameters, written, gate):
    with Saver(Series(tmp_path, "net"), parameters, INFO, 2, after=lambda: gate.wait(30)) as save:
        save(1)
        holding = threading.Thread(target=save.hold, args=(2,))
        holding.start()
        holding.join(5)
        assert not holding.is_alive()
        gate.set()
        holding.join()

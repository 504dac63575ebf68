"""Saving beside the training: what is saved, when, and who hears of an error."""
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
    """Those of all sizes that a learner has: large, of one number, and a scalar of mixed precision."""
    rng = np.random.default_rng(0)
    return [Parameter(Tensor(rng.normal(size=(300, 1000)).astype(np.float32)), name="weight"),
            Parameter(Tensor(np.array([7], np.int32)), name="global_step"),
            Parameter(Tensor(np.float32(3)), name="scale"),
            Parameter(Tensor(rng.normal(size=(3, 5)).astype(np.float16)), name="half")]


@pytest.fixture
def gate():
    """What a write waits for."""
    event = threading.Event()
    yield event
    event.set()


def change(parameters):
    """As a step does: in place, on a CPU in the very memory."""
    for parameter in parameters:
        parameter.asnumpy()[...] += 1
    ms.ops.assign_add(parameters[0], Tensor(np.ones(parameters[0].shape, np.float32)))


def test_a_save_is_of_its_moment_and_to_the_byte_what_it_would_be_at_once(tmp_path, parameters, gate):
    beside, at_once = Series(tmp_path / "beside", "net"), Series(tmp_path / "at_once", "net")

    def write(epoch, copies):
        assert gate.wait(30)
        checkpoint.save_epoch(beside, epoch, copies, INFO, keep=2)

    with Saver(parameters, write) as save:
        for epoch in (1, 2, 3):  # the first gets the memory that the others are copied to
            gate.clear()
            checkpoint.save_epoch(at_once, epoch, parameters, INFO, keep=2)
            save(epoch)
            change(parameters)
            gate.set()
            save.wait()
            assert beside.of_epoch(epoch).read_bytes() == at_once.of_epoch(epoch).read_bytes()
    assert values(tmp_path / "beside" / "latest")["global_step"] == [9]
    assert [file.name for file in beside.files()] == ["net-2.ckpt", "net-3.ckpt"]


def test_one_save_is_under_way_at_most(parameters, gate):
    begun, done = [], []

    def write(epoch, copies):
        begun.append(epoch)
        assert gate.wait(30)
        done.append((epoch, int(copies[1].asnumpy()[0])))

    with Saver(parameters, write) as save:
        save(1)
        change(parameters)
        second = threading.Thread(target=save, args=(2,))
        second.start()
        second.join(0.3)
        assert second.is_alive() and begun == [1] and not done  # it waits, and has not overwritten the first one's copy
        gate.set()
        second.join(30)
        assert done[0] == (1, 7)
    assert done == [(1, 7), (2, 8)]


@pytest.mark.parametrize("ending", [None, ValueError, KeyboardInterrupt])
def test_the_end_waits_for_the_last_one(parameters, gate, ending):
    done = []

    def write(epoch, copies):
        gate.wait(0.3)
        done.append(epoch)

    with pytest.raises(ending) if ending else contextlib.nullcontext(), Saver(parameters, write) as save:
        save(1)
        if ending:
            raise ending
    assert done == [1]


def test_a_second_interruption_does_not_leave_it_behind(parameters, gate, monkeypatch):
    done = []

    def interrupted(*_):
        raise KeyboardInterrupt

    def write(epoch, copies):
        gate.wait(0.3)
        done.append(epoch)

    with pytest.raises(KeyboardInterrupt), Saver(parameters, write) as save:
        save(1)
        monkeypatch.setattr(save, "wait", interrupted)
    assert done == [1]


@pytest.mark.parametrize("where", [0, 2])
def test_an_interruption_while_it_copies_saves_the_epoch_that_it_copied(parameters, monkeypatch, where):
    """All of it, and under its own number."""
    written, copied = [], []
    copyto = np.copyto

    def interrupted(*arguments):
        copied.append(arguments)
        if len(copied) == where + 1:
            raise KeyboardInterrupt
        copyto(*arguments)

    def write(epoch, copies):
        written.append((epoch, [copy.asnumpy().copy() for copy in copies]))

    with pytest.raises(KeyboardInterrupt), Saver(parameters, write) as save:
        save(0)
        save.keep(1)
        change(parameters)
        save.wait()
        monkeypatch.setattr(np, "copyto", interrupted)
        monkeypatch.setattr(save.thread, "submit", lambda call, *arguments: _Done(call(*arguments))
                            if call is write else _Done(None))
        save.keep(2)
    (epoch, values), = written[1:]
    assert epoch == 2 and all(np.array_equal(value, parameter.asnumpy())
                              for value, parameter in zip(values, parameters))


class _Done:
    """What was done at once."""

    def __init__(self, value):
        self.value = value

    def result(self):
        return self.value

    def exception(self):
        return None

    def done(self):
        return True


def test_what_is_kept_is_written_where_the_context_ends_with_an_error_alone(parameters):
    for ending, expected in ((None, [1]), (ValueError, [1, 3])):
        written = []
        with pytest.raises(ending) if ending else contextlib.nullcontext(), Saver(
                parameters, lambda epoch, _, to=written: to.append(epoch)) as save:
            save(1)
            for epoch in (2, 3):
                save.wait()
                save.keep(epoch)
            if ending:
                raise ending
        assert written == expected


def failing(epoch, copies):
    if epoch == 1:
        raise UserError("disk full")


def test_an_error_reaches_the_next_save_once(parameters):
    with Saver(parameters, failing) as save:
        save(1)
        with pytest.raises(UserError, match="disk full"):
            save(2)
        save(2)


def test_an_error_reaches_the_end(parameters):
    with pytest.raises(UserError, match="disk full"), Saver(parameters, failing) as save:
        save(1)


def test_an_error_of_the_training_goes_first(parameters, monkeypatch):
    lines = []
    monkeypatch.setattr(saver.logger, "warning", lambda text, *rest: lines.append(text % rest))
    with pytest.raises(ValueError, match="the cause"), Saver(parameters, failing) as save:
        save(1)
        raise ValueError("the cause")
    assert lines == ["warning: disk full"]

"""What the ranks of a distributed run tell each other. With one process, nothing happens here.

Every function and cell is called by all ranks in the same order, or they wait for each other for ever.
"""
import json
from contextlib import contextmanager
from typing import Any, Iterable, Iterator

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.common.errors import UserError
from src.distributed.process_group import Process


class Gather(nn.Cell):
    """Rows (n, d) of this rank -> rows (world_size * n, d) of all ranks, in the order of the ranks.

    Its gradient is exact: a rank's rows get the sum of what all ranks ask of them. It is an AllReduce
    and a slice, for MindSpore's own gradient of AllGather is a ReduceScatter, which the CPU does not have.
    """

    def __init__(self, rank: int):
        super().__init__()
        self.rank = rank
        self.gather = ops.AllGather()
        self.sum = ops.AllReduce()

    def construct(self, rows):
        return self.gather(rows)

    def bprop(self, rows, out, gradient):
        count = rows.shape[0]
        return (self.sum(gradient)[self.rank * count:(self.rank + 1) * count],)


class Mean(nn.Cell):
    """A tensor of this rank -> the mean over all ranks, with its gradient."""

    def __init__(self, world_size: int):
        super().__init__()
        self.sum = ops.AllReduce()
        self.share = 1 / world_size

    def construct(self, value):
        return self.sum(value) * self.share


def broadcast(parameters: Iterable[Parameter], process: Process) -> None:
    """Give every rank the values of rank 0."""
    if process.world_size > 1:
        from_first = ops.Broadcast(0)
        for parameter in parameters:
            parameter.set_data(from_first((parameter,))[0])


def share(value: Any, process: Process, root: int = 0) -> Any:
    """Return rank ``root``'s ``value``, which JSON can hold; the other ranks' values are ignored."""
    if process.world_size == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8).astype(np.int32)
    from_root = ops.Broadcast(root)
    (length,) = from_root((Tensor(np.array([len(text)], np.int32)),))
    mine = text if process.rank == root else np.zeros(int(length.asnumpy()[0]), np.int32)
    (text,) = from_root((Tensor(mine),))
    return json.loads(text.asnumpy().astype(np.uint8).tobytes())


@contextmanager
def together(process: Process) -> Iterator[None]:
    """Run a part without collectives that may fail on some ranks; where one fails, all end.

    Without this the others would wait for it in their next collective.

    Raises:
        UserError: another rank failed; the message names the first such rank and has its message.
    """
    error = None
    try:
        yield
    except Exception as caught:
        error = caught
    if process.world_size > 1:
        failed = ops.AllGather()(Tensor(np.array([error is not None], np.float32))).asnumpy()
        if failed.any():
            first = int(failed.argmax())
            message = share(str(error), process, root=first)
            if not error:
                raise UserError(f"rank {first}: {message}")
    if error:
        raise error


def sum_over_ranks(values: np.ndarray, process: Process) -> np.ndarray:
    """Return the sum of the ranks' float32 ``values``, on every rank."""
    if process.world_size == 1:
        return values
    return ops.AllReduce()(Tensor(values)).asnumpy()

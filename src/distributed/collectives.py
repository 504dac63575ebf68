"""What the ranks of a distributed run exchange. With one process, nothing happens here.

In a dry run the other ranks do not exist: the host takes its own values for theirs, and the cells are compiled as ever.

All ranks must call every function and cell in the same order, or they wait for each other for ever.
"""
import json
from contextlib import contextmanager
from typing import Any, Iterable, Iterator

import numpy as np
from mindspore import Parameter, Tensor, get_context, nn, ops

from src.common.errors import UserError
from src.distributed.process_group import Process


class GatherOnCPU(nn.Cell):
    """``ops.AllGather`` as a sum over the ranks, each of which has zeros in the others' places.

    The gradient of ``ops.AllGather`` is a ReduceScatter, which MindSpore's CPU back end lacks. A ``bprop`` of our own
    would make it copy every weight of the network twice per step.
    """

    def __init__(self, rank: int, world_size: int):
        super().__init__()
        self.before, self.after = rank, world_size - 1 - rank
        self.sum = ops.AllReduce()

    def construct(self, rows):
        zeros = ops.zeros_like(rows)
        return self.sum(ops.concat([zeros] * self.before + [rows] + [zeros] * self.after))


def row_gather(rank: int, world_size: int) -> nn.Cell:
    """Return the cell: rows (n, d) of this rank -> rows (world_size * n, d) of all ranks, in their order.

    Its gradient is exact: the gradients that all ranks have for a rank's rows are summed.
    """
    if world_size == 1:
        return nn.Identity()
    return GatherOnCPU(rank, world_size) if get_context("device_target") == "CPU" else ops.AllGather()


class MeanOverRanks(nn.Cell):
    """A tensor of this rank -> the mean over all ranks, with its gradient."""

    def __init__(self, world_size: int):
        super().__init__()
        self.sum = ops.AllReduce()
        self.share = 1 / world_size

    def construct(self, value):
        return self.sum(value) * self.share


class SumOfEach(nn.Cell):
    """Tensors of this rank -> the sum of each over all ranks, in few messages where the back end fuses them."""

    def __init__(self):
        super().__init__()
        self.sum = ops.AllReduce()
        self.sum.add_prim_attr("fusion", 1)  # may be fused; process_group.join says how
        self.for_each = ops.HyperMap()

    def construct(self, values):
        return self.for_each(self.sum, values)


def broadcast(parameters: Iterable[Parameter], process: Process) -> None:
    """Give every rank the values of rank 0."""
    if not process.is_alone:
        from_first = ops.Broadcast(0)
        for parameter in parameters:
            parameter.set_data(from_first((parameter,))[0])


def share(value: Any, process: Process, root: int = 0) -> Any:
    """Return the ``value`` of rank ``root``, which JSON must be able to hold; those of other ranks are ignored."""
    if process.is_alone:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8).astype(np.int32)
    from_root = ops.Broadcast(root)
    (length,) = from_root((Tensor(np.array([len(text)], np.int32)),))
    mine = text if process.rank == root else np.zeros(int(length.asnumpy()[0]), np.int32)
    (text,) = from_root((Tensor(mine),))
    return json.loads(text.asnumpy().astype(np.uint8).tobytes())


@contextmanager
def together(process: Process) -> Iterator[None]:
    """Run a block that calls no collective and may fail on some ranks. If it fails on one, all end.

    Otherwise the other ranks would wait for that one in their next collective. Raises a UserError where another rank
    failed; the message names the first such rank and has its message.
    """
    error = None
    try:
        yield
    except Exception as caught:
        error = caught
    if not process.is_alone:
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
    if process.is_alone:
        return values * process.world_size  # in a dry run every rank has the same
    return ops.AllReduce()(Tensor(values)).asnumpy()

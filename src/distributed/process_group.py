"""The processes of a distributed run, one per device, and how one of them finds the others.

A launcher starts them and says in their environment how many there are: a rank table (RANK_TABLE_FILE,
RANK_ID, RANK_SIZE, DEVICE_ID; Ascend only), msrun (MS_ROLE, MS_WORKER_NUM) or mpirun (OMPI_COMM_WORLD_SIZE;
Ascend and GPU).
What they say is checked before anything is joined: a process that waits for others who never come would hang.
"""
import os
import re
from pathlib import Path
from typing import NamedTuple, Optional

from src.common.errors import UserError
from src.common.files import reason_of
from src.distributed import rank_table
from src.settings.types import shown

WORLD_SIZE_VARIABLES = ("MS_WORKER_NUM", "RANK_SIZE", "OMPI_COMM_WORLD_SIZE")


class CpuLibrary(NamedTuple):
    """The library of the CPU's own layers, in this process."""

    path: Path
    has_bfloat16: bool  # whether the CPU does


class Process(NamedTuple):
    """Where this process computes, and its place among the processes of the run."""

    device_target: str
    rank: int = 0
    world_size: int = 1
    cpu_library: Optional[CpuLibrary] = None  # MindSpore's own layers are taken without it
    is_dry_run: bool = False  # then the other ranks are not there, whatever ``world_size`` says

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which alone reads checkpoints and writes the run's folder."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is nobody to exchange values with."""
        return self.world_size == 1 or self.is_dry_run


def check_alone() -> None:
    """Raise UserError where this is one of several processes that would all write the same files."""
    for name in WORLD_SIZE_VARIABLES:
        if os.environ.get(name, "1") not in ("", "0", "1"):
            raise UserError(f"{name}={os.environ[name]}: this was started as one of several processes, which train.py "
                            "and linear_eval.py take with --run_distribute True; add it, or start one process")


def check_start(device_target: str, promised_devices: Optional[int]) -> None:
    """Check what the launcher says against the rank table, the device target and ``promised_devices``.

    Raises:
        UserError: they contradict each other, or this process was started alone.
    """
    table_file = os.environ.get("RANK_TABLE_FILE")
    name = next((name for name in WORLD_SIZE_VARIABLES if os.environ.get(name)), None)
    if name is None:
        raise UserError("--run_distribute: got True, but nothing says how many processes there are (no "
                        f"{' or '.join(WORLD_SIZE_VARIABLES)}); start them with run_distribution_train_ascend.sh or "
                        "run_distribution_train_msrun.sh of scripts/")
    if not re.fullmatch("[1-9][0-9]{0,4}", os.environ[name]):
        raise UserError(f"{name}: got {shown(os.environ[name])}, takes the number of processes, 1 to 99999, which the "
                        "launchers of scripts/ set")
    started = int(os.environ[name])
    port = os.environ.get("MS_SCHED_PORT", "8118")  # MindSpore's own
    if "MS_ROLE" in os.environ and not (re.fullmatch("[1-9][0-9]{0,4}", port) and int(port) < 2**16):
        raise UserError(f"MS_SCHED_PORT: got {shown(port)}, takes a port, 1 to 65535, which msrun sets (--master_port)")
    if table_file:
        _check_table(table_file, started, name)
    if device_target == "CPU" and "MS_ROLE" not in os.environ:
        raise UserError("--device_target: got CPU for processes that were not started by msrun; take "
                        "scripts/run_distribution_train_msrun.sh with DEVICE_TARGET=CPU")
    if promised_devices not in (None, started):
        raise UserError(f"--device_num: got {promised_devices}, but {started} processes were started "
                        f"({name}={started}); give both the same number")


def _check_table(file: str, started: int, name: str) -> None:
    """Check this process's place against the rank table's."""
    table = rank_table.read(file, "RANK_TABLE_FILE")
    if table.size != started:
        raise UserError(f"RANK_TABLE_FILE: {file} has {table.size} devices, but {started} processes were started "
                        f"({name}={started}); start one per device, or take a table of {started}")
    if "MS_ROLE" in os.environ:
        return  # msrun numbers the ranks itself
    rank, device = os.environ.get("RANK_ID", ""), os.environ.get("DEVICE_ID", "")
    if rank not in map(str, range(table.size)):
        raise UserError(f"RANK_ID: got {rank or 'nothing'}, takes a rank of {file}, 0 to {table.size - 1}")
    expected = table.devices[int(rank)].device_id
    if device != str(expected):
        raise UserError(f"DEVICE_ID: got {device or 'nothing'} for rank {rank}, takes {expected}, as {file} has it")


def join(device_target: str) -> Process:
    """Set this process's device and join the others through the back end's own library (HCCL, NCCL or MCCL).

    Raises:
        UserError: the others cannot be reached.
        RuntimeError: the device cannot be used.
    """
    import mindspore
    from mindspore import communication
    if os.environ.get("RANK_TABLE_FILE") and "MS_ROLE" not in os.environ:
        mindspore.set_device(device_target, int(os.environ["DEVICE_ID"]))
        where = f"the device_ip addresses of {os.environ['RANK_TABLE_FILE']} (hccn_tool -i 0 -ping -g address ...)"
    else:
        mindspore.set_device(device_target)  # MindSpore gives every process of a machine a device of its own
        address = ":".join(os.environ.get(name, "?") for name in ("MS_SCHED_HOST", "MS_SCHED_PORT"))
        where = f"MASTER_ADDR and MASTER_PORT (here {address}) and the firewalls between the machines"
    try:
        communication.init()
    except RuntimeError as error:
        reason = reason_of(error).split(". ")[0]  # MindSpore goes on with a list that is on other lines
        raise UserError(f"--run_distribute: the processes of this run cannot reach each other ({reason}); "
                        f"check that all of them were started, and {where}") from None
    # Gradients that may be fused go in messages of some 20 MB; without this they go one by one.
    mindspore.set_auto_parallel_context(parallel_mode=mindspore.ParallelMode.DATA_PARALLEL,
                                        comm_fusion={"allreduce": {"mode": "auto", "config": None}})
    return Process(device_target, communication.get_rank(), communication.get_group_size())

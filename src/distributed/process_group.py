"""The processes of a distributed run, one per device, and how they find each other.

A launcher starts them, and their environment says how many they are: with a rank table (RANK_TABLE_FILE, RANK_ID,
RANK_SIZE, DEVICE_ID; Ascend only), by msrun (MS_ROLE, MS_WORKER_NUM) or by mpirun (OMPI_COMM_WORLD_SIZE; Ascend and
GPU). The environment is checked before a process joins the others: one that waits for others who never come hangs.
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
_NUMBER = re.compile("[1-9][0-9]{0,4}")


class CpuLibrary(NamedTuple):
    """The library of the CPU's own layers, in this process."""

    path: Path
    has_bfloat16: bool  # whether oneDNN has it on this CPU


class Process(NamedTuple):
    """The device of this process, and its place among the processes of the run."""

    device_target: str
    rank: int = 0
    world_size: int = 1
    cpu_library: Optional[CpuLibrary] = None  # None: MindSpore's own layers
    is_dry_run: bool = False  # then the other ranks do not exist, whatever ``world_size`` says

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which alone reads checkpoints and writes the run's folder."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there are no other processes to exchange values with."""
        return self.world_size == 1 or self.is_dry_run


def check_alone(takes_run_distribute: bool) -> None:
    """Raise UserError where this is one of several processes that would all write the same files."""
    for name in WORLD_SIZE_VARIABLES:
        if os.environ.get(name, "1") not in ("", "0", "1"):
            also = "add --run_distribute True, or " if takes_run_distribute else ""
            raise UserError(f"{name}={os.environ[name]}: this was started as one of several processes, but runs as "
                            f"one; {also}start one process, without a launcher, or unset {name}")


def check_start(device_target: str, promised_devices: Optional[int]) -> None:
    """Check the launcher's variables against the rank table, the device target and ``promised_devices``.

    Raises a UserError where they contradict each other, or this process was started alone.
    """
    name = next((name for name in WORLD_SIZE_VARIABLES if os.environ.get(name)), None)
    if name is None:
        raise UserError("--run_distribute: got True, but nothing says how many processes there are (no "
                        f"{' or '.join(WORLD_SIZE_VARIABLES)}); start them with run_distribution_train_ascend.sh or "
                        "run_distribution_train_msrun.sh of scripts/")
    if not _NUMBER.fullmatch(os.environ[name]):
        raise UserError(f"{name}: got {shown(os.environ[name])}, takes the number of processes, 1 to 99999, which the "
                        "launchers of scripts/ set")
    world_size = int(os.environ[name])
    is_by_msrun = "MS_ROLE" in os.environ
    port = os.environ.get("MS_SCHED_PORT", "8118")  # MindSpore's own default
    if is_by_msrun and not (_NUMBER.fullmatch(port) and int(port) < 2**16):
        raise UserError(f"MS_SCHED_PORT: got {shown(port)}, takes a port, 1 to 65535, which msrun sets (--master_port)")
    if os.environ.get("RANK_TABLE_FILE"):
        table = rank_table.read(os.environ["RANK_TABLE_FILE"], "RANK_TABLE_FILE")
        if table.size != world_size:
            raise UserError(f"RANK_TABLE_FILE: {os.environ['RANK_TABLE_FILE']} has {table.size} devices, but "
                            f"{world_size} processes were started ({name}={world_size}); start one per device, or take "
                            f"a table of {world_size}")
        if not is_by_msrun:  # which numbers the ranks itself
            _check_place(table)
    if device_target == "CPU" and not is_by_msrun:
        raise UserError("--device_target: got CPU for processes that were not started by msrun; take "
                        "scripts/run_distribution_train_msrun.sh with DEVICE_TARGET=CPU")
    if promised_devices not in (None, world_size):
        raise UserError(f"--device_num: got {promised_devices}, but {world_size} processes were started "
                        f"({name}={world_size}); give both the same number")


def _check_place(table: rank_table.RankTable) -> None:
    """Check RANK_ID and DEVICE_ID of this process."""
    file, rank, device = (os.environ.get(name, "") for name in ("RANK_TABLE_FILE", "RANK_ID", "DEVICE_ID"))
    if rank not in map(str, range(table.size)):
        raise UserError(f"RANK_ID: got {rank or 'nothing'}, takes a rank of {file}, 0 to {table.size - 1}")
    expected = table.devices[int(rank)].device_id
    if device != str(expected):
        raise UserError(f"DEVICE_ID: got {device or 'nothing'} for rank {rank}, takes {expected}, as {file} has it")


def join(device_target: str) -> Process:
    """Set this process's device and join the others through the back end's library (HCCL, NCCL or MCCL).

    Raises a UserError where the others cannot be reached, and a RuntimeError where the device cannot be used.
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

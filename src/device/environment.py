"""Chooses the device and starts MindSpore on it: variables first, then the import, context, processes and seed."""
import glob
import logging
import os
import warnings
from typing import Callable, Optional

from src.common.errors import UserError
from src.common.files import reason_of
from src.common.logs import logger
from src.device import dry_run
from src.device.dry_run import is_dry_run
from src.distributed import process_group
from src.distributed.process_group import CpuLibrary, Process

# MindSpore's libraries read these variables while they are imported. The user's own values win. docs/results.md, CPU
# settings, says what they are worth.
CPU_SETTINGS = {
    # From 2.7.1 on the dispatch threads spin while they wait and take the cores from the kernels.
    "MS_DEV_HOST_BLOCKING_RUN": "1",
}
MINDSPORE_LAYERS_SETTINGS = {
    # oneDNN 3.10 (MindSpore 2.9 and 2.10) has no AVX-512 kernel for plain NCHW convolutions and falls back to a loop
    # that is 100 times slower. The CPU's own layers are channels-last, and use AVX-512.
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}
# Files of the drivers: looking for them is quicker than asking MindSpore, whose answer is not one line.
DEVICE_FILES = {"Ascend": ("/dev/davinci[0-9]*",), "GPU": ("/dev/nvidia[0-9]*", "/dev/dxg")}


def has_device(device_target: str) -> bool:
    """Whether this machine has a device of the kind ``device_target``; a dry run takes that for granted."""
    return (device_target == "CPU" or is_dry_run()
            or any(glob.glob(pattern) for pattern in DEVICE_FILES[device_target]))


def prepare(device_target: Optional[str], device_id: int, seed: int = 0, save_graphs_to: Optional[str] = None,
            distributed: Optional[bool] = None, promised_devices: Optional[int] = None,
            jit_level: Optional[str] = None,
            load_cpu_library: Optional[Callable[[], Optional[CpuLibrary]]] = None) -> Process:
    """Import MindSpore for a device, in graph mode, seed it and join the processes of a distributed run.

    Args:
        device_target: Ascend, GPU or CPU; None takes Ascend where one is present, else CPU.
        device_id: which of the machine's devices; in a distributed run the launcher decides.
        seed: of the weights and of everything else that MindSpore draws.
        save_graphs_to: folder for MindSpore's compiled graphs; None writes none.
        distributed: whether this process is one of several; None: its script has no --run_distribute.
        promised_devices: the world size that the user expects; None takes any.
        jit_level: MindSpore's; None takes the default of docs/ascend.md.
        load_cpu_library: loads the CPU's own layers; None takes MindSpore's.

    Raises a UserError where the device does not exist or cannot be used; the environment does not fit the flags.
    """
    target = device_target or ("Ascend" if has_device("Ascend") else "CPU")
    if is_dry_run():
        dry_run.check(target)
        logger.warning("dry run (%s=%s): %s", dry_run.VARIABLE, os.environ[dry_run.VARIABLE], dry_run.MEANING)
    if distributed:
        process_group.check_start(target, promised_devices)
    else:
        process_group.check_alone(takes_run_distribute=distributed is not None)
    if not has_device(target):
        raise UserError(f"--device_target: got {target}, but this machine has no such device (no file "
                        f"{' or '.join(DEVICE_FILES[target])}); check its driver, or take --device_target CPU")
    library = load_cpu_library() if load_cpu_library and target == "CPU" else None
    if target == "CPU":
        for name, value in {**CPU_SETTINGS, **({} if library else MINDSPORE_LAYERS_SETTINGS)}.items():
            os.environ.setdefault(name, value)
    if save_graphs_to is not None:
        os.environ.update(MS_DEV_SAVE_GRAPHS="1", MS_DEV_SAVE_GRAPHS_PATH=save_graphs_to)
    _quieten(bool(distributed))
    process = _start_mindspore(target, device_id, bool(distributed), jit_level, seed)
    return process._replace(cpu_library=library, is_dry_run=is_dry_run())


def _start_mindspore(target: str, device_id: int, distributed: bool, jit_level: Optional[str], seed: int) -> Process:
    import mindspore
    try:
        mindspore.set_context(mode=mindspore.GRAPH_MODE)
        if distributed:
            process = process_group.join(target)
        else:
            mindspore.set_device(target, device_id)
            process = Process(target)
        jit_level = jit_level or _jit_level_for(target)
        if jit_level:
            mindspore.set_context(jit_config={"jit_level": jit_level})
        mindspore.ops.ones(1).asnumpy()  # only the first kernel finds out that a device is missing
    except ImportError as error:
        raise UserError(f"MindSpore {mindspore.__version__} does not work with the packages installed here ({error}); "
                        "it needs NumPy below 2: pip install -r requirements.txt") from None
    except (RuntimeError, ValueError, TypeError) as error:
        reason = reason_of(error).rstrip(".")
        device = "in a distributed run" if distributed else f"device {device_id}"
        raise UserError(f"--device_target: got {target} ({device}), which MindSpore {mindspore.__version__} cannot use "
                        f"here ({reason}); check its driver, or take --device_target CPU") from None
    mindspore.set_seed(seed)
    return process


def _jit_level_for(target: str) -> Optional[str]:
    """Return the level with the fewest kernels, or None for MindSpore's own choice."""
    if target != "Ascend":
        return None
    from mindspore._c_expression import MSContext
    # The first generation compiles whole graphs (O2); its successors launch each kernel (O0), or fused ones (O1).
    return None if MSContext.get_instance().get_ascend_soc_version() == "ascend910" else "O1"


def _quieten(distributed: bool) -> None:
    """Hide MindSpore's warnings about its own code; every other warning still shows."""
    # "CommManager instance for CPU not found", at every start: logged by COMMON (2.10) or UTILS (2.7). In a
    # distributed run DISTRIBUTED, DEVICE and ME log every connection as a warning.
    modules = ("COMMON", "UTILS", "DISTRIBUTED", "DEVICE", "ME") if distributed else ("COMMON", "UTILS")
    os.environ.setdefault("MS_SUBMODULE_LOG_v", "{" + ",".join(f"{module}:3" for module in modules) + "}")
    for category in (DeprecationWarning, FutureWarning, SyntaxWarning):
        warnings.filterwarnings("ignore", category=category, module=r"mindspore(\..*)?")
    logging.getLogger(f"ME.mindspore.log.{os.getpid()}").addFilter(
        lambda record: "is deprecated from version" not in record.getMessage())

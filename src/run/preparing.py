"""How a script begins: with the device, before anything else imports MindSpore."""
import importlib.util

from src.common.errors import UserError
from src.common.logs import quieten
from src.device import environment
from src.distributed.process_group import Process
from src.layers.cpu import library
from src.run.layout import Layout
from src.settings.flags import RunFlags
from src.settings.given import Given


def prepare(given: Given) -> Process:
    """Import MindSpore for the device that the user asks for, and join the processes of a distributed run.

    Raises a UserError where the device, the processes or a package that the user has asked for are not there.
    """
    if not issubclass(given.settings_type, RunFlags):
        return environment.prepare(given["device_target"], given["device_id"])
    if given["quiet"]:
        quieten()
    if given["tensorboard"] and importlib.util.find_spec("tensorboardX") is None:
        raise UserError("--tensorboard: the package tensorboardX is not installed here; pip install tensorboardX, or "
                        "leave the flag out")
    graphs = str(Layout(given["train_output_path"]).graphs) if given["save_graphs"] else None
    return environment.prepare(given["device_target"], given["device_id"], given["seed"], graphs,
                               given["run_distribute"], given["device_num"], given["jit_level"],
                               library.load if given["cpu_layers"] == "own" else None)

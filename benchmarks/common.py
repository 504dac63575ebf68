"""Shared code of the benchmarks: workers, alternating rounds, networks, the machine, and saving a result.

Each side of a comparison has its own process, because the thread pools of two frameworks in one process compete for the
cores. The processes work in turn, one round each, so that other load on the machine slows down both sides.
"""
import argparse
import importlib.metadata
import json
import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

if TYPE_CHECKING:  # a parent imports no framework
    import numpy as np

    from src.distributed.process_group import Process
    from src.settings.network import Network
    from src.training.loop import Learner

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that `src` is found from any folder

RESULTS = ROOT / "benchmarks" / "results"
# What the project's launchers set. It is read when a process starts, so only the parent can set it.
LAUNCHER_ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
BUSY_CORES = 0.2  # kept busy by other processes: above it the comparison is not fair
PACKAGES = ("mindspore", "torch", "torchvision", "onnxruntime", "numpy", "pillow", "scikit-learn", "scipy")
# The projection and the flags' defaults that the speed does not depend on.
DIMENSION = 128
TEMPERATURE = 0.5
WEIGHT_DECAY = 3e-4


class Parent:
    """Connects a worker with the process that started it: one JSON object per line in each direction."""

    def __init__(self) -> None:
        self.answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what a framework prints goes to the console and not in between the answers

    def command(self) -> Dict[str, Any]:
        """Wait for the next command; end the process when the parent has closed the connection."""
        line = sys.stdin.readline()
        if not line:
            sys.exit(0)
        return json.loads(line)

    def answer(self, value: Dict[str, Any]) -> None:
        self.answers.write(json.dumps(value) + "\n")
        self.answers.flush()

    def serve(self, function: Callable[..., Dict[str, Any]]) -> None:
        """Answer every command with ``function``, called with the command's keys as keywords."""
        while True:
            self.answer(function(**self.command()))


Role = Callable[[argparse.Namespace, Parent], None]


class Worker:
    """A second process of the running script, which plays ``role``.

    The constructor waits for the role's first answer, ``facts``: workers are set up one after the other.
    ``environment`` is added to the process's own, in which a user's value wins.
    """

    def __init__(self, role: str, environment: Optional[Dict[str, str]] = None):
        self.role = role
        self.process = subprocess.Popen([sys.executable, *sys.argv, "--role", role], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env={**(environment or {}), **os.environ})
        self.facts = self.answer()

    def ask(self, **command: Any) -> Dict[str, Any]:
        """Send a command and wait for its answer."""
        self.send(**command)
        return self.answer()

    def send(self, **command: Any) -> None:
        """Send a command."""
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()

    def answer(self) -> Dict[str, Any]:
        """Wait for the next answer."""
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the worker {self.role} has ended without an answer; its messages stand above")
        return json.loads(line)


def run(parser: argparse.ArgumentParser, roles: Dict[str, Role],
        measure: Callable[[argparse.Namespace], None]) -> None:
    """Parse the command line, then play the role that a parent asked for or else ``measure``."""
    parser.add_argument("--role", choices=list(roles), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        roles[options.role](options, Parent())
    else:
        measure(options)


def alternate(workers: Sequence[Worker], rounds: int, **command: Any) -> Tuple[List[Dict[str, Any]], ...]:
    """Send the same command to the workers in turn, ``rounds`` times; return the answers of each."""
    answers: Tuple[List[Dict[str, Any]], ...] = tuple([] for _ in workers)
    for number in range(1, rounds + 1):
        for worker, its_answers in zip(workers, answers):
            its_answers.append(worker.ask(**command))
        sys.stderr.write(f"round {number} of {rounds}\n")
    return answers


def network(options: argparse.Namespace, **more: Any) -> "Network":
    """Return the network that the command line asks for, with a projection head; ``more`` as ``Network`` has it."""
    from src.settings.network import Network
    return Network(options.encoder, options.width_multiplier, projection_dimension=DIMENSION, **more)


def prepare(seed: int = 0, distributed: bool = False, cpu_layers: str = "own") -> "Process":
    """Import MindSpore for the CPU as the scripts do, with this project's CPU layers or with MindSpore's."""
    from src.device import environment
    from src.layers.cpu import library
    return environment.prepare("CPU", 0, seed, distributed=distributed,
                               load_cpu_library=library.load if cpu_layers == "own" else None)


def learner(network: "Network", process: "Process", rates: "np.ndarray", optimizer: str = "Adam",
            amp_level: str = "O0") -> "Learner":
    """Return the model and loss of train.py, with batch norm and negatives across devices."""
    from src.layers.encoder_layers import encoder_layers
    from src.nt_xent import NTXent
    from src.optimizer import build_optimizer
    from src.resnet import build_encoder
    from src.simclr_model import SimCLR, build_head
    from src.training.loop import learner_of

    layers = encoder_layers(process, True, amp_level)
    encoder = build_encoder(network, layers)
    model = SimCLR(encoder, build_head(encoder.features, network, layers.head_norm))
    loss = NTXent(TEMPERATURE, process.rank, process.world_size)
    built = build_optimizer(optimizer, model.trainable_params(), rates, WEIGHT_DECAY)
    found = learner_of(model, loss, built, rates, layers.float16_level, process.world_size, layers.gradient_norm())
    found.step.set_train()
    return found


def msrun(processes: int, log_folder: Path) -> List[str]:
    """Return the beginning of a command that starts a script in several processes on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [str(Path(sys.executable).with_name("msrun")), f"--worker_num={processes}",
            f"--local_worker_num={processes}", "--join=True", f"--log_dir={log_folder}", f"--master_port={port}"]


def own_path() -> str:
    """Return a PATH whose `python` is this one: msrun takes it from there."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def speed_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Dict[str, float]:
    """Return median and range of the rounds' speed ratios, from the seconds that each side took.

    Above 1 this project is faster.
    """
    ratios = [reference / own for own, reference in zip(ours, theirs)]
    return {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}


def cores() -> int:
    """Return how many cores this process may use; its workers may use the same ones."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory() -> float:
    """Return the peak resident memory of this process in MiB.

    Linux counts in the parent's own peak, so a parent should import no framework.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def mindspore_environment() -> Dict[str, Optional[str]]:
    """Return the variables that change MindSpore's speed, as this process has them."""
    from src.device.environment import CPU_SETTINGS, MINDSPORE_LAYERS_SETTINGS
    return {name: os.environ.get(name) for name in (*CPU_SETTINGS, *MINDSPORE_LAYERS_SETTINGS, *LAUNCHER_ENVIRONMENT)}


def machine() -> Dict[str, Any]:
    """Describe the machine and the versions in use; warn where other processes keep it busy."""
    description = {
        "cpu": _cpu_model(),
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "os": platform.platform(),
        "busy_cores_before": _busy_cores(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    }
    if (description["busy_cores_before"] or 0) > BUSY_CORES:
        sys.stderr.write(f"warning: other processes keep {description['busy_cores_before']} cores busy, and no figure "
                         "below means anything: PyTorch's OpenMP threads, for one, wait for each other\n")
    return description


def save(name: str, result: Dict[str, Any]) -> None:
    """Write ``result`` to results/<name>.json, under a temporary name first, and print its numbers."""
    result = {"benchmark": name, "date": time.strftime("%Y-%m-%d"), **result}
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, file)
    rows = list(_rows(result))
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        print(f"{key:<{width}}  {value}")
    print(f"\n{file}")


def _rows(value: Any, name: str = "") -> Iterator[Tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _rows(inner, f"{name}.{key}" if name else key)
    elif not isinstance(value, list):  # the rounds one by one are for the file
        yield name, f"{value:.4g}" if isinstance(value, float) else str(value)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _busy_cores(seconds: float = 2.0) -> Optional[float]:
    """Return how many cores are busy during some ``seconds``, or None on systems without /proc/stat."""
    def idle() -> float:
        fields = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()
        return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")

    try:
        before, begin = idle(), time.perf_counter()
        time.sleep(seconds)
        idle_cores = (idle() - before) / (time.perf_counter() - begin)
    except OSError:
        return None
    return round(max(0.0, (os.cpu_count() or 1) - idle_cores), 2)


def _version(package: str) -> Optional[str]:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

"""Give a reader of files what nobody thought of, for as long as one likes: whatever it does must be in its words.

    python3.11 -m venv /tmp/atheris && /tmp/atheris/bin/pip install atheris pyyaml
    /tmp/atheris/bin/python tests/long/fuzz_readers.py recipe --seconds 600

All but the first three take the project's own packages besides: PYTHONPATH=.venv/lib/python3.11/site-packages.
Atheris changes files so that they reach new lines of the reader. A finding is whatever is no UserError: another
exception, more than 5 s, more than 2 GB. It ends the run, which names the file that did it; another run of the same
reader with that file in place of --seconds shows it again. No test collects this.
"""
import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, List, NamedTuple

import atheris

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def recipe() -> Callable[[str], Any]:
    from src.settings.parsing import read_recipe
    from src.settings.scripts import TrainSettings
    return lambda path: read_recipe(path, TrainSettings)


def rank_table() -> Callable[[str], Any]:
    from src.distributed import rank_table
    return lambda path: rank_table.read(path, "RANK_TABLE_FILE")


def records() -> Callable[[str], Any]:
    from src.run import records
    return lambda path: records.read(Path(path))


def info() -> Callable[[str], Any]:
    from src.run import info

    def read(path: str) -> None:
        with info.believed(path):
            info.check(json.loads(Path(path).read_text(encoding="utf-8", errors="replace")))

    return read


def safetensors() -> Callable[[str], Any]:
    from src.weights import torch_files, torch_names

    def read(path: str) -> Any:
        named = Path(f"{path}.safetensors")
        Path(path).rename(named)
        return torch_names.recognise(torch_files.read(str(named), "flag")[0], path)

    return read


def metadata() -> Callable[[str], Any]:
    """The description of the network in a .safetensors file that is whole."""
    import numpy as np
    from safetensors.numpy import save_file

    from src.weights import encoders, torch_files
    from src.weights.torch_names import Recognised
    recognised = Recognised({"encoder": "resnet18", "width_multiplier": 0.5}, {}, "")

    def read(path: str) -> Any:
        named = f"{path}.safetensors"
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        save_file({"conv1.weight": np.zeros(1, np.float32)}, named, {torch_files.DESCRIPTION: text})
        _, description = torch_files.read(named, "flag")
        return encoders.from_torch(recognised, description, named, "flag")

    return read


def cifar() -> Callable[[str], Any]:
    from src.data.cifar import CIFAR10_FILES
    return lambda path: CIFAR10_FILES.read([Path(path)], 32)


def stl10() -> Callable[[str], Any]:
    from src.data.stl10 import Stl10
    return lambda path: Stl10().read([Path(path), Path(path)], 96)


def image() -> Callable[[str], Any]:
    from src.data.any_image import read_image
    from src.data.image_files import check_ends

    def read(path: str) -> None:
        check_ends(Path(path), 8)
        read_image(Path(path), 10, 8)

    return read


def settings() -> Callable[[str], Any]:
    from src.report import runs
    return lambda path: runs._config(Path(path))


class Reader(NamedTuple):
    """How a kind of file is read, by a function that imports what it needs, and files to begin with."""

    load: Callable[[], Callable[[str], Any]]
    seeds: str = "no file"  # a pattern below the project's folder
    odd_seed: bytes = b""  # with what those have not: as much of the format as possible


READERS = {
    "recipe": Reader(recipe, "configs/*.yaml", b"""%YAML 1.1
%TAG !a! tag:b,2000:
---
"batch\\x5Fsize": '64'
? encoder
: !!str "resnet\\u0031\\U00000038"
stem: &a >-
  cifar
{seed: *a, lr_schedule: [1, {b: ~}]}: |+
...
"""),
    "rank_table": Reader(rank_table, "tests/rank_tables/*.json"),
    "records": Reader(records, odd_seed=b'{"kind": "pretrain", "epoch": 1, "loss": 0.5}\n'),
    "settings": Reader(settings, "configs/*.yaml"),
    "info": Reader(info, odd_seed=b"""{"holds": "simclr", "epoch": 3, "settings": {"dataset_name": "cifar10"},
"network": {"encoder": "resnet18", "width_multiplier": 0.5, "mean": [0.1, 0.2, 0.3], "std": [0.2, 0.2, 0.2]}}"""),
    "safetensors": Reader(safetensors, odd_seed=b"\x51\0\0\0\0\0\0\0" + (
        b'{"layer1.0.conv1.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}') + bytes(4)),
    "metadata": Reader(metadata, odd_seed=b"""{"dataset_name": "cifar10", "pretrain_epoch_size": 3, "stem": "cifar",
"image_size": 32, "normalize": true, "mean": [0.1, 0.2, 0.3], "std": [0.2, 0.2, 0.2]}"""),
    "cifar": Reader(cifar, odd_seed=bytes(3073)),
    "stl10": Reader(stl10, odd_seed=bytes(3 * 96 * 96)),
    "image": Reader(image, "docs/*.png"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("finding", nargs="?", type=Path, help="a file to read once more")
    parser.add_argument("--seconds", type=int, default=600)
    options = parser.parse_args()
    logging.disable()  # a warning for every file
    with atheris.instrument_imports(include=["src", "yaml", "json"]):  # of large packages it takes minutes
        from src.common.errors import UserError, printable
        read = READERS[options.reader].load()
    folder = tempfile.mkdtemp(prefix=f"fuzz-{options.reader}-")
    file = Path(folder) / "file"

    def one(content: bytes) -> None:
        file.write_bytes(content)
        try:
            read(str(file))
        except UserError as error:
            line = printable(str(error))
            assert line.strip() and line.isprintable()

    if options.finding:
        one(options.finding.read_bytes())
        return
    atheris.Setup([sys.argv[0], *_limits(options.seconds, folder), _corpus(folder, READERS[options.reader])], one)
    atheris.Fuzz()


def _limits(seconds: int, folder: str) -> List[str]:
    return [f"-max_total_time={seconds}", "-timeout=5", "-rss_limit_mb=2048", "-max_len=65536",
            f"-artifact_prefix={folder}/finding-", "-print_final_stats=1"]


def _corpus(folder: str, reader: Reader) -> str:
    corpus = Path(folder) / "corpus"
    corpus.mkdir()
    for seed in ROOT.glob(reader.seeds):
        (corpus / seed.name).write_bytes(seed.read_bytes())
    (corpus / "odd").write_bytes(reader.odd_seed)
    return str(corpus)


if __name__ == "__main__":
    main()

"""Settings that are refused: status 2, one line that names the culprit, and nothing is written.

Flags, recipes, rank tables, the environment of distributed runs, and the arguments of the launchers.
"""
import copy
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT, Result, state_of, write_cifar
from PIL import Image
from refusals import SECONDS, case, check_refused, refuse, refuse_in_a_process

from src.common.errors import UserError, printable
from src.distributed import process_group
from src.settings.given import flags_of
from src.settings.parsing import parse
from src.settings.scripts import SCRIPTS
from src.settings.types import PATH

SHELL = shutil.which("dash") or "sh"
TABLES = ROOT / "tests" / "rank_tables"
ESCAPES = "a\x1b[2J\nb"  # clears a terminal
ESCAPED = re.escape(r"a\x1b[2J\nb")
NO_UTF8, NO_UTF8_PRINTED = os.fsdecode(b"\xff\xfe"), re.escape(r"\udcff\udcfe")
LONG = "n" * 300

RUN = ("--train_dataset_path", "data", "--train_output_path", "run", "--cpu_layers", "mindspore")
TRAIN = ("train.py", *RUN)
EVAL = ("linear_eval.py", "--encoder_checkpoint_path", "model.ckpt", *RUN)
TUNE = ("finetune.py", "--encoder_checkpoint_path", "model.ckpt", *RUN)
EXPORT = ("export.py", "--ckpt_simclr_encoder", "model.ckpt")
CONVERT = ("convert.py", "--source_path", "weights.pth", "--target_path", "new.ckpt")
TABLE = ("scripts/rank_table.py",)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A user's folder, with data and everything that a user may name by mistake."""
    folder = tmp_path_factory.mktemp("bad_settings")
    write_cifar(folder / "data")
    for number in range(4):
        photo = folder / "photos" / "cat" / f"{number}.png"
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(photo)
    (folder / "model.ckpt").write_bytes(b"no checkpoint")
    (folder / "weights.pth").write_bytes(b"no weights")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    (folder / "large").write_bytes(b"batch_size: 64\n" + b"# more\n" * 10_000)
    return folder


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    """Remove what a launcher sets from the environment."""
    for name in (*process_group.WORLD_SIZE_VARIABLES, "RANK_TABLE_FILE", "RANK_ID", "DEVICE_ID", "MS_ROLE", "SERVER_ID",
                 "NODE_NUM", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "DEVICE_TARGET", "FOREGROUND"):
        monkeypatch.delenv(name, raising=False)


def check_parsing(script, argv, culprit):
    """Check that the arguments of a script are refused before it does anything."""
    with pytest.raises(UserError) as error:
        parse(SCRIPTS[script], list(map(str, argv)))
    line = printable(str(error.value))
    assert error.value.status == 2 and line.isprintable() and len(line) < 600
    assert re.search(culprit, line), line


# --- flags ---

@pytest.mark.parametrize("command, culprit", [
    case("word", (*TRAIN, "--batch_size", "many"), "--batch_size: got 'many', takes an integer of at least 2"),
    case("no value", (*TRAIN, "--batch_size"), "--batch_size: got no value"),
    case("the last of two", (*TRAIN, "--seed", "1", "--seed", "two"), "--seed: got 'two'"),
    case("no choice", (*TRAIN, "--optimizer", "Lion"), "--optimizer: got 'Lion', takes one of Adam, SGD, LARS"),
    case("escapes", (*TRAIN, "--encoder", ESCAPES), "--encoder: got '" + ESCAPED),
    case("long", (*TRAIN, "--encoder", "x" * 100_000), "--encoder: got 'x+[.]{3}x+'"),
    case("unknown, near", (*TRAIN, "--bach_size", "8"), "--bach_size: .*did you mean batch_size"),
    case("unknown, of another script", (*EXPORT, "--epoch_size", "8"), "--epoch_size: "),
    case("unknown, escapes", (*EXPORT, "--" + ESCAPES), "--" + ESCAPED),
    case("accumulation", (*TRAIN, "--accumulate_steps", "4"), "--accumulate_steps: .*gradient accumulation"),
    case("value alone", (*CONVERT, "cifar10"), "'cifar10': got a value without a flag"),
    case("minus before a number", (*TRAIN, "--learning_rate", "-1e-3"), "'-1e-3': got a value.*--name=value"),
    case("required", EVAL[:1], "--encoder_checkpoint_path: got nothing"),
    case("required, of two", CONVERT[:3], "--target_path: got nothing"),
    case("suffix", ("convert.py", "--source_path", "a", "--target_path", "b"), "--target_path: got b"),
    case("rate twice", (*TRAIN, "--lr_scaling", "sqrt", "--learning_rate", "1"), "--lr_scaling: got sqrt"),
    case("warm-up", (*TRAIN, "--epoch_size", "5", "--warmup_epochs", "5"), "--warmup_epochs: got 5.0"),
    case("epochs of no weights", (*TRAIN, "--pretrain_epoch_size", "5"), "--pretrain_epoch_size: got 5"),
    case("seeds beyond 32 bits", (*TUNE, "--seed", 2**32 - 1, "--repeat", 2), "--repeat: got 2"),
    case("nothing to repeat", (*EVAL, "--protocol", "knn", "--repeat", 3), "--repeat: got 3"),
    case("devices of one process", (*TRAIN, "--device_num", 8), "--device_num: got 8"),
    case("device of a rank", (*TRAIN, "--run_distribute", "--device_id", 0), "--device_id: got 0"),
    case("not in the cloud", (*EVAL, "--data_url", "s3://x"), "--data_url: got s3://x"),
])
def test_flags(command, culprit):
    check_parsing(command[0], command[1:], culprit)


def test_paths_that_cannot_be():
    for script, settings_type in SCRIPTS.items():
        for field in flags_of(settings_type):
            if field.metadata["takes"] is PATH:
                for text in ("", LONG, "a/" * 3000, "a\0b", "\ud800"):
                    check_parsing(script, [f"--{field.name}={text}"], f"--{field.name}: got (no value|')")


SMALL = ("--encoder", "resnet18", "--width_multiplier", "0.0625", "--batch_size", "2", "--num_parallel_workers", "1")


@pytest.mark.parametrize("command, culprit", [
    case("batch beyond the images", (*TRAIN, "--batch_size", 101), "--batch_size: got 101"),
    case("samples beyond the images", (*TRAIN, "--num_samples", 10**20), "--num_samples: got '?10{20}"),
    case("side of other images", (*TRAIN, "--image_size", 64), "--dataset_name: got cifar10"),
    case("threads beyond the cores", (*TRAIN, "--num_parallel_workers", 10**6), "--num_parallel_workers: got '?10{6}"),
    case("resumed, of no run", (*TRAIN, "--resume", "--warmup_epochs", "1e308"), r"--warmup_epochs: got 1e\+308"),
    case("no checkpoint", EVAL, "model.ckpt"),
    case("predict.py without anything", ("predict.py",), "MODEL, IMAGE"),
    case("predict.py, unknown flag", ("predict.py", "model.ckpt", "data", "--frob"), "--frob"),
    case("predict.py, device", ("predict.py", "model.ckpt", "data", "--device_target", "TPU"), "'TPU'"),
    case("predict.py, features", ("predict.py", "m", "data", "--features", "a.txt"), "--features: got a.txt"),
    case("predict.py, both", ("predict.py", "m", "data", "--json", "--features", "a.npz"), "--features"),
    case("report.py, no run", ("report.py", "data"), "data"),
    case("check_data.py, no folder", ("scripts/check_data.py", "cifar10", "nowhere"), "nowhere"),
    case("data in a file", (*TRAIN, "--train_dataset_path", "model.ckpt"), "--train_dataset_path: model.ckpt"),
    *(case(f"run in {folder}", (*TRAIN, *SMALL, "--train_output_path", folder), "--train_output_path: .*" + shown)
      for folder, shown in (("model.ckpt", "model.ckpt"), ("model.ckpt/run", "model.ckpt/run"), ("loop/run", "loop"),
                            ("/proc/nowhere", "/proc/nowhere"), (f"pipe/{NO_UTF8}", NO_UTF8_PRINTED))),
    case("run of photos in a file", (*TRAIN, *SMALL, "--dataset_name", "imagefolder", "--image_size", "32",
                                     "--train_dataset_path", "photos", "--train_output_path", "model.ckpt/run"),
         "--train_output_path: .*model.ckpt/run"),
])
def test_scripts(place, command, culprit):
    refuse(command, place, culprit)


# --- recipes ---

@pytest.mark.parametrize("content, culprit", [
    case("empty", b"# nothing\n", "has no flags"),
    case("list", b"- batch_size: 64\n", "has no flags"),
    case("unknown", b"seed: 1\nbatchsize: 64\n", "line 2: batchsize: .*did you mean batch_size"),
    case("merge", b"batch_size: &b 64\n<<: *b\n", "line 2: <<: "),
    case("twice", b"seed: 1\nbatch_size: 64\nseed: 2\n", "line 3: seed is given twice"),
    case("value that is a list", b"batch_size: [64, 32]\n", "line 1: has a list"),
    case("value that is a mapping", b"encoder: {a: b}\n", "line 1: has a list or a mapping"),
    case("key that is a list", b"? [1, 2]\n: 3\n", "line 1: has a list"),
    case("wrong value", b"batch_size: many\n", "line 1: batch_size: got 'many', takes an integer"),
    case("one", b"normalize: 1\n", "line 1: normalize: got '1'"),
    case("escapes", b'encoder: "a\\e[2J\\nb"\n', ESCAPED),
    case("beyond Unicode", b'encoder: "\\UFFFFFFFF"\n', "is not YAML"),
    case("python", b"batch_size: !!python/object/apply:os.system ['touch owned']\n", "has a list"),
    case("deep", b"batch_size: " + b"{a: " * 5_000, "is not YAML"),
    case("bomb", b"batch_size: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
        b"epoch_size: &%c [%s]\n" % (98 + i, b", ".join([b"*%c" % (97 + i)] * 9)) for i in range(9)), "has a list"),
    case("no end", b"encoder: 'resnet18\n", "is not YAML"),
    case("binary", bytes(range(256)), "is not text in UTF-8"),
    case("flags that contradict", b"warmup_epochs: 5\nepoch_size: 5\n", "--warmup_epochs: got 5.0"),
])
def test_recipes(tmp_path, content, culprit):
    (tmp_path / "recipe.yaml").write_bytes(content)
    check_parsing("train.py", ["--config", tmp_path / "recipe.yaml"], culprit)
    assert os.listdir(tmp_path) == ["recipe.yaml"]


@pytest.mark.parametrize("file", ["nowhere.yaml", "data", "pipe", "/dev/zero", "loop", "model.ckpt/a.yaml", "large"])
def test_files_that_are_no_recipe(place, monkeypatch, file):
    monkeypatch.chdir(place)
    check_parsing("train.py", ["--config", file], f"--config: {file}: ")


# --- rank tables ---

GOOD = json.loads((TABLES / "2x8p.json").read_text())
DEVICE = ("server_list", 1, "device", 0)


@pytest.mark.parametrize("fields, value", [
    case("no servers", ("server_list",), None), case("no devices", ("server_list", 1, "device"), None),
    case("rank missing", (*DEVICE, "rank_id"), "16"), case("rank twice", (*DEVICE, "rank_id"), "15"),
    case("device twice", (*DEVICE, "device_id"), "7"), case("address twice", (*DEVICE, "device_ip"), "192.168.100.101"),
])
def test_rank_tables(place, tmp_path, fields, value):
    document = copy.deepcopy(GOOD)
    part = document
    for name in fields[:-1]:
        part = part[name]
    part[fields[-1]] = value
    (tmp_path / "table.json").write_text(json.dumps(document))
    refuse((*TABLE, "check", tmp_path / "table.json"), place, "table.json")


@pytest.mark.parametrize("file", ["nowhere.json", "/dev/zero", "pipe", "model.ckpt", NO_UTF8])
def test_files_that_are_no_rank_table(place, file):
    refuse((*TABLE, "check", file), place, NO_UTF8_PRINTED if file == NO_UTF8 else file)


@pytest.mark.parametrize("arguments, culprit", [
    case("nothing", (), "command"),
    case("no devices", ("make", "t.json", "10.0.0.1"), "make: "),
    case("device twice", ("make", "t.json", "a", "0=10.0.0.1", "0=10.0.0.2"), "0"),
    case("over a file", ("make", "model.ckpt", "a", "0=10.0.0.1"), "model.ckpt"),
    case("no hccn.conf", ("make", "t.json", "a", "--hccn_conf", "weights.pth"), "weights.pth"),
    case("merged twice", ("merge", "t.json", TABLES / "2p.json", TABLES / "2p.json"), "10.155.111.140"),
    case("ranks of which server", ("ranks", TABLES / "2x8p.json"), "SERVER_ID"),
])
def test_calls_of_rank_table(place, arguments, culprit):
    refuse((*TABLE, *arguments), place, culprit)


# --- the environment of a distributed run ---

EIGHT = {"RANK_TABLE_FILE": str(TABLES / "8p.json"), "RANK_SIZE": "8", "RANK_ID": "3", "DEVICE_ID": "3"}


@pytest.mark.parametrize("variables, culprit", [
    case("nothing", {}, "--run_distribute: got True"),
    case("no number", {"MS_WORKER_NUM": "two"}, "MS_WORKER_NUM: got 'two'"),
    case("escapes", {"OMPI_COMM_WORLD_SIZE": ESCAPES}, "OMPI_COMM_WORLD_SIZE: got '" + ESCAPED),
    case("rank beyond", {**EIGHT, "RANK_ID": "8"}, "RANK_ID: got 8"),
    case("device", {**EIGHT, "DEVICE_ID": "4"}, "DEVICE_ID: got 4"),
    case("size", {**EIGHT, "RANK_SIZE": "4"}, "8 devices, but 4 processes"),
    case("table", {**EIGHT, "RANK_TABLE_FILE": "pipe"}, "RANK_TABLE_FILE: pipe"),
    case("port", {"MS_WORKER_NUM": "2", "MS_ROLE": "MS_WORKER", "MS_SCHED_PORT": "65536"}, "MS_SCHED_PORT: got '65536"),
    case("no msrun", {"RANK_SIZE": "2"}, "--device_target: got CPU"),
])
def test_environment_of_a_rank(place, monkeypatch, variables, culprit):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    refuse((*TRAIN, "--device_target", "CPU", "--run_distribute", "True"), place, culprit)


@pytest.mark.parametrize("name", process_group.WORLD_SIZE_VARIABLES)
def test_environment_of_a_process_alone(place, monkeypatch, name):
    monkeypatch.setenv(name, "8")
    refuse(EVAL, place, f"{name}=8")


# --- launchers ---

TRAIN_CPU, EVAL_CPU = "run_standalone_train_cpu.sh", "run_standalone_eval_cpu.sh"
TRAIN_ASCEND, RANKS = "run_standalone_train_ascend.sh", "run_distribution_train_ascend.sh"
MSRUN = "run_distribution_train_msrun.sh"
DATA, TWO = ("cifar10", "data"), str(TABLES / "2p.json")


@pytest.mark.parametrize("name, arguments, variables, culprit", [
    case("data set", TRAIN_CPU, ("mnist", "data"), {}, "'mnist'"),
    case("data set of escapes", TRAIN_CPU, ("\x1b[2J\x07", "data"), {}, r"'[?]\[2J[?]'"),
    case("no data", TRAIN_CPU, ("cifar10", "loop"), {}, "TRAIN_DATASET_PATH: loop"),
    case("model", EVAL_CPU, ("cifar10", "no.ckpt", "data", "data"), {}, "SIMCLR_MODEL_PATH: .*no.ckpt"),
    case("python", TRAIN_CPU, DATA, {"PYTHON": "nopython"}, "nopython"),
    case("device", TRAIN_ASCEND, (*DATA, "0x1"), {}, "DEVICE_ID: got '0x1'"),
    case("table", RANKS, ("no.json", *DATA), {}, "RANK_TABLE_FILE: .*no.json"),
    case("table of two servers", RANKS, (str(TABLES / "2x8p.json"), *DATA), {}, "SERVER_ID"),
    case("server", RANKS, (TWO, *DATA), {"SERVER_ID": ESCAPES}, "SERVER_ID: got '" + ESCAPED),
    case("devices", MSRUN, ("08", *DATA), {}, "DEVICE_NUM: got '08'"),
    case("target", MSRUN, ("2", *DATA), {"DEVICE_TARGET": "tpu"}, "DEVICE_TARGET: got 'tpu'"),
    case("node beyond", MSRUN, ("2", *DATA), {"NODE_NUM": "2", "NODE_RANK": "2"}, "NODE_RANK: got '2'"),
    case("port", MSRUN, ("2", *DATA), {"MASTER_PORT": "80"}, "MASTER_PORT: got '80'"),
    case("address of others", MSRUN, ("2", *DATA), {"MASTER_ADDR": "203.0.113.1"}, "MASTER_ADDR: got 203.0.113.1"),
    case("quickstart", "quickstart.sh", ("nowhere",), {}, "nowhere"),
])
def test_launchers(place, name, arguments, variables, culprit):
    before = state_of(place)
    done = subprocess.run([SHELL, str(ROOT / "scripts" / name), *arguments], cwd=place, capture_output=True,
                          timeout=SECONDS, env={**os.environ, "PYTHON": sys.executable, **variables}, text=True)
    check_refused(Result(done.returncode, done.stdout, done.stderr), culprit)
    assert state_of(place) == before


# --- started as by a user ---

@pytest.mark.parametrize("command, culprit", [
    case("flag", (*TRAIN, "--bach_size", "8"), "^train.py: --bach_size: "),
    case("flag of no UTF-8", (*EXPORT, "--" + NO_UTF8), "^export.py: --" + NO_UTF8_PRINTED),
    case("recipe", (*EVAL, "--config", "large"), "^linear_eval.py: --config: large: "),
    case("table", (*TABLE, "check", "pipe"), "^rank_table.py: .*pipe"),
])
def test_processes(place, command, culprit):
    refuse_in_a_process(command, place, culprit)

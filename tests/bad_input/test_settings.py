"""Settings that are refused: status 2, one line that names the culprit, and nothing is written.

Flags, recipes, rank tables, the environment of distributed runs, and the arguments of the launchers.
"""
import os
import re
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT, Result, state_of, write_cifar
from refusals import SECONDS, case, check_refused, refuse, refuse_in_a_process

from src.common.errors import UserError, printable
from src.distributed import process_group
from src.settings.given import flags_of
from src.settings.parsing import parse
from src.settings.scripts import SCRIPTS
from src.settings.types import PATH

SHELL = shutil.which("dash") or "sh"
ESCAPES = "a\x1b[2J\nb"  # clears a terminal
ESCAPED = re.escape(r"a\x1b[2J\nb")
NO_UTF8, NO_UTF8_PRINTED = os.fsdecode(b"\xff\xfe"), re.escape(r"\udcff\udcfe")
LONG = "n" * 300

RUN = ("--train_dataset_path", "data", "--train_output_path", "run", "--cpu_layers", "mindspore")
TRAIN = ("train.py", *RUN)
EVAL = ("linear_eval.py", "--encoder_checkpoint_path", "model.ckpt", *RUN)
TUNE = ("finetune.py", "--encoder_checkpoint_path", "model.ckpt", *RUN)
EXPORT = ("export.py", "--ckpt_simclr_encoder", "model.ckpt")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A user's folder, with data and everything that a user may name by mistake."""
    folder = tmp_path_factory.mktemp("bad_settings")
    write_cifar(folder / "data")
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
    case("no value", (*TRAIN, "--batch_size"), "--batch_size: got no value"),
    case("the last of two", (*TRAIN, "--seed", "1", "--seed", "two"), "--seed: got 'two'"),
    case("no choice", (*TRAIN, "--optimizer", "Lion"), "--optimizer: got 'Lion', takes one of Adam, SGD, LARS"),
    case("escapes", (*TRAIN, "--encoder", ESCAPES), "--encoder: got '" + ESCAPED),
    case("unknown, near", (*TRAIN, "--bach_size", "8"), "--bach_size: .*did you mean batch_size"),
    case("value alone", (*EXPORT, "cifar10"), "'cifar10'"),
    case("required", EVAL[:1], "--encoder_checkpoint_path: "),
    case("suffix", ("convert.py", "--source_path", "a", "--target_path", "b"), "--target_path: got b"),
    case("rate twice", (*TRAIN, "--lr_scaling", "sqrt", "--learning_rate", "1"), "--lr_scaling: got sqrt"),
    case("warm-up", (*TRAIN, "--epoch_size", "5", "--warmup_epochs", "5"), "--warmup_epochs: got 5.0"),
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
    case("threads beyond the cores", (*TRAIN, "--num_parallel_workers", 10**6), "--num_parallel_workers: got '?10{6}"),
    case("predict.py without anything", ("predict.py",), "MODEL, IMAGE"),
    case("predict.py, both", ("predict.py", "m", "data", "--json", "--features", "a.npz"), "--features"),
    case("check_data.py, no folder", ("scripts/check_data.py", "cifar10", "nowhere"), "nowhere"),
    case("data in a file", (*TRAIN, "--train_dataset_path", "model.ckpt"), "--train_dataset_path: model.ckpt"),
    *(case(f"run in {folder}", (*TRAIN, *SMALL, "--train_output_path", folder), "--train_output_path: .*" + shown)
      for folder, shown in (("model.ckpt", "model.ckpt"), ("loop/run", "loop"), (f"pipe/{NO_UTF8}", NO_UTF8_PRINTED))),
])
def test_scripts(place, command, culprit):
    refuse(command, place, culprit)


# --- recipes ---

@pytest.mark.parametrize("content, culprit", [
    case("list", b"- batch_size: 64\n", "has no flags"),
    case("unknown", b"seed: 1\nbatchsize: 64\n", "line 2: batchsize: .*did you mean batch_size"),
    case("twice", b"seed: 1\nbatch_size: 64\nseed: 2\n", "line 3: seed is given twice"),
    case("value that is a mapping", b"encoder: {a: b}\n", "line 1: has a list or a mapping"),
    case("wrong value", b"batch_size: many\n", "line 1: batch_size: got 'many', takes an integer"),
    case("beyond Unicode", b'encoder: "\\UFFFFFFFF"\n', "is not YAML"),
    case("python", b"batch_size: !!python/object/apply:os.system ['touch owned']\n", "has a list"),
    case("bomb", b"batch_size: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
        b"epoch_size: &%c [%s]\n" % (98 + i, b", ".join([b"*%c" % (97 + i)] * 9)) for i in range(9)), "has a list"),
    case("binary", bytes(range(256)), "is not text in UTF-8"),
    case("flags that contradict", b"warmup_epochs: 5\nepoch_size: 5\n", "--warmup_epochs: got 5.0"),
])
def test_recipes(tmp_path, content, culprit):
    (tmp_path / "recipe.yaml").write_bytes(content)
    check_parsing("train.py", ["--config", tmp_path / "recipe.yaml"], culprit)
    assert os.listdir(tmp_path) == ["recipe.yaml"]


@pytest.mark.parametrize("file", ["nowhere.yaml", "pipe", "large"])
def test_files_that_are_no_recipe(place, monkeypatch, file):
    monkeypatch.chdir(place)
    check_parsing("train.py", ["--config", file], f"--config: {file}: ")


# --- rank tables and the environment of a distributed run; more in tests/unit/distributed and tests/unit/device ---

@pytest.mark.parametrize("arguments, culprit", [
    case("nothing", (), "command"), case("pipe", ("check", "pipe"), "pipe"),
    case("name of no UTF-8", ("check", NO_UTF8), NO_UTF8_PRINTED),
    case("no hccn.conf", ("make", "t.json", "a", "--hccn_conf", "weights.pth"), "weights.pth"),
])
def test_calls_of_rank_table(place, arguments, culprit):
    refuse(("scripts/rank_table.py", *arguments), place, culprit)


@pytest.mark.parametrize("name, value, culprit", [
    case("nothing", "MS_ROLE", "", "--run_distribute: got True"),
    case("escapes", "OMPI_COMM_WORLD_SIZE", ESCAPES, "OMPI_COMM_WORLD_SIZE: got '" + ESCAPED),
])
def test_environment_of_a_rank(place, monkeypatch, name, value, culprit):
    monkeypatch.setenv(name, value)
    refuse((*TRAIN, "--device_target", "CPU", "--run_distribute", "True"), place, culprit)


# --- launchers; more in tests/run ---

DATA = ("cifar10", "data")


@pytest.mark.parametrize("name, arguments, variables, culprit", [
    case("data set of escapes", "standalone_train_cpu", ("\x1b[2J\x07", "data"), {}, r"'[?]\[2J[?]'"),
    case("model", "standalone_eval_cpu", ("cifar10", "no.ckpt", "data", "data"), {}, "SIMCLR_MODEL_PATH: .*no.ckpt"),
    case("device", "standalone_train_ascend", (*DATA, "0x1"), {}, "DEVICE_ID: got '0x1'"),
    case("server", "distribution_train_ascend", (str(ROOT / "tests/rank_tables/2p.json"), *DATA),
         {"SERVER_ID": ESCAPES}, "SERVER_ID: got '" + ESCAPED),
    case("port", "distribution_train_msrun", ("2", *DATA), {"MASTER_PORT": "80"}, "MASTER_PORT: got '80'"),
])
def test_launchers(place, name, arguments, variables, culprit):
    before = state_of(place)
    done = subprocess.run([SHELL, str(ROOT / "scripts" / f"run_{name}.sh"), *arguments], cwd=place, capture_output=True,
                          timeout=SECONDS, env={**os.environ, "PYTHON": sys.executable, **variables}, text=True)
    check_refused(Result(done.returncode, done.stdout, done.stderr), culprit)
    assert state_of(place) == before


# --- started as by a user ---

def test_a_process(place):
    refuse_in_a_process((*EXPORT, "--" + NO_UTF8), place, "^export.py: --" + NO_UTF8_PRINTED)

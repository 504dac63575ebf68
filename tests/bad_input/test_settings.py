"""What nobody can take as settings: each is one line that names the culprit and the remedy, and nothing is written.

Flags, recipes, rank tables, the environment of distributed runs, and the arguments of the launchers.
"""
import copy
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys

import pytest
from helpers import ROOT, Result, call_script, refused, start_script, state_of, write_cifar
from PIL import Image

from src.distributed import process_group
from src.settings.given import flags_of
from src.settings.scripts import SCRIPTS
from src.settings.types import PATH

SHELL = shutil.which("dash") or "sh"
TABLES = ROOT / "tests" / "rank_tables"
MOST = 5  # seconds
ESCAPES = "a\x1b[2J\nb"  # clears a terminal; printed as what follows
ESCAPED = re.escape(r"a\x1b[2J\nb")
NO_UTF8, NO_UTF8_PRINTED = os.fsdecode(b"\xff\xfe"), re.escape(r"\udcff\udcfe")
LONG = "n" * 300

RUN = ("--train_dataset_path", "data", "--train_output_path", "run", "--cpu_layers", "mindspore")  # which are there
EVAL = ("linear_eval.py", "--encoder_checkpoint_path", "model.ckpt", *RUN)
TUNE = ("finetune.py", "--encoder_checkpoint_path", "model.ckpt", *RUN)
EXPORT = ("export.py", "--ckpt_simclr_encoder", "model.ckpt")
CONVERT = ("convert.py", "--source_path", "weights.pth", "--target_path", "new.ckpt")
TRAIN = ("train.py", *RUN)
VIEWS = ("scripts/show_views.py", *RUN)
TABLE = ("scripts/rank_table.py",)

RECIPES = {
    "empty": (b"", "holds no flags", "write lines such as `batch_size: 128`"),
    "comment": (b"# nothing\n", "holds no flags", "write lines"),
    "words": (b"just words\n", "holds no flags", "write lines"),
    "list": (b"- batch_size: 64\n", "holds no flags", "write lines"),
    "empty_mapping": (b"{}\n", "holds no flags", "write lines"),
    "nested": (b"settings:\n  batch_size: 64\n", "settings: unknown flag", "--help lists all flags"),
    "deep": (b"[" * 60_000, "holds no flags", "write lines"),
    "deep_value": (b"batch_size: " + b"[" * 60_000, "batch_size: got a list", "an integer of at least 2"),
    "deep_mapping": (b"batch_size: " + b"{a: " * 16_000, "batch_size: got a mapping", "an integer of at least 2"),
    "deep_key": (b"? " * 5_000 + b"x", "line 1: got a mapping", "write lines"),
    "bomb": (b"batch_size: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
        b"epoch_size: &%c [%s]\n" % (98 + i, b", ".join([b"*%c" % (97 + i)] * 9)) for i in range(9)),
        "batch_size: got a list", "an integer of at least 2"),
    "alias": (b"batch_size: &b 64\nepoch_size: *b\n", "epoch_size: got an alias", "an integer of at least 1"),
    "merge": (b"<<: {batch_size: 64}\n", "<<: unknown flag", "--help lists all flags"),
    "merged": (b"batch_size: &b 64\n<<: *b\n", "<<: unknown flag", "--help lists all flags"),
    "twice": (b"seed: 1\nbatch_size: 64\nseed: 2\n", "seed: stands there twice", "give it once"),
    "two_documents": (b"batch_size: 64\n---\nepoch_size: 5\n", "line [23]: got another document", "write lines"),
    "python_object": (b"batch_size: !!python/object/apply:os.system ['touch owned']\n", "batch_size: got a list",
                      "an integer of at least 2"),
    "python_name": (b"encoder: !!python/name:os.system ''\n", "encoder: got the tag .*python/name", "one of resnet18"),
    "tag": (b"batch_size: !!int '64'\n", "batch_size: got the tag .*int", "an integer of at least 2"),
    "tagged": (b"!!python/object:os.system\nbatch_size: 64\n", "holds no flags", "write lines"),
    "unknown_tag": (b"seed: !mine 1\n", "seed: got the tag '!mine'", "an integer of at least 0"),
    "utf16": ("batch_size: 64\n".encode("utf-16"), "is not text in UTF-8 .byte 0.", "name a YAML file"),
    "latin1": ("# r\xe9glages\nseed: 1\n".encode("latin-1"), "is not text in UTF-8 .byte 3.", "name a YAML file"),
    "binary": (bytes(range(256)), "is not text in UTF-8", "name a YAML file"),
    "nul": (b"batch_size: 6\x004\n", "is not YAML: unacceptable character #x0000", "write lines"),
    "escape": (b"batch_size: 64 \x1b[2J\n", "is not YAML: unacceptable character #x001b", "write lines"),
    "tab": (b"batch_size: 64\n\tseed: 1\n", "is not YAML", "write lines"),
    "no_end": (b"encoder: 'resnet18\n", "is not YAML", "write lines"),
    "key_number": (b"1: 2\n", "1: unknown flag", "--help lists all flags"),
    "key_null": (b"~: 2\n", "~: unknown flag", "--help lists all flags"),
    "key_date": (b"2024-01-01: 2\n", "2024-01-01: unknown flag", "--help lists all flags"),
    "key_list": (b"? [1, 2]\n: 3\n", "line 1: got a list", "write lines"),
    "key_empty": (b"'': 3\n", "unknown flag", "--help lists all flags"),
    "key_escaped": (b'"a\\e[2J\\nb": 3\n', ESCAPED + ": unknown flag", "--help lists all flags"),
    "key_long": (b"? " + b"k" * 5000 + b"\n: 3\n", "k{60}[.]{3}: unknown flag", "--help lists all flags"),
    "key_near": (b"batchsize: 64\n", "batchsize: unknown flag", "did you mean batch_size"),
    "key_dashes": (b"--batch_size: 64\n", "--batch_size: unknown flag", "did you mean batch_size"),
    "key_config": (b"config: other.yaml\n", "config: unknown flag", "--help lists all flags"),
    "value_list": (b"batch_size: [64, 32]\n", "batch_size: got a list", "an integer of at least 2"),
    "value_mapping": (b"encoder: {a: b}\n", "encoder: got a mapping", "one of resnet18"),
    "value_empty": (b"train_output_path: ''\n", "train_output_path: got no value", "a path"),
    "value_null_text": (b"encoder: 'null'\n", "encoder: got 'null'", "one of resnet18"),
    "value_date": (b"epoch_size: 2024-01-01\n", "epoch_size: got '2024-01-01'", "an integer of at least 1"),
    "value_no_date": (b"epoch_size: 2024-99-99\n", "epoch_size: got '2024-99-99'", "an integer of at least 1"),
    "value_time": (b"epoch_size: 1:30\n", "epoch_size: got '1:30'", "an integer of at least 1"),
    "value_hex": (b"epoch_size: 0x10\n", "epoch_size: got '0x10'", "an integer of at least 1"),
    "value_underscore": (b"epoch_size: 1_000\n", "epoch_size: got '1_000'", "an integer of at least 1"),
    "value_float": (b"epoch_size: 1e2\n", "epoch_size: got '1e2'", "an integer of at least 1"),
    "value_huge": (b"epoch_size: " + b"9" * 5000 + b"\n", "epoch_size: got '9+[.]{3}9+'", "an integer of at least 1"),
    "value_long": (b"encoder: " + b"x" * 60_000 + b"\n", "encoder: got 'x{1,40}[.]{3}x{1,40}'", "one of resnet18"),
    "value_nan": (b"temperature: .nan\n", "temperature: got '.nan'", "a number"),
    "value_inf": (b"temperature: .inf\n", "temperature: got '.inf'", "a number"),
    "value_yes": (b"normalize: yes\n", "normalize: got 'yes'", "True or False"),
    "value_on": (b"normalize: on\n", "normalize: got 'on'", "True or False"),
    "value_one": (b"normalize: 1\n", "normalize: got '1'", "True or False"),
    "value_boolean": (b"seed: true\n", "seed: got 'true'", "an integer of at least 0"),
    "value_escaped": (b'encoder: "a\\e[2J\\nb"\n', ESCAPED, "one of resnet18"),
    "value_nul": (b'train_output_path: "a\\0b"\n', r"train_output_path: got 'a\\x00b'", "a path"),
    "value_surrogate": (b'train_output_path: "a\\ud800b"\n', r"train_output_path: got 'a\\ud800b'", "a path"),
    "value_lines": (b"encoder: |\n  resnet18\n  resnet34\n", r"encoder: got 'resnet18\\nresnet34\\n'", "one of"),
    "together": (b"warmup_epochs: 5\nepoch_size: 5\n", "--warmup_epochs: got 5.0", "takes less than epoch_size"),
    "value_beyond_unicode": (b'encoder: "\\U00110000"\n', "is not YAML: chr", "write lines"),
    "value_far_beyond": (b'encoder: "\\UFFFFFFFF"\n', "is not YAML", "write lines"),
    "version": (b"%YAML 1." + b"9" * 5000 + b"\n---\nseed: 1\n", "is not YAML|holds no", "write lines"),
    "version_2": (b"%YAML 2.0\n---\nseed: 1\n", "is not YAML: found incompatible YAML document", "write lines"),
    "slow": (b"encoder: " + b"x\n  " * 16_000, "encoder: got 'x x [x ]*[.]{3}[x ]*'", "one of resnet18"),
    "large": (b"batch_size: 64\n" + b"# more\n" * 10_000, "has more than 65536 bytes", "name a YAML file"),
}
OTHER_FILES = {
    "missing": ("nowhere.yaml", "No such file or directory"),
    "100 MB": ("100mb", "has more than 65536 bytes"),
    "zeros": ("/dev/zero", "a folder, a pipe or a device"),
    "random": ("/dev/random", "a folder, a pipe or a device"),
    "stdin": ("/dev/stdin", "a folder, a pipe or a device"),
    "terminal": ("/dev/tty", "a folder, a pipe or a device"),
    "pipe": ("pipe", "a folder, a pipe or a device"),
    "socket": ("socket", "a folder, a pipe or a device"),
    "folder": ("data", "a folder, a pipe or a device"),
    "link to itself": ("loop", "Too many levels of symbolic links|Symlink loop"),
    "below a file": ("model.ckpt/recipe.yaml", "Not a directory"),
    "not allowed": ("/proc/1/mem", "a folder, a pipe or a device|cannot be read"),
}



# Flags: how a script is called, the culprit, the remedy.
NUMBERS = {  # of --batch_size and --temperature, which take integers and numbers
    "words": "many", "nothing": "", "space": " ", "spaces": " 64 ", "underscore": "6_4", "arabic": "١٢",
    "full width": "６４", "superscript": "2²", "hex": "0x40", "octal": "0o100", "complex": "1j", "comma": "1,5",
    "plus minus": "+-5", "two": "1 2", "nan": "nan", "infinite": "inf", "beyond floats": "1e400", "minus": "-5",
    "minus zero": "-0", "exponent": "e5", "point": ".", "boolean": "True", "none": "None", "escapes": ESCAPES,
    "no UTF-8": NO_UTF8, "digits": "9" * 100_000 + "x"}
FLAGS = {
    "no value": ((*TRAIN, "--batch_size"), "--batch_size: got no value", "an integer of at least 2"),
    "no value before a flag": ((*TRAIN, "--encoder", "--seed", "1"), "--encoder: got no value", "one of resnet18"),
    "resumed, of no run": ((*TRAIN, "--resume", "--warmup_epochs", "1e308"), r"--warmup_epochs: got 1e\+308",
                           "takes less than epoch_size"),
    "resumed, behind its end": ((*TRAIN, "--resume", "--pretrain_epoch_size", "500"), "--pretrain_epoch_size: got 500",
                                "takes less than epoch_size"),
    "epochs of PyTorch": ((*CONVERT, "--pretrain_epoch_size", "3000000000"), "--pretrain_epoch_size: got '3000000000'",
                          "at most 1000000"),
    "twice": ((*TRAIN, "--seed", "1", "--seed", "two"), "--seed: got 'two'", "an integer of at least 0"),
    "twice, of no value": ((*EVAL, "--seed", "1", "--seed="), "--seed: got no value", "an integer of at least 0"),
    "unknown, near": ((*TRAIN, "--bach_size", "8"), "--bach_size: unknown flag .got '8'", "mean --batch_size"),
    "unknown, far": ((*TRAIN, "--frobnicate"), "--frobnicate: unknown flag", "--help lists all flags"),
    "unknown, dashes": ((*TUNE, "--batch-size=8"), "--batch-size: unknown flag .got '8'", "mean --batch_size"),
    "unknown, of another script": ((*EXPORT, "--epoch_size", "8"), "--epoch_size: unknown flag", "--help lists"),
    "unknown, short": ((*EXPORT, "--batch", "8"), "--batch: unknown flag .got '8'", "--help lists all flags"),
    "unknown, escapes": ((*EXPORT, "--" + ESCAPES), "--" + ESCAPED + ": unknown flag", "--help lists all flags"),
    "unknown, no UTF-8": ((*EXPORT, "--" + NO_UTF8), "--" + NO_UTF8_PRINTED, "--help lists all flags"),
    "unknown, long": ((*EXPORT, "--" + "x" * 5000), "--x{60}[.]{3}: unknown flag", "--help lists all flags"),
    "unknown, long value": ((*EXPORT, "--x", "y" * 5000), "--x: unknown flag .got 'y+[.]{3}y+'", "--help lists"),
    "dashes alone": ((*TRAIN, "--", "x"), "--: unknown flag|got a value without a flag", "--help|--name value"),
    "value alone": ((*CONVERT, "cifar10"), "'cifar10': got a value without a flag", "--name value"),
    "empty value alone": ((*CONVERT, ""), "'': got a value without a flag", "--name value"),
    "one dash": ((*TRAIN, "-seed", "1"), "'-seed': got a value without a flag", "--name value"),
    "one letter": ((*TRAIN, "-s", "1"), "'-s': got a value without a flag", "--name value"),
    "help with more": ((*TRAIN, "-h5"), "-h/--help", "--help shows what it takes"),
    "help with a value": ((*TRAIN, "--help=5"), "-h/--help", "--help shows what it takes"),
    "minus before a number": ((*TRAIN, "--learning_rate", "-1e-3"), "'-1e-3': got a value", "--name=value where it"),
    "seed below 0": ((*TRAIN, "--seed", "-1"), "--seed: got '-1'", "of at least 0 and at most 4294967295"),
    "seed of 33 bits": ((*VIEWS, "--seed", 2**32), "--seed: got '4294967296'", "and at most 4294967295"),
    "seed of 65 bits": ((*TUNE, "--seed", 2**64), "--seed: got '18446744073709551616'", "and at most 4294967295"),
    "epochs beyond memory": ((*TRAIN, "--epoch_size", 10**30), "--epoch_size: got '10{30}'", "at most"),
    "epochs beyond memory, eval": ((*EVAL, "--epoch_size", 10**10), "--epoch_size: got '10{10}'", "at most"),
    "batch beyond memory": ((*TRAIN, "--batch_size", 10**20), "--batch_size: got '?10{20}", "at most"),
    "batch beyond the images": ((*TRAIN, "--batch_size", 101), "--batch_size: got 101", "at most the 100 images"),
    "batch of export": ((*EXPORT, "--batch_size", 10**20), "--batch_size: got '10{20}'", "at most"),
    "samples beyond the images": ((*TRAIN, "--num_samples", 10**20, "--batch_size", 2), "--num_samples: got '?10{20}",
                                  "100 train images; leave|at most"),
    "embedding beyond memory": ((*TRAIN, "--projection_dimension", 10**12), "--projection_dimension: got '10{12}'",
                                "at most"),
    "views beyond memory": ((*VIEWS, "--views", 10**9), "--views: got '10{9}'", "at most"),
    "repetitions": ((*EVAL, "--repeat", 10**9), "--repeat: got '10{9}'", "at most"),
    "classes": ((*EVAL, "--class_num", 10**12), "--class_num: got '10{12}'", "at most"),
    "side": ((*TRAIN, "--dataset_name", "imagefolder", "--image_size", 10**9), "--image_size: got '10{9}'", "at most"),
    "side of other images": ((*TRAIN, "--image_size", 64), "--dataset_name: got cifar10 .32 pixels.", "64 pixels"),
    "threads": ((*TRAIN, "--num_parallel_workers", 10**6), "--num_parallel_workers: got '?1000000", "at most"),
    "device beyond 64 bits": ((*TRAIN, "--device_id", 10**20), "--device_id: got '10{20}'", "at most"),
    "devices": ((*TRAIN, "--device_num", 10**20), "--device_num: got '10{20}'", "at most"),
    "width of nothing": ((*TRAIN, "--width_multiplier", "1e-9"), "--width_multiplier: got '1e-9'", "at least 0.0156"),
    "width of a third": ((*EXPORT, "--width_multiplier", "0.005"), "--width_multiplier: got", "of at least 0.0156"),
    "absurdly wide": ((*TRAIN, "--width_multiplier", "1e9"), "--width_multiplier: got '1e9'", "at most 16"),
    "temperature of nothing": ((*TRAIN, "--temperature", "1e-300"), "--temperature: got '1e-300'", "a number"),
    "rate beyond float32": ((*TRAIN, "--learning_rate", "1e300"), "--learning_rate: got '1e300'", "at most"),
    "rate of nothing": ((*TRAIN, "--learning_rate", "0"), "--learning_rate: got '0'", "a number above 0"),
    "decay beyond float32": ((*TUNE, "--weight_decay", "1e300"), "--weight_decay: got '1e300'", "at most"),
    "probability": ((*TRAIN, "--flip_probability", "1.0001"), "--flip_probability: got '1.0001'", "at most 1"),
    "no crop": ((*TRAIN, "--crop_min_scale", "-0.0"), "--crop_min_scale: got '-0.0'", "above 0 and at most 1"),
    "boolean of a number": ((*TRAIN, "--normalize", "1"), "--normalize: got '1'", "True or False"),
    "boolean yes": ((*TUNE, "--report", "yes"), "--report: got 'yes'", "True or False"),
    "boolean of long s": ((*TUNE, "--report", "falſe"), "--report: got 'falſe'", "True or False"),
    "choice in capitals": ((*TRAIN, "--encoder", "ResNet18"), "--encoder: got 'ResNet18'", "one of resnet18, "),
    "choice with a space": ((*TRAIN, "--optimizer", "SGD "), "--optimizer: got 'SGD '", "one of Adam, SGD, LARS"),
    "choice of escapes": ((*TRAIN, "--encoder", ESCAPES), "--encoder: got '" + ESCAPED, "one of resnet18"),
    "choice of no UTF-8": ((*TRAIN, "--encoder", NO_UTF8), NO_UTF8_PRINTED, "one of resnet18"),
    "choice of a long word": ((*TRAIN, "--encoder", "x" * 100_000), "got 'x{1,40}[.]{3}x{1,40}'", "one of resnet18"),
    "NUL in a name": ((*EVAL, "--train_output_path", "a\0b"), r"--train_output_path: got 'a\\x00b'", "takes a path"),
    "a recipe of no name": ((*TRAIN, "--config="), "--config: got no value", "a path"),
    "required": (("linear_eval.py",), "--encoder_checkpoint_path: got nothing", "such as outputs/checkpoint/latest"),
    "required for finetune.py": (("finetune.py",), "--encoder_checkpoint_path: got nothing", "such as outputs"),
    "required for export.py": (("export.py",), "--ckpt_simclr_encoder: got nothing", "such as outputs"),
    "required for convert.py": (("convert.py",), "--source_path: got nothing", "such as resnet50.pth"),
    "required suffix": (("convert.py", "--source_path", "a", "--target_path", "b"), "--target_path: got b", "ends in"),
    "contradiction": ((*TRAIN, "--lr_scaling", "sqrt", "--learning_rate", "1"), "--lr_scaling: got sqrt", "leave one"),
    "seeds beyond 32 bits": ((*TUNE, "--seed", 2**32 - 1, "--repeat", 2), "--repeat: got 2", "at most 4294967295"),
    "seeds beyond 32 bits, eval": ((*EVAL, "--seed", 2**32 - 1, "--repeat", 2), "--repeat: got 2",
                                   "at most 4294967295"),
    "nothing to repeat": ((*EVAL, "--protocol", "knn", "--repeat", 3), "--repeat: got 3", "leave the flag out"),
    "checkpoint is none": (EVAL, "model.ckpt", "checkpoint"),
    "predict.py without anything": (("predict.py",), "MODEL, IMAGE", "--help shows what it takes"),
    "predict.py, unknown flag": (("predict.py", "model.ckpt", "data", "--frob"), "--frob", "--help shows"),
    "predict.py, device": (("predict.py", "model.ckpt", "data", "--device_target", "TPU"), "'TPU'", "choose from"),
    "predict.py, features": (("predict.py", "m", "data", "--features", "a.txt"), "--features: got a.txt", ".npz or"),
    "predict.py, picture": (("predict.py", "m", "data", "--picture", "a.jpg"), "--picture: got a.jpg", ".png"),
    "predict.py, both": (("predict.py", "m", "data", "--json", "--features", "a.npz"), "--features", "leave --json"),
    "report.py without anything": (("report.py",), "takes the folders of runs", "--help shows both"),
    "report.py, both": (("report.py", "data", "--list", "data"), "takes the folders of runs", "--help shows both"),
    "report.py, no run": (("report.py", "data"), "data", "run"),
    "report.py, list of nothing": (("report.py", "--list", "nowhere"), "nowhere", "folder|run"),
    "check_data.py without anything": (("scripts/check_data.py",), "usage", "cifar10,"),
    "check_data.py, data set": (("scripts/check_data.py", "mnist", "data"), "usage", "cifar10,"),
    "check_data.py, no folder": (("scripts/check_data.py", "cifar10", "nowhere"), "nowhere is not a", "give the"),
    "show_views.py, threads": ((*VIEWS, "--num_parallel_workers", 10**6), "--num_parallel_workers: got", "at most"),
}
for script, (takes, flag) in {TRAIN: ("an integer of at least 2", "batch_size"),
                              VIEWS: ("a number ", "temperature")}.items():
    FLAGS.update({f"{flag}: {name}": ((*script, f"--{flag}={text}"), f"--{flag}: got (no value|')", takes)
                  for name, text in NUMBERS.items()})

# Paths that cannot be, for every flag that takes one.
PATHS = {"empty": ("", "got no value"), "long name": (LONG, "got 'n+[.]{3}n+'"),
         "long": ("a/" * 3000, "got 'a/[a/]*[.]{3}[a/]*'")}
OUTPUTS = {  # folders that cannot be written
    "a file": ("model.ckpt", "model.ckpt"), "below a file": ("model.ckpt/run", "model.ckpt/run"),
    "a link to itself": ("loop", "loop"), "below that": ("loop/run", "loop/run"), "a pipe": ("pipe", "pipe"),
    "a device": ("/dev/null", "/dev/null"), "below a device": ("/dev/null/run", "/dev/null/run"),
    "escapes": (f"model.ckpt/{ESCAPES}", ESCAPED), "no UTF-8": (f"model.ckpt/{NO_UTF8}", NO_UTF8_PRINTED),
    "of the system": ("/proc/nowhere", "/proc/nowhere")}
INPUTS = {**OUTPUTS, "nowhere": ("nowhere", "nowhere")}
del INPUTS["of the system"]


# Rank tables: other files, and a good one with one thing changed.
GOOD = json.loads((TABLES / "2x8p.json").read_text())
DEVICE = ("server_list", 1, "device", 0)
TABLE_FILES = {
    "empty": (b"", "not JSON"), "spaces": (b" \n", "not JSON"), "words": (b"rank table", "not JSON"),
    "cut short": (json.dumps(GOOD).encode()[:-1], "not JSON"), "two": (json.dumps(GOOD).encode() * 2, "not JSON"),
    "deep": (b"[" * 100_000, "not JSON .maximum recursion"), "deep objects": (b'{"a":' * 100_000, "not JSON"),
    "deep and whole": (b"[" * 100_000 + b"]" * 100_000, "not JSON .maximum recursion"),
    "deep enough": (json.dumps({**GOOD, "server_list": 0}).encode().replace(b": 0", b":" + b"[" * 900 + b"]" * 900),
                    "server_count: got '2', takes the number of servers listed, 1"),
    "NaN": (json.dumps({**GOOD, "version": float("nan")}).encode(), "not JSON .NaN is no number"),
    "infinite": (json.dumps({**GOOD, "more": float("-inf")}).encode(), "not JSON .-Infinity is no number"),
    "digits": (b'{"server_list": ' + b"9" * 5000 + b"}", "not JSON .a number of 5000 digits"),
    "name twice": (b'{"version": "1.0", ' + json.dumps(GOOD).encode()[1:], "not JSON .a name stands twice"),
    "UTF-16": (json.dumps(GOOD).encode("utf-16"), "is not text in UTF-8"), "binary": (bytes(range(256)), "UTF-8"),
    "nul": (b"\0" * 100, "not JSON"), "large": (b" " * 2**21, "has more than 1048576 bytes"),
    "a list": (b"[1, 2]", "server_list: missing"), "a number": (b"1e999", "server_list: missing"),
    "null": (b"null", "server_list: missing"), "a string": (b'"' + b"x" * 10_000 + b'"', "server_list: missing"),
    "many devices": (json.dumps({**GOOD, "server_count": 1, "server_list": [{"server_id": "a", "device": [
        {"device_id": i, "device_ip": f"10.1.{i // 250}.{i % 250}", "rank_id": i + 1} for i in range(12_000)]}]},
        separators=(",", ":")).encode(), "rank_id: no device has rank 0"),
}
OTHER_TABLES = {"missing": "nowhere.json", "folder": "data", "zeros": "/dev/zero", "pipe": "pipe", "socket": "socket",
                "link to itself": "loop", "long name": LONG, "escapes": ESCAPES, "no UTF-8": NO_UTF8, "none": ""}
VALUES = {"null": None, "true": True, "false": False, "negative": -1, "fraction": 1.5, "huge fraction": 1e308,
          "huge": 10**19, "empty": "", "escapes": ESCAPES, "arabic": "١", "spaces": " 1 ", "signed": "+1", "list": [],
          "lists": [[[]]], "object": {}, "object of one": {"server_id": 1}, "long": "x" * 10_000}
FIELDS = {"version": ("version",), "status": ("status",), "server_count": ("server_count",),
          "server_list": ("server_list",), "server 1": ("server_list", 1), "server_id": ("server_list", 1, "server_id"),
          "device": ("server_list", 1, "device"), "device 0": DEVICE, "device_id": (*DEVICE, "device_id"),
          "device_ip": (*DEVICE, "device_ip"), "rank_id": (*DEVICE, "rank_id")}
TWICE = {"rank_id": ((*DEVICE, "rank_id"), "15", "15 stands there twice"),
         "device_id": ((*DEVICE, "device_id"), "7", "7 stands there twice"),
         "device_ip": ((*DEVICE, "device_ip"), "192.168.100.101", "192.168.100.101 stands there twice"),
         "server_id": (("server_list", 1, "server_id"), "10.155.111.140", "10.155.111.140 stands there twice"),
         "gap": ((*DEVICE, "rank_id"), "16", "no device has rank 8, but one has 16; number the 16 devices 0 to 15"),
         "beyond": ((*DEVICE, "rank_id"), "100000", "got '100000', takes an integer from 0 to 99999"),
         "zone": ((*DEVICE, "device_ip"), f"fe80::1%{ESCAPES}", "device_ip: got 'fe80::1%" + ESCAPED)}
TABLE_CALLS = {
    "nothing": ((), "command", "--help shows"), "command": (("frob",), "'frob'", "choose from"),
    "make nothing": (("make",), "TABLE, SERVER_ID", "--help shows"),
    "make no devices": (("make", "t.json", "10.0.0.1"), "make: takes either devices", "such as 0=192.168.100.101"),
    "make twice": (("make", "t.json", "a", "0=10.0.0.1", "0=10.0.0.2"), "device_id: 0 stands there twice", "its own"),
    "make no device": (("make", "t.json", "a", "=10.0.0.1"), "device_id: got ''", "an integer from 0 to 99999"),
    "make far device": (("make", "t.json", "a", "100000=10.0.0.1"), "device_id: got '100000'", "from 0 to 99999"),
    "make no pair": (("make", "t.json", "a", ESCAPES), "make: got '" + ESCAPED, "takes DEVICE=ADDRESS"),
    "make no address": (("make", "t.json", "a", "0="), "device_ip: got ''", "such as 192.168.100.101"),
    "make no server": (("make", "t.json", "", "0=10.0.0.1"), "server_id: got ''", "address or host name"),
    "make odd server": (("make", "t.json", ESCAPES, "0=10.0.0.1"), "server_id: got '" + ESCAPED, "host name"),
    "make over a file": (("make", "model.ckpt", "a", "0=10.0.0.1"), "model.ckpt exists already", "name another file"),
    "make over a folder": (("make", "data", "a", "0=10.0.0.1"), "data exists already", "name another file"),
    "make below a file": (("make", "model.ckpt/t", "a", "0=10.0.0.1"), "cannot write model.ckpt/t", "can be written"),
    "make a long name": (("make", LONG, "a", "0=10.0.0.1"), "cannot write n+ .File name too long", "can be written"),
    "make nowhere": (("make", f"x/{NO_UTF8}", "a", "0=10.0.0.1"), "x/" + NO_UTF8_PRINTED, "can be written"),
    "hccn zeros": (("make", "t.json", "a", "--hccn_conf", "/dev/zero"), "/dev/zero: cannot be read", "name the file"),
    "hccn pipe": (("make", "t.json", "a", "--hccn_conf", "pipe"), "pipe: cannot be read", "name the file"),
    "hccn binary": (("make", "t.json", "a", "--hccn_conf", "recipes/binary.yaml"), "UTF-8", "name the file"),
    "hccn without addresses": (("make", "t.json", "a", "--hccn_conf", "weights.pth"), "no line such as address_0=",
                               "name the devices as DEVICE=ADDRESS"),
    "hccn of digits": (("make", "t.json", "a", "--hccn_conf", "hccn.conf"), "device_id: got '9+[.]{3}9+'", "99999"),
    "merge nothing": (("merge", "t.json"), "PART", "--help shows"),
    "merge the same": (("merge", "t.json", str(TABLES / "2p.json"), str(TABLES / "2p.json")), "stands there twice",
                       "give each its own"),
    "check nothing": (("check",), "TABLE", "--help shows"),
    "ranks of nobody": (("ranks", str(TABLES / "2p.json"), "--server_id", ESCAPES), "SERVER_ID: got '" + ESCAPED,
                        "set it to one of these"),
    "ranks unclear": (("ranks", str(TABLES / "2x8p.json")), "SERVER_ID: not set", "set SERVER_ID to this machine's"),
    "unknown flag": (("check", "t.json", "--frob"), "--frob", "--help shows"),
}

# What launchers tell the processes of a distributed run: the environment, the culprit, the remedy.
EIGHT = {"RANK_TABLE_FILE": str(TABLES / "8p.json"), "RANK_SIZE": "8", "RANK_ID": "3", "DEVICE_ID": "3"}
ENVIRONMENT = {
    "nothing": ({}, "--run_distribute: got True", "start them with run_distribution_train_ascend.sh"),
    "no number": ({"MS_WORKER_NUM": "two"}, "MS_WORKER_NUM: got 'two'", "the number of processes, 1 to 99999"),
    "none": ({"MS_WORKER_NUM": "0", "MS_ROLE": "MS_WORKER"}, "MS_WORKER_NUM: got '0'", "1 to 99999"),
    "superscript": ({"RANK_SIZE": "²"}, "RANK_SIZE: got '²'", "the number of processes, 1 to 99999"),
    "arabic": ({"RANK_SIZE": "٨"}, "RANK_SIZE: got '٨'", "the number of processes, 1 to 99999"),
    "huge": ({"OMPI_COMM_WORLD_SIZE": "9" * 5000}, "OMPI_COMM_WORLD_SIZE: got '9+[.]{3}9+'", "1 to 99999"),
    "negative": ({"RANK_SIZE": "-8"}, "RANK_SIZE: got '-8'", "the number of processes, 1 to 99999"),
    "escapes": ({"RANK_SIZE": ESCAPES}, "RANK_SIZE: got '" + ESCAPED, "the number of processes"),
    "no UTF-8": ({"RANK_SIZE": NO_UTF8}, "RANK_SIZE: got '" + NO_UTF8_PRINTED, "the number of processes"),
    "rank superscript": ({**EIGHT, "RANK_ID": "²"}, "RANK_ID: got ²", "takes a rank of .*8p.json, 0 to 7"),
    "rank arabic": ({**EIGHT, "RANK_ID": "٣"}, "RANK_ID: got ٣", "takes a rank of .*8p.json, 0 to 7"),
    "rank beyond": ({**EIGHT, "RANK_ID": "8"}, "RANK_ID: got 8", "takes a rank of .*8p.json, 0 to 7"),
    "rank with a zero": ({**EIGHT, "RANK_ID": "03"}, "RANK_ID: got 03", "takes a rank of .*8p.json, 0 to 7"),
    "rank escapes": ({**EIGHT, "RANK_ID": ESCAPES}, "RANK_ID: got " + ESCAPED, "takes a rank of"),
    "no rank": ({**EIGHT, "RANK_ID": ""}, "RANK_ID: got nothing", "takes a rank of .*8p.json, 0 to 7"),
    "device": ({**EIGHT, "DEVICE_ID": "4"}, "DEVICE_ID: got 4 for rank 3", "takes 3, as .*8p.json has it"),
    "no device": ({**EIGHT, "DEVICE_ID": ""}, "DEVICE_ID: got nothing for rank 3", "takes 3, as"),
    "size": ({**EIGHT, "RANK_SIZE": "4"}, "has 8 devices, but 4 processes", "start one per device"),
    "table zeros": ({**EIGHT, "RANK_TABLE_FILE": "/dev/zero"}, "RANK_TABLE_FILE: /dev/zero: cannot", "take a rank tab"),
    "table pipe": ({**EIGHT, "RANK_TABLE_FILE": "pipe"}, "RANK_TABLE_FILE: pipe: cannot be read", "take a rank table"),
    "table nowhere": ({**EIGHT, "RANK_TABLE_FILE": ESCAPES}, "RANK_TABLE_FILE: " + ESCAPED, "take a rank table"),
    **{f"port {port}": ({"MS_WORKER_NUM": "2", "MS_ROLE": "MS_WORKER", "MS_SCHED_PORT": port},
                        f"MS_SCHED_PORT: got '{port}'", "takes a port, 1 to 65535") for port in ("65536", "0", "x")},
    "no msrun": ({"RANK_SIZE": "2"}, "--device_target: got CPU", "take scripts/run_distribution_train_msrun.sh"),
}
ALONE = {name: ({name: "8"}, f"{name}=8: this was started as one of several", "add it, or start one process")
         for name in process_group.WORLD_SIZE_VARIABLES}
OF_A_LAUNCHER = (*process_group.WORLD_SIZE_VARIABLES, "RANK_TABLE_FILE", "RANK_ID", "DEVICE_ID", "MS_ROLE", "SERVER_ID",
                 "NODE_NUM", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "DEVICE_TARGET", "FOREGROUND")

# Launchers: name, arguments, environment, culprit, remedy.
TRAIN_CPU, EVAL_CPU = "run_standalone_train_cpu.sh", "run_standalone_eval_cpu.sh"
TRAIN_ASCEND, EVAL_ASCEND = "run_standalone_train_ascend.sh", "run_standalone_eval_ascend.sh"
RANKS, MSRUN = "run_distribution_train_ascend.sh", "run_distribution_train_msrun.sh"
DATA, TWO = ("cifar10", "data"), str(TABLES / "2p.json")
LAUNCHERS = {
    "data set": (TRAIN_CPU, ("mnist", "data"), {}, "data set: got 'mnist'", "takes cifar10, .* or shapes"),
    "no data set": (TRAIN_CPU, ("", "data"), {}, "data set: got ''", "takes cifar10, .* or shapes"),
    "two data sets": (TRAIN_CPU, ("cifar10 cifar100", "data"), {}, "data set: got 'cifar10 cifar100'", "takes cifar10"),
    "data set of lines": (TRAIN_CPU, ("a\nb", "data"), {}, "data set: got 'a[?]b'", "takes cifar10"),
    "data set of escapes": (TRAIN_CPU, ("\x1b[2J\x07é", "data"), {}, r"got '[?]\[2J[?]{3,4}'", "takes cifar10"),
    "data set of backslashes": (TRAIN_CPU, (r"a\nb\c\033", "data"), {}, r"got 'a\\nb\\c\\033'", "takes cifar10"),
    "data set of no UTF-8": (TRAIN_CPU, (NO_UTF8, "data"), {}, "data set: got '[?]{2}'", "takes cifar10"),
    "data set of Chinese": (TRAIN_CPU, ("数据", "data"), {}, "data set: got '数据'", "takes cifar10"),
    "data set of C1": (TRAIN_CPU, ("\x9b2J", "data"), {}, "data set: got '[?]{2}2J'", "takes cifar10"),
    "a flag in its place": (TRAIN_CPU, ("--encoder", "resnet18"), {}, "data set: got '--encoder'", "takes cifar10"),
    "folder": (TRAIN_CPU, ("cifar10", "nowhere"), {}, "TRAIN_DATASET_PATH: nowhere is not", "name the one with"),
    "folder of nothing": (TRAIN_CPU, ("cifar10", ""), {}, "TRAIN_DATASET_PATH:  is not", "name the one with"),
    "a file": (TRAIN_CPU, ("cifar10", "model.ckpt"), {}, "TRAIN_DATASET_PATH: model.ckpt is not", "name the one with"),
    "a pipe": (TRAIN_CPU, ("cifar10", "pipe"), {}, "TRAIN_DATASET_PATH: pipe is not", "name the one with"),
    "a loop": (TRAIN_CPU, ("cifar10", "loop"), {}, "TRAIN_DATASET_PATH: loop is not", "name the one with"),
    "a long name": (TRAIN_CPU, ("cifar10", LONG), {}, "TRAIN_DATASET_PATH: n+ is not", "name the one with"),
    "folder of escapes": (TRAIN_CPU, ("cifar10", "\x1b]0;x\x07"), {}, r"[?]\]0;x[?] is not a folder", "name the one"),
    "model": (EVAL_CPU, ("cifar10", "no.ckpt", "data", "data"), {}, "SIMCLR_MODEL_PATH: there is no no.ckpt", "name a"),
    "model of a loop": (EVAL_CPU, ("cifar10", "loop", "data", "data"), {}, "there is no loop", "name a checkpoint"),
    "test data": (EVAL_CPU, ("cifar10", "model.ckpt", "data", "loop"), {}, "EVAL_DATASET_PATH: loop", "name the"),
    **{f"device {name}": (TRAIN_ASCEND, (*DATA, text), {}, "DEVICE_ID: got '", "takes a device number such as 0")
       for name, text in {"nothing": "", "negative": "-1", "word": "first", "list": "0,1", "zeros": "007", "hex": "0x1",
                          "arabic": "٣", "space": " 1", "expression": "1+1", "lines": "1\n2",
                          "digits": "1" * 30}.items()},
    "device of eval": (EVAL_ASCEND, ("cifar10", "x", "model.ckpt", *DATA), {}, "DEVICE_ID: got 'x'", "such as 0"),
    "table": (RANKS, ("no.json", *DATA), {}, "RANK_TABLE_FILE: .*/no.json: cannot be read", "take a rank table"),
    "table zeros": (RANKS, ("/dev/zero", *DATA), {}, "RANK_TABLE_FILE: /dev/zero: cannot", "take a rank table"),
    "table pipe": (RANKS, ("pipe", *DATA), {}, "RANK_TABLE_FILE: .*/pipe: cannot be read", "take a rank table"),
    "table of words": (RANKS, ("model.ckpt", *DATA), {}, "model.ckpt: not JSON", "take a rank table"),
    "table, data set": (RANKS, (TWO, "mnist", "data"), {}, "data set: got 'mnist'", "takes cifar10"),
    "table, python": (RANKS, (TWO, *DATA), {"PYTHON": "no\x1bne"}, "no no.ne on the PATH", "PYTHON=/path/to/python"),
    "server": (RANKS, (TWO, *DATA), {"SERVER_ID": ESCAPES}, "SERVER_ID: got '" + ESCAPED, "set it to one of these"),
    "no server": (RANKS, (str(TABLES / "2x8p.json"), *DATA), {}, "SERVER_ID: not set", "set SERVER_ID"),
    **{f"devices {name}": (MSRUN, (text, *DATA), {}, "DEVICE_NUM: got '", "takes a number from 1 to 99999")
       for name, text in {"zero": "0", "nothing": "", "negative": "-2", "octal": "08", "huge": "9" * 30,
                          "full width": "２"}.items()},
    "target": (MSRUN, ("2", *DATA), {"DEVICE_TARGET": "tpu"}, "DEVICE_TARGET: got 'tpu'", "takes Ascend, GPU or CPU"),
    "nodes": (MSRUN, ("2", *DATA), {"NODE_NUM": "0"}, "NODE_NUM: got '0'", "takes a number from 1"),
    "node": (MSRUN, ("2", *DATA), {"NODE_RANK": "-1"}, "NODE_RANK: got '-1'", "takes a number from 0 to 0"),
    "node beyond": (MSRUN, ("2", *DATA), {"NODE_NUM": "2", "NODE_RANK": "2"}, "NODE_RANK: got '2'", "from 0 to 1"),
    "share": (MSRUN, ("3", *DATA), {"NODE_NUM": "2"}, "DEVICE_NUM: got 3 for 2 machines", "takes a multiple of 2"),
    **{f"port {name}": (MSRUN, ("2", *DATA), {"MASTER_PORT": text}, "MASTER_PORT: got '", "from 1024 to 65535")
       for name, text in {"low": "80", "high": "65536", "word": "http", "expression": "8000+1", "digits": "8" * 30,
                          "lines": "8118\n1"}.items()},
    "address of others": (MSRUN, ("2", *DATA), {"MASTER_ADDR": "203.0.113.1"}, "MASTER_ADDR: got 203.0.113.1",
                          "an address of the machine"),
    "address too long": (MSRUN, ("2", *DATA), {"MASTER_ADDR": LONG}, "MASTER_ADDR: got n+ ", "an address of the"),
    "address of dots": (MSRUN, ("2", *DATA), {"MASTER_ADDR": ".."}, "MASTER_ADDR: got [.]{2} ", "an address of the"),
    "address of escapes": (MSRUN, ("2", *DATA), {"MASTER_ADDR": ESCAPES}, "MASTER_ADDR: got a[?]", "an address of the"),
    "address alone": (MSRUN, ("2", *DATA), {"NODE_NUM": "2"}, "MASTER_ADDR: got 127.0.0.1", "all 2 machines reach"),
    "quickstart": ("quickstart.sh", ("nowhere",), {}, "CIFAR10_DIR: nowhere is not a folder", "name the one with"),
    "quickstart of two": ("quickstart.sh", ("data", "data"), {}, "usage: sh scripts/quickstart.sh", "CIFAR10_DIR"),
}


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
    os.mknod(folder / "socket", stat.S_IFSOCK | 0o600)
    with open(folder / "100mb", "wb") as file:
        file.write(b"batch_size: 64\n")
        file.truncate(100 * 2**20)
    (folder / "hccn.conf").write_text(f"address_{'9' * 5000}=10.0.0.1\n")
    (folder / "recipes").mkdir()
    for name, (content, *_) in RECIPES.items():
        (folder / "recipes" / f"{name}.yaml").write_bytes(content)
    (folder / "tables").mkdir()
    for name, (content, _) in TABLE_FILES.items():
        (folder / "tables" / f"{name}.json").write_bytes(content)
    return folder


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    """Nothing but a test's own in the environment."""
    for name in OF_A_LAUNCHER:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def quick():
    """Nothing here may wait for anything."""
    def end(*_):
        pytest.fail(f"it takes more than {MOST} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(MOST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def check(folder, call, culprit, remedy, caller=call_script, **options):
    """Check that a call is refused in one line that names both, and leaves nothing."""
    before = state_of(folder)
    result = caller(*call, cwd=folder, **options)
    refused(result, culprit)
    refused(result, remedy)
    assert result.stderr.isprintable() or result.stderr[:-1].isprintable(), ascii(result.stderr)
    assert len(result.stderr) < 1500, "nobody reads a line as long as that"
    assert "Traceback" not in result.stdout
    assert state_of(folder) == before


@pytest.mark.parametrize("call, culprit, remedy", FLAGS.values(), ids=FLAGS)
def test_flags(place, call, culprit, remedy):
    check(place, call, culprit, remedy)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(place, name):
    _, culprit, remedy = RECIPES[name]
    check(place, (*TRAIN, "--config", f"recipes/{name}.yaml"), culprit, remedy)


@pytest.mark.parametrize("name", OTHER_FILES)
@pytest.mark.parametrize("script", [TRAIN, EVAL, TUNE, EXPORT, CONVERT, VIEWS], ids=lambda script: script[0])
def test_files_that_are_no_recipe(place, script, name):
    file, reason = OTHER_FILES[name]
    check(place, (*script, "--config", file), f"--config: {file}: .*({reason})", "name a YAML file of flags")


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("flag", sorted({field.name for settings in SCRIPTS.values() for field in flags_of(settings)
                                         if field.metadata["takes"] is PATH}))
def test_paths_that_cannot_be(place, flag, name):
    text, got = PATHS[name]
    script = next(script for script, settings in SCRIPTS.items()
                  if any(field.name == flag for field in flags_of(settings)))
    check(place, (script, f"--{flag}={text}"), f"--{flag}: {got}", "takes a path")


@pytest.mark.parametrize("name", OUTPUTS)
def test_folders_that_cannot_be_written(place, name):
    folder, shown = OUTPUTS[name]
    check(place, (*VIEWS, "--batch_size", "2", "--train_output_path", folder), f"--train_output_path: .*{shown}",
          "name a folder|another folder")


SMALL = ("--encoder", "resnet18", "--width_multiplier", "0.0625", "--batch_size", "2", "--num_parallel_workers", "1")


@pytest.mark.parametrize("data", ["data", "photos"])
@pytest.mark.parametrize("name", ["a file", "below a file", "a link to itself", "below that"])
def test_runs_that_cannot_be_written(place, name, data):
    folder, shown = OUTPUTS[name]
    kind = ("--dataset_name", "imagefolder", "--image_size", "32") if data == "photos" else ()
    check(place, (*TRAIN, *SMALL, *kind, "--train_dataset_path", data, "--train_output_path", folder),
          f"--train_output_path: .*{shown}", "name a folder")


@pytest.mark.parametrize("name", INPUTS)
def test_folders_that_hold_no_data(place, name):
    folder, shown = INPUTS[name]
    check(place, (*VIEWS, "--train_dataset_path", folder), shown, "give the folder with")
    check(place, ("scripts/check_data.py", "cifar10", folder), shown, "give the folder with")


@pytest.mark.parametrize("name", TABLE_FILES)
def test_files_that_are_no_rank_table(place, name):
    check(place, (*TABLE, "check", f"tables/{name}.json"), f"check: tables/{name}.json: .*{TABLE_FILES[name][1]}",
          "take a rank table|make the table anew|takes|number the 12000 devices")


@pytest.mark.parametrize("name", OTHER_TABLES)
def test_rank_tables_that_cannot_be_read(place, name):
    check(place, (*TABLE, "ranks", OTHER_TABLES[name]), "RANK_TABLE_FILE: .*: cannot be read", "take a rank table")


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("field", FIELDS)
def test_values_in_rank_tables(place, tmp_path, field, value):
    table = write_table(tmp_path, FIELDS[field], VALUES[value])
    check(place, (*TABLE, "check", table), "server_list|server 1|server_count|version|status",
          "takes|make the table anew|list at least one")


@pytest.mark.parametrize("fields, value, message", TWICE.values(), ids=TWICE)
def test_rank_tables_that_contradict_themselves(place, tmp_path, fields, value, message):
    check(place, (*TABLE, "check", write_table(tmp_path, fields, value)), message, "give each|number the|takes")


def write_table(folder, fields, value):
    """Write a good rank table with another value somewhere, and return its name."""
    document = copy.deepcopy(GOOD)
    part = document
    for name in fields[:-1]:
        part = part[name]
    part[fields[-1]] = value
    (folder / "table.json").write_text(json.dumps(document))
    return folder / "table.json"


@pytest.mark.parametrize("arguments, culprit, remedy", TABLE_CALLS.values(), ids=TABLE_CALLS)
def test_calls_of_rank_table(place, arguments, culprit, remedy):
    check(place, (*TABLE, *arguments), culprit, remedy)


@pytest.mark.parametrize("variables, culprit, remedy", ENVIRONMENT.values(), ids=ENVIRONMENT)
def test_environment_of_a_rank(place, monkeypatch, variables, culprit, remedy):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    check(place, (*TRAIN, "--device_target", "CPU", "--run_distribute", "True"), culprit, remedy)


@pytest.mark.parametrize("variables, culprit, remedy", ALONE.values(), ids=ALONE)
def test_environment_of_a_process_alone(place, monkeypatch, variables, culprit, remedy):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    check(place, EVAL, culprit, remedy)


def call_launcher(name, *arguments, cwd, **env):
    """Run a launcher; it must not come as far as to start anything."""
    found = subprocess.run([SHELL, str(ROOT / "scripts" / name), *arguments], cwd=cwd, capture_output=True,
                           timeout=MOST, env={**os.environ, "PYTHON": sys.executable, **env})
    return Result(found.returncode, found.stdout.decode(), found.stderr.decode())  # all of it is UTF-8


@pytest.mark.parametrize("name, arguments, env, culprit, remedy", LAUNCHERS.values(), ids=LAUNCHERS)
def test_launchers(place, name, arguments, env, culprit, remedy):
    check(place, (name, *arguments), culprit, remedy, call_launcher, **env)


# As processes of their own: what has an end only there, and a sample of all the rest.
PROCESSES = {
    "flag": FLAGS["unknown, near"], "flag of no UTF-8": FLAGS["unknown, no UTF-8"], "twice": FLAGS["twice"],
    "number": FLAGS["batch_size: arabic"], "digits": FLAGS["temperature: digits"],
    "a long word": FLAGS["choice of a long word"], "required": FLAGS["required"],
    **{f"recipe {name}": ((*TRAIN, "--config", f"recipes/{name}.yaml"), *RECIPES[name][1:])
       for name in ("deep_value", "bomb", "python_object", "nul", "large")},
    **{f"recipe {name}": ((*TRAIN, "--config", OTHER_FILES[name][0]), "--config", "name a YAML file")
       for name in ("zeros", "pipe", "100 MB")},
    "table": ((*TABLE, "check", "tables/deep.json"), "not JSON", "take a rank table"),
    "table of a pipe": ((*TABLE, "check", "pipe"), "pipe: cannot be read", "take a rank table"),
}


@pytest.mark.parametrize("call, culprit, remedy", PROCESSES.values(), ids=PROCESSES)
def test_processes(place, call, culprit, remedy):
    check(place, call, culprit, remedy, start_script, timeout=MOST)

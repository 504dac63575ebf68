"""The scripts with --device_target Ascend, as a user calls them, in a dry run: they end well and leave their files."""
import os
import re

import mindspore as ms
import numpy as np
import pytest
from ascend import dry_run
from helpers import SMALL, write_cifar
from mindspore import nn

from src.device import dry_run as dry_runs

pytestmark = pytest.mark.long

EPOCHS = 2
CONVOLUTIONS = 20  # of resnet18
IN_TRAINING = {"GetNext", "Conv2D", "Conv2DBackpropFilter", "Conv2DBackpropInput", "BNTrainingUpdate", "ReluGrad"}
# Flags of train.py, and what is found among the kernels then.
PRETRAINING = {
    "Adam": (("--optimizer", "Adam", "--amp_level", "O0", "--stem", "cifar"), {"Adam"}),
    "LARS": (("--optimizer", "LARS", "--amp_level", "O3", "--stem", "imagenet"),
             {"ApplyMomentum", "Square", "MaxPool", "MaxPoolGrad"}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a small CIFAR-10 in ``data``; the runs of this file are made beside it."""
    folder = tmp_path_factory.mktemp("scripts")
    write_cifar(folder / "data")
    return folder


@pytest.fixture(scope="module")
def call(stand_ins, folder):
    """Return a function that runs a script, and gives what was counted when it has ended well."""
    def run(script, *arguments, **place):
        found = dry_run.run(stand_ins, script, *arguments, "--device_target", "Ascend", cwd=folder, **place)
        assert found.status == 0, found.said
        assert found.said.startswith(f"dry run (MS_SIMULATION_LEVEL=1): {dry_runs.MEANING}\n")
        assert found.on_cpu == []
        return found
    return run


@pytest.fixture(scope="module")
def pretrain(call):
    """Return a function that runs train.py, once for every name in ``PRETRAINING``."""
    runs = {}

    def run(name):
        if name not in runs:
            runs[name] = call("train.py", *SMALL, *PRETRAINING[name][0], "--epoch_size", EPOCHS, "--eval_every", 1,
                              "--train_dataset_path", "data", "--train_output_path", name)
        return runs[name]
    return run


@pytest.mark.parametrize("name", PRETRAINING)
def test_pretraining(folder, pretrain, name):
    """The images are sunk to the device (GetNext), and what the monitor measures is compiled too."""
    operators = pretrain(name).operators
    flags, special = PRETRAINING[name]
    assert IN_TRAINING | special | {"BNInfer"} <= operators.keys()
    assert operators["Conv2D"] == 2 * CONVOLUTIONS and operators["Conv2DBackpropFilter"] == CONVOLUTIONS
    assert (operators["Cast"] > 2 * CONVOLUTIONS) == ("O0" not in flags)  # of weights, and of their gradients
    assert sorted(os.listdir(folder / name / "checkpoint")) == [
        *(f"checkpoint_simclr-{epoch}.ckpt" for epoch in range(EPOCHS + 1)), "latest"]
    said = (folder / name / "log").read_text()
    *_, last_but_one, last = said.splitlines()
    assert said.count("monitor, epoch") == EPOCHS and last_but_one.startswith(f"done, {EPOCHS} epochs")
    assert float(re.fullmatch(r"dry run: (\d+) MB of device memory at most \(.*\)", last)[1]) > 0


def test_pretraining_as_one_of_several_ranks(folder, call):
    """The others are never there: what the host would hear of them, it says itself. An image has 4 views here."""
    found = call("train.py", *SMALL, "--batch_size", 4, "--views", 4, "--epoch_size", 1, "--eval_every", 1,
                 "--run_distribute", "--train_dataset_path", "data", "--train_output_path", "ranks", rank=0,
                 world_size=8)
    assert IN_TRAINING | {"AllGather", "AllReduce", "BNInfer", "Tile"} <= found.operators.keys()
    assert "rank 0 of 8" in found.said
    assert (folder / "ranks" / "checkpoint" / "latest").exists()


def test_every_protocol_of_evaluation(folder, pretrain, call):
    pretrain("Adam")
    operators = call("linear_eval.py", "--encoder_checkpoint_path", "Adam/checkpoint/latest", "--train_dataset_path",
                     "data", "--batch_size", 16, "--epoch_size", 1, "--protocol", "all", "--train_output_path",
                     "Adam").operators
    assert operators["Conv2D"] == CONVOLUTIONS and {"BNInfer", "MatMul", "Adam"} <= operators.keys()
    assert (folder / "Adam" / "linear_classifier" / "latest").exists()


def test_fine_tuning(folder, pretrain, call):
    pretrain("Adam")
    operators = call("finetune.py", "--encoder_checkpoint_path", "Adam/checkpoint/latest", "--train_dataset_path",
                     "data", "--batch_size", 16, "--epoch_size", 1, "--train_output_path", "tuned").operators
    assert IN_TRAINING | {"ApplyMomentum", "BNInfer"} <= operators.keys()
    assert operators["Conv2D"] == 2 * CONVOLUTIONS
    assert (folder / "tuned" / "finetune" / "pretrained-1" / "encoder.ckpt").exists()


def test_exporting(folder, pretrain, call):
    """Nothing is computed for it, so there are no kernels; the file is MindSpore's own, for every device."""
    pretrain("Adam")
    found = call("export.py", "--ckpt_simclr_encoder", "Adam/checkpoint/latest", "--file_format", "MINDIR",
                 "--file_name", "encoder")
    assert found.kernels == {} and "the MINDIR file was not checked" in found.said
    model = nn.GraphCell(ms.load(str(folder / "encoder.mindir")))
    assert model(ms.Tensor(np.zeros((1, 3, 32, 32), np.uint8))).shape == (1, 32)

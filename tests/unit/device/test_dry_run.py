"""What a user sees of a dry run on a machine with no Ascend and no CANN; what it compiles is in tests/ascend/."""
import numpy as np
import pytest
from helpers import SMALL, call_script, refused, write_cifar
from mindspore import Parameter, Tensor

from src.common.errors import UserError
from src.device import dry_run
from src.distributed import collectives
from src.distributed.process_group import Process
from src.run import checkpoint
from src.run.folder import open_run
from src.run.layout import Layout
from src.settings.network import Network

ONE_OF_EIGHT = Process("Ascend", 3, 8, is_dry_run=True)


@pytest.fixture
def in_a_dry_run(monkeypatch):
    monkeypatch.setenv(dry_run.VARIABLE, "1")


@pytest.mark.parametrize("level, target, culprit", [
    ("1", "CPU", "--device_target: got CPU"), ("yes", "Ascend", "MS_SIMULATION_LEVEL: got yes")])
def test_a_dry_run_that_does_not_exist(monkeypatch, tmp_path, level, target, culprit):
    monkeypatch.setenv(dry_run.VARIABLE, level)
    refused(call_script("train.py", "--device_target", target, "--train_dataset_path", "data", cwd=tmp_path), culprit)
    assert not list(tmp_path.iterdir())


def test_its_checkpoints_are_for_dry_runs(monkeypatch, tmp_path):
    write_cifar(tmp_path / "data")
    file = tmp_path / "encoder.ckpt"
    monkeypatch.setenv(dry_run.VARIABLE, "1")
    checkpoint.save(file, [Parameter(Tensor(1.0), name="weight")], {
        "holds": checkpoint.ENCODER, "network": Network("resnet18"), "settings": {"dataset_name": "cifar10"},
        "epoch": 1})
    assert checkpoint.load(str(file), checkpoint.ENCODER, "test").info["dry_run"]
    monkeypatch.delenv(dry_run.VARIABLE)
    for script, flag in (("linear_eval.py", "encoder_checkpoint_path"), ("finetune.py", "encoder_checkpoint_path"),
                         ("export.py", "ckpt_simclr_encoder"), ("train.py", "pre_trained_path")):
        data = () if script == "export.py" else ("--train_dataset_path", "data")
        refused(call_script(script, f"--{flag}", file, *data, cwd=tmp_path), f"--{flag}: .* was written in a dry run")


def test_its_folder_is_for_dry_runs(monkeypatch, tmp_path):
    write_cifar(tmp_path / "data")
    layout = Layout(tmp_path / "run")
    layout.path.mkdir()
    layout.dry_run.touch()
    for resume in ((), ("--resume",)):
        refused(call_script("train.py", *SMALL, *resume, "--train_dataset_path", "data", "--train_output_path", "run",
                            cwd=tmp_path), "--train_output_path: run holds the files of a dry run")
    assert [path.name for path in layout.path.iterdir()] == ["dry_run"]
    monkeypatch.setenv(dry_run.VARIABLE, "1")
    with open_run(str(layout.path), Process("Ascend")):
        pass


def test_it_takes_no_folder_of_a_real_run(in_a_dry_run, tmp_path):
    (tmp_path / "log").write_text("of a real run\n")
    message = "is not empty; a dry run, whose files mean nothing, takes a new folder"
    with pytest.raises(UserError, match=message), open_run(str(tmp_path), Process("Ascend")):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_the_host_hears_of_the_other_ranks_what_it_says_itself(in_a_dry_run):
    assert collectives.share({"epoch": 3}, ONE_OF_EIGHT) == {"epoch": 3}
    assert collectives.sum_over_ranks(np.array([1, 2], np.float32), ONE_OF_EIGHT).tolist() == [8, 16]
    parameter = Parameter(Tensor([1.0, 2.0]), name="weight")
    collectives.broadcast([parameter], ONE_OF_EIGHT)
    assert parameter.asnumpy().tolist() == [1, 2]
    with pytest.raises(UserError, match="of this rank"), collectives.together(ONE_OF_EIGHT):
        raise UserError("of this rank")

"""How a training begins: settings that follow from checkpoints, images and other settings; the loss scale."""
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from mindspore import Parameter, Tensor
from small_network import SmallNetwork

from src.common.errors import UserError
from src.dataset import DATA_SETS
from src.evaluation import labelled
from src.nt_xent import NTXent
from src.optimizer import build_optimizer
from src.run.checkpoint import Checkpoint
from src.settings.network import Network
from src.settings.parsing import parse
from src.settings.scripts import EvalSettings, TrainSettings
from src.training.beginning import Start, resolve
from src.training.loop import learner_of

NETWORK = Network("resnet18", 1.0, "strided", 32, projection_dimension=128)


def checkpoint_of(network, **settings):
    return Checkpoint(Path("a.ckpt"), {}, {"network": dataclasses.asdict(network), "global_batch": 128, "settings": {
        "dataset_name": "cifar10", "batch_size": 128, **settings}})


def resumed(source, *flags, world_size=1):
    return resolve(parse(TrainSettings, ["--resume", *flags]), Start(resumed=source), world_size)


def pretrained(source, *flags, world_size=1):
    return resolve(parse(TrainSettings, list(flags)), Start(source=source), world_size)


def evaluated(source, *flags):
    given = labelled.fill_from_encoder(parse(EvalSettings, ["--encoder_checkpoint_path", "a.ckpt", *flags]), source)
    return given.settings_type, dataclasses.replace(NETWORK, stem=given["stem"])


@pytest.mark.parametrize("follow", [resumed, pretrained, evaluated])
def test_the_network_is_the_checkpoints(follow):
    assert follow(checkpoint_of(NETWORK))[1].stem == "strided"
    with pytest.raises(UserError, match="--stem: got cifar, but a.ckpt was made with strided"):
        follow(checkpoint_of(NETWORK), "--stem", "cifar")


@pytest.mark.parametrize("follow", [resumed, pretrained])
def test_the_normalisation_is_the_checkpoints_numbers(follow):
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    assert (mean, std) != (DATA_SETS["cifar10"].mean, DATA_SETS["cifar10"].std)
    settings, network = follow(checkpoint_of(dataclasses.replace(NETWORK, mean=mean, std=std)))
    assert settings.normalize and (network.mean, network.std) == (mean, std)


def test_a_new_run_is_normalised_by_its_data_set():
    settings, network = resolve(parse(TrainSettings, ["--normalize", "--dataset_name", "stl10"]), Start(), 1)
    assert (network.mean, network.std) == (DATA_SETS["stl10"].mean, DATA_SETS["stl10"].std)
    assert (network.image_size, network.stem, settings.jitter_strength, settings.blur_probability) == (
        96, "imagenet", 1.0, 0.5)
    _, plain = resolve(parse(TrainSettings, []), Start(), 1)
    assert plain == Network("resnet50", projection_dimension=128)


@pytest.mark.parametrize("optimizer, flags, world_size, rate", [
    ("Adam", [], 2, 9e-4 / 2), ("Adam", ["--lr_scaling", "linear"], 2, 9e-4 / 4), ("SGD", [], 4, 0.06),
    ("LARS", [], 16, 2.4), ("LARS", ["--lr_scaling", "sqrt"], 4, 0.075 * 512**0.5)])
def test_the_learning_rate_follows_the_global_batch(optimizer, flags, world_size, rate):
    settings, _ = resolve(parse(TrainSettings, ["--optimizer", optimizer, *flags]), Start(), world_size)
    assert settings.learning_rate == pytest.approx(rate)


def test_a_resumed_run_keeps_its_global_batch():
    settings, _ = resumed(checkpoint_of(NETWORK), world_size=4)
    assert settings.batch_size == 32
    with pytest.raises(UserError, match="--device_num: got 3, but a.ckpt was trained with 128 images per step"):
        resumed(checkpoint_of(NETWORK), world_size=3)
    with pytest.raises(UserError, match="--batch_size: got 128, but .* 64 on each of 2 devices; leave the flag out"):
        resumed(checkpoint_of(NETWORK), "--batch_size", "128", world_size=2)


@pytest.mark.parametrize("name", ["cross_device_negatives", "sync_bn"])
def test_a_run_whose_devices_are_apart_keeps_their_number(name):
    """Two devices of 64 images have 254 negatives in all for two views of one; one of 128 has others."""
    of_two = checkpoint_of(NETWORK, **{name: False, "batch_size": 64})
    assert resumed(of_two, world_size=2)[0].batch_size == 64
    for world_size in (1, 4):
        with pytest.raises(UserError, match=f"--device_num: got {world_size}, .* 2 devices, and with --{name} False"):
            resumed(of_two, world_size=world_size)


def test_workers_are_two_and_for_image_files_the_machines_cores(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert resolve(parse(TrainSettings, []), Start(), 1)[0].num_parallel_workers == 2
    assert resolve(parse(TrainSettings, ["--dataset_name", "imagefolder"]), Start(), 1)[0].num_parallel_workers == 6
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert resolve(parse(TrainSettings, []), Start(), 1)[0].num_parallel_workers == 1
    with pytest.raises(UserError, match="--num_parallel_workers: got 2, takes at most the 1 cores of this machine"):
        resolve(parse(TrainSettings, ["--num_parallel_workers", "2"]), Start(), 1)


@pytest.mark.parametrize("then, now", [("O2", "O2"), ("O0", "O2"), ("O2", "O0")])
def test_a_loss_scale_begins_anew_or_goes_where_the_layers_are_others(then, now):
    """The CPU's own layers compute --amp_level O2 in bfloat16, without a loss scale; MindSpore's in float16."""
    def learner(level):
        model = SmallNetwork()
        optimizer = build_optimizer("Adam", model.trainable_params(), np.ones(3, np.float32), 0.0)
        return learner_of(model, NTXent(), optimizer, np.ones(3), level)

    before, after = learner(then), learner(now)
    for parameter in before.state():
        parameter.set_data(Tensor(np.full(parameter.shape, 7), parameter.dtype))
    stored = {parameter.name: Parameter(parameter.value(), name=parameter.name) for parameter in before.state()}
    Start(resumed=Checkpoint(Path("a.ckpt"), stored, {})).load_into(after)
    for parameter in after.state():
        is_new = then == "O0" and parameter.name.startswith("loss_scale")
        assert (parameter.asnumpy() == 7).all() != is_new, parameter.name

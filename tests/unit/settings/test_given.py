"""The user's settings and what is filled into them; the names that flags share with the registries."""
import dataclasses
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from src.common.errors import UserError
from src.dataset import DATA_SETS
from src.evaluation.labelled import fill_from_encoder
from src.lr_generator import EXPONENTS, PEAKS, learning_rates
from src.resnet import ENCODERS
from src.run.checkpoint import Checkpoint
from src.settings import flags, scripts
from src.settings.augmentation import Augmentation
from src.settings.given import Role, flags_of, values_of
from src.settings.network import Network
from src.settings.parsing import parse
from src.settings.scripts import SCRIPTS, EvalSettings, TrainSettings

STORED = {"encoder": "resnet18", "width_multiplier": 0.25, "unknown": 1}
OPEN = {"image_size": 32, "stem": "cifar", "num_parallel_workers": 2, "learning_rate": 1.0, "jitter_strength": 0.5,
        "blur_probability": 0.0}


def test_the_users_value_wins_then_the_filled_one_then_the_default():
    given = parse(TrainSettings, ["--batch_size", "32"]).fill(batch_size=64, epoch_size=7)
    assert (given["batch_size"], given["epoch_size"], given["seed"]) == (32, 7, 0)


def test_a_checkpoint_fills_in_what_the_user_left_out():
    assert parse(TrainSettings, []).adopt(STORED, "a.ckpt")["encoder"] == "resnet18"
    assert parse(TrainSettings, ["--encoder", "resnet18"]).adopt(STORED, "a.ckpt")["width_multiplier"] == 0.25
    with pytest.raises(UserError, match="--encoder: got resnet50.* a.ckpt"):
        parse(TrainSettings, ["--encoder", "resnet50"]).adopt(STORED, "a.ckpt")


def test_an_encoder_without_a_head_takes_no_projection_dimension():
    network = {"encoder": "resnet18", "projection_dimension": None}
    source = Checkpoint(Path("a.ckpt"), {}, {"network": network, "settings": {"dataset_name": "cifar10"}})
    argv = ["--encoder_checkpoint_path", "a.ckpt"]
    assert fill_from_encoder(parse(EvalSettings, argv), source)["projection_dimension"] is None
    with pytest.raises(UserError, match="--projection_dimension: got 8.* a.ckpt"):
        fill_from_encoder(parse(EvalSettings, [*argv, "--projection_dimension", "8"]), source)


def test_resolved_settings_have_all_values():
    settings = parse(TrainSettings, []).resolved(**OPEN)
    assert settings.learning_rate == 1.0 and settings.num_samples is None
    assert settings.augmentation == Augmentation(0.08, 0.5, 0.5, 0.2, 0.0)
    assert {"temperature", "seed"} <= values_of(settings, Role.LEARNING).keys() < values_of(settings).keys()


def test_a_default_is_what_the_flag_takes_and_of_the_fields_type():
    for settings_type in SCRIPTS.values():
        hints = get_type_hints(settings_type)
        for field in flags_of(settings_type):
            default = field.metadata["default"]
            if default is not None:
                assert field.metadata["takes"].convert(str(default)) == default
                assert isinstance(default, get_args(hints[field.name]) or hints[field.name]), field.name


def test_the_flags_of_a_network_are_what_a_checkpoint_keeps():
    names = {field.name for field in flags_of(TrainSettings, Role.NETWORK)}
    network = Network("resnet18", projection_dimension=8)
    assert names == network.settings.keys()
    assert names - {"normalize"} == {field.name for field in dataclasses.fields(Network)} - {"mean", "std"}
    assert network.without_head.settings.keys() == names - {"projection_dimension", "head_batch_norm"}


def test_the_names_are_those_of_the_registries():
    assert tuple(DATA_SETS) == flags.DATA_SETS
    assert tuple(ENCODERS) == flags.ENCODERS
    assert tuple(PEAKS) == scripts.OPTIMIZERS
    assert set(scripts.SCALINGS) == set(EXPONENTS)
    for schedule in scripts.SCHEDULES:
        assert len(learning_rates(schedule, 1.0, 2, 3)) == 6

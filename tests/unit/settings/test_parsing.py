"""The command line and recipes. What they refuse is in tests/bad_input/test_settings.py."""
import re

import pytest
import write_flags
from helpers import ROOT, call_script

from src.common.errors import UserError
from src.settings.given import flags_of
from src.settings.parsing import parse
from src.settings.scripts import SCRIPTS, EvalSettings, TrainSettings
from src.settings.types import choice, integer, number

EVAL = ["--encoder_checkpoint_path", "x.ckpt"]


def converted(takes, text):
    try:
        return takes.convert(text)
    except ValueError:
        return None


@pytest.mark.parametrize("takes, taken, refused", [
    (integer(0), {"0": 0, "-0": 0, "+7": 7, "007": 7, "9" * 30: int("9" * 30)},
     ["-1", "", " 1", "1_0", "1.0", "0x1", "١", "one"]),
    (integer(2, 4), {"2": 2, "4": 4}, ["1", "5"]),
    (number(0, 1), {"0": 0, "1": 1, "1e-3": 1e-3, ".5": 0.5, "1.": 1},
     ["-1e-9", "1.0001", "nan", "inf", "1,5", ".", "e5", "٠"]),
    (number(0, above=True), {"5e-324": 5e-324, "1e308": 1e308}, ["0", "-0.0", "1e400", "inf", "-inf"]),
    (choice("SGD", "Adam"), {"SGD": "SGD"}, ["sgd", "SGD ", "", "S"]),
])
def test_the_types_of_flags(takes, taken, refused):
    assert {text: converted(takes, text) for text in taken} == taken
    assert [converted(takes, text) for text in refused] == [None] * len(refused)


def test_booleans_take_any_case_and_no_value():
    for text in ("True", "FALSE"):
        assert parse(TrainSettings, ["--normalize", text])["normalize"] is (text == "True")
    assert parse(TrainSettings, ["--normalize", "--seed", "3"])["normalize"] is True
    for text in ("1", "yes", "", "falſe"):
        with pytest.raises(UserError, match="--normalize: got"):
            parse(TrainSettings, [f"--normalize={text}"])


def test_recipe_values_mean_the_same_as_on_the_command_line_which_wins(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("learning_rate: 1e-3\nnormalize: True\nseed: 010\nnum_samples: null\nlr_scaling:\n"
                      "train_output_path: '~'\nencoder: &e resnet18 # as an anchor\nbatch_size: 64\n")
    assert parse(TrainSettings, ["--config", str(recipe), "--batch_size", "8", "--batch_size", "32"]).chosen == {
        "config": str(recipe), "learning_rate": 1e-3, "normalize": True, "seed": 10, "train_output_path": "~",
        "encoder": "resnet18", "batch_size": 32}


def test_shipped_recipes_are_valid():
    for recipe in (ROOT / "configs").glob("*.yaml"):
        is_evaluation = recipe.stem.endswith("_eval")
        parse(EvalSettings if is_evaluation else TrainSettings,
              [*(EVAL if is_evaluation else ()), "--config", str(recipe)])


def test_the_page_of_the_flags_is_up_to_date():
    page = (ROOT / "docs" / "flags.md").read_text(encoding="utf-8")
    assert page == write_flags.page(), "run python scripts/write_flags.py"


def test_help_names_every_flag(tmp_path):
    for script, settings_type in SCRIPTS.items():
        text = call_script(script, "--help", cwd=tmp_path).stdout
        assert all(f"--{field.name} [" in text for field in flags_of(settings_type))


# Of train.py and linear_eval.py in research/cv/simclr of mindspore-ai/models.
MODEL_ZOO = {
    TrainSettings: "device_target run_cloudbrain run_distribute device_num device_id dataset_name train_url data_url "
                   "train_dataset_path train_output_path batch_size epoch_size projection_dimension width_multiplier "
                   "temperature pre_trained_path pretrain_epoch_size save_checkpoint_epochs save_graphs optimizer "
                   "weight_decay warmup_epochs use_crop use_flip use_color_jitter use_color_gray use_blur use_norm",
    EvalSettings: "device_target run_distribute run_cloudbrain device_num device_id dataset_name train_url data_url "
                  "train_dataset_path eval_dataset_path train_output_path class_num batch_size epoch_size "
                  "projection_dimension width_multiplier pre_classifier_checkpoint_path encoder_checkpoint_path "
                  "save_checkpoint_epochs print_iter save_graphs use_norm"}


@pytest.mark.parametrize("settings_type", MODEL_ZOO)
def test_the_model_zoos_flags_exist_or_are_answered(settings_type):
    own = {field.name for field in flags_of(settings_type)}
    for name in sorted(set(MODEL_ZOO[settings_type].split()) - own):
        with pytest.raises(UserError) as error:
            parse(settings_type, [f"--{name}", "True"])
        (instead,) = re.findall(r"train.py has --(\w+)", str(error.value))
        assert instead in {field.name for field in flags_of(TrainSettings)}

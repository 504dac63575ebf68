"""Flags, recipes and their errors."""
import re

import pytest
import write_flags
from helpers import ROOT, call_script
from hypothesis import given
from hypothesis import strategies as st

from src.common.errors import UserError
from src.settings.given import Group, flags_of
from src.settings.parsing import parse
from src.settings.scripts import SCRIPTS, ConvertSettings, EvalSettings, ExportSettings, TrainSettings
from src.settings.types import BOOLEAN

EVAL = ["--encoder_checkpoint_path", "x.ckpt"]
EXPORT = ["--ckpt_simclr_encoder", "x.ckpt"]


def test_defaults_are_the_documented_ones():
    train = parse(TrainSettings, [])
    expected = {"run_cloudbrain": False, "run_distribute": False, "device_num": None, "device_id": 0,
                "dataset_name": "cifar10", "train_output_path": "./outputs", "batch_size": 128, "epoch_size": 100,
                "projection_dimension": 128, "width_multiplier": 1, "temperature": 0.5, "pretrain_epoch_size": 0,
                "save_checkpoint_epochs": 1, "save_graphs": False, "optimizer": "Adam", "weight_decay": 3e-4,
                "encoder": "resnet50"}
    assert {name: train[name] for name in expected} == expected
    evaluation = parse(EvalSettings, EVAL)
    expected = {"class_num": None, "print_iter": 100, "batch_size": 128, "epoch_size": 100, "save_checkpoint_epochs": 1}
    assert {name: evaluation[name] for name in expected} == expected
    assert parse(ExportSettings, EXPORT)["batch_size"] == 1


@given(st.sampled_from(["True", "False"]), st.data())
def test_booleans_take_any_case(word, data):
    text = "".join(data.draw(st.sampled_from([letter.upper(), letter.lower()])) for letter in word)
    assert parse(TrainSettings, ["--normalize", text])["normalize"] is (word == "True")


@given(st.text(min_size=1).filter(lambda text: text.lower() not in ("true", "false") and not text.startswith("-")))
def test_nothing_else_is_a_boolean(text):
    with pytest.raises(UserError, match="--normalize: got .* takes True or False"):
        parse(TrainSettings, ["--normalize", text])


@given(st.integers(max_value=0))
def test_integers_have_a_lower_end(value):
    with pytest.raises(UserError, match=f"--epoch_size: got '{value}', takes an integer of at least 1"):
        parse(TrainSettings, [f"--epoch_size={value}"])


@given(st.floats(allow_nan=True, allow_infinity=True).filter(lambda x: not 0 < x <= 1))
def test_numbers_have_both_ends(value):
    with pytest.raises(UserError, match="--crop_min_scale: got .*, takes a number above 0 and at most 1"):
        parse(TrainSettings, [f"--crop_min_scale={value}"])


@pytest.mark.parametrize("argv, message", [
    (["--batch_size", "abc"], "--batch_size: got 'abc', takes an integer of at least 2"),
    (["--batch_size"], "--batch_size: got no value, takes an integer of at least 2"),
    (["--bach_size", "8"], "--bach_size: unknown flag (got '8'); did you mean --batch_size? --help lists all flags"),
    (["--batch", "8"], "--batch: unknown flag"),
    (["cifar10"], "'cifar10': got a value without a flag"),
    (["--device_target", "TPU"], "--device_target: got 'TPU', takes one of Ascend, GPU, CPU"),
    (["--optimizer", "Lion"], "--optimizer: got 'Lion', takes one of Adam, SGD, LARS"),
    (["--amp_level", "O1"], "--amp_level: got 'O1', takes one of O0, O2, O3"),
    (["--lr_scaling", "sqrt", "--learning_rate", "1"], "--lr_scaling: got sqrt with --learning_rate 1.0, which is"),
    (["--use_blur", "True"], "--use_blur: unknown flag (got 'True'); it was the model zoo's; here it is --blur_prob"),
    (["--accumulate_steps", "4"], "--accumulate_steps: unknown flag (got '4'); gradient accumulation is not offered"),
    (["--gradient-accumulation=2"], "--gradient-accumulation: unknown flag (got '2'); gradient accumulation is not"),
    (["--temperature", "inf"], "--temperature: got 'inf', takes a number of at least 0.001"),
    (["--device_num", "8"], "--device_num: got 8 without --run_distribute True"),
    (["--run_distribute", "--device_id", "0"], "--device_id: got 0 with --run_distribute True"),
    (["--run_cloudbrain", "True", "--data_url", "s3://x"], "--train_url: got nothing with --run_cloudbrain True"),
    (["--run_cloudbrain", "True"], "--data_url: got nothing with --run_cloudbrain True"),
    (["--data_url", "s3://x"], "--data_url: got s3://x without --run_cloudbrain True"),
    (["--epoch_size", "5", "--warmup_epochs", "5"], "--warmup_epochs: got 5.0, takes less than epoch_size, which is 5"),
    (["--pretrain_epoch_size", "5"], "--pretrain_epoch_size: got 5 without --pre_trained_path"),
])
def test_bad_flags_are_named(argv, message):
    with pytest.raises(UserError) as error:
        parse(TrainSettings, argv)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("settings_type, message", [
    (EvalSettings, "--encoder_checkpoint_path: got nothing"), (ExportSettings, "--ckpt_simclr_encoder: got nothing")])
def test_required_flags(settings_type, message):
    with pytest.raises(UserError, match=message):
        parse(settings_type, [])


@pytest.mark.parametrize("argv, message", [
    ([], "--source_path: got nothing, takes a file, such as resnet50.pth"),
    (["--source_path", "a.pth"], "--target_path: got nothing, takes a file, such as"),
    (["--source_path", "a.pth", "--target_path", "a"], "--target_path: got a, takes a file that ends in one of .ckpt"),
])
def test_required_flags_of_the_converter(argv, message):
    with pytest.raises(UserError, match=message):
        parse(ConvertSettings, argv)


def test_recipe_gives_way_to_the_command_line(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("batch_size: 64\nlearning_rate: 1e-3\nnormalize: true\n")
    found = parse(TrainSettings, ["--config", str(recipe), "--batch_size", "32"])
    assert (found["batch_size"], found["learning_rate"], found["normalize"]) == (32, 1e-3, True)


@pytest.mark.parametrize("text, message", [
    ("batchsize: 64", "batchsize: unknown flag in .*did you mean batch_size"),
    ("grad_accumulation_steps: 2", "unknown flag in .*; gradient accumulation is not offered, .* the negatives"),
    ("batch_size: many", "batch_size: got 'many', takes an integer"),
    ("batch_size: [1, 2]", "batch_size: got .* takes an integer"),
    ("batch_size: b: c", "is not YAML"),
    ("just words", "holds no flags"),
])
def test_bad_recipes(tmp_path, text, message):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        parse(TrainSettings, ["--config", str(recipe)])
    assert "\n" not in str(error.value)


def test_missing_recipe():
    with pytest.raises(UserError, match="--config: nowhere.yaml: cannot be read .*; name a YAML file of flags"):
        parse(TrainSettings, ["--config", "nowhere.yaml"])


@pytest.mark.parametrize("recipe", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(recipe):
    if recipe.stem.endswith("_eval"):
        parse(EvalSettings, [*EVAL, "--config", str(recipe)])
    else:
        parse(TrainSettings, ["--config", str(recipe)])


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_end_with_status_2_and_one_line(tmp_path, script):
    result = call_script(script, "--image_size", "0", cwd=tmp_path)
    assert result == (2, "", f"{script}: --image_size: got '0', takes an integer of at least 8 and at most "
                          "4096\n")
    assert list(tmp_path.iterdir()) == []


def test_the_page_of_the_flags_is_up_to_date():
    page = (ROOT / "docs" / "flags.md").read_text(encoding="utf-8")
    assert page == write_flags.page(), "python scripts/write_flags.py writes it anew"


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_every_flag_in_its_group(script, tmp_path):
    text = call_script(script, "--help", cwd=tmp_path).stdout
    for field in flags_of(SCRIPTS[script]):
        groups = text.split(f"\n{field.metadata['group'].value}:\n")
        assert f"--{field.name} [" in groups[1].split(":\n\n")[0]
        assert field.metadata["takes"] is not BOOLEAN or "True or False" in " ".join(text.split())
    there = [group for group in Group if f"\n{group.value}:\n" in text]
    assert there[0] is Group.USUAL and [text.index(f"\n{group.value}:\n") for group in there] == sorted(
        text.index(f"\n{group.value}:\n") for group in there)


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
def test_the_model_zoos_flags_are_here_or_answered(settings_type):
    here = {field.name for field in flags_of(settings_type)}
    for name in MODEL_ZOO[settings_type].split():
        answer = settings_type.why_not(name)
        assert name in here or answer, name
        for flag in re.findall(r"--(\w+)", answer or ""):
            assert flag in here

"""train.py with the CPU's own layers and with MindSpore's: a run may change between them."""
import os
import shutil

import numpy as np
import pytest
import yaml
from cpu_layers import need_bfloat16, need_library
from helpers import (
    ROOT,
    TRAPPED,
    arguments,
    back_to,
    call_script,
    done,
    equal,
    of_kind,
    start_script,
    values,
)

from src.layers.cpu import library
from src.run import records

pytestmark = pytest.mark.long

WARNING = "the CPU's own layers cannot be used: "


def losses(run):
    return [record["loss"] for record in of_kind(records.PRETRAIN, run)]


@pytest.fixture(scope="module")
def without_compiler(finished, tmp_path_factory):
    """A run without a compiler, and its output."""
    folder = tmp_path_factory.mktemp("without_compiler")
    (folder / "bin").mkdir()
    for name in ("sh", "cat", "grep", "sed", "uname"):  # MindSpore asks the system what it is
        (folder / "bin" / name).symlink_to(shutil.which(name))
    environment = {"PATH": str(folder / "bin"), "XDG_CACHE_HOME": str(folder), "CXX": ""}
    result = start_script("train.py", *arguments(folder / "run"), cwd=finished, env=environment)
    assert result.stderr == ""
    return folder / "run", done(result)


def test_without_a_compiler_there_is_one_warning_and_the_losses_are_the_same(finished, without_compiler):
    need_library()
    run, out = without_compiler
    (warning,) = [line for line in out.splitlines() if WARNING in line]
    assert warning.startswith(WARNING + "there is no C++ compiler")
    assert WARNING not in (finished / "train.out").read_text()
    assert losses(run) != losses(finished / "run")
    assert losses(run) == pytest.approx(losses(finished / "run"), rel=1e-2)
    assert losses(run)[0] == pytest.approx(losses(finished / "run")[0], rel=1e-3)
    equal(*(values(path / "checkpoint" / "checkpoint_simclr-0.ckpt") for path in (run, finished / "run")))


def test_a_run_goes_on_with_the_other_layers(finished, without_compiler, tmp_path):
    """Resumed after its second epoch, it reaches nearly the weights that it had after the third."""
    need_library()
    run = tmp_path / "run"
    shutil.copytree(without_compiler[0], run, symlinks=True)
    expected = values(run)
    back_to(run, 2)
    out = done(call_script("train.py", "--resume", "--train_dataset_path", "data", "--train_output_path", run,
                           cwd=finished))
    assert "resumed after epoch 2 of 3" in out
    after_other, before = values(run), values(run / "checkpoint" / "checkpoint_simclr-2.ckpt")
    weights = [name for name in before if name.startswith("encoder.") and name.endswith("weight")]
    changed = [np.concatenate([(after[name] - before[name]).ravel() for name in weights])
               for after in (after_other, expected)]
    assert 0 < np.linalg.norm(changed[0] - changed[1]) < 0.1 * np.linalg.norm(changed[1])


@pytest.mark.parametrize("level, said", [("O2", "has no bfloat16 on this CPU"), ("auto", "auto: O0, float32")])
def test_a_cpu_without_bfloat16_says_so_and_takes_float32(finished, tmp_path, monkeypatch, level, said):
    need_library()
    monkeypatch.setattr(library, "BFLOAT16", 2**30)  # an instruction set that no CPU has
    out = done(call_script("train.py", *arguments(tmp_path / "run", "--amp_level", level), cwd=finished))
    assert out.count(said) == 1
    equal(values(finished / "run"), values(tmp_path / "run"))


def test_a_run_in_float16_goes_on_with_other_layers_and_back(finished, tmp_path):
    """The CPU's own layers need no loss scale; with MindSpore's it begins anew."""
    need_library()
    done(call_script("train.py", *arguments(tmp_path / "run", "--amp_level", "O2", "--cpu_layers", "mindspore",
                                            "--eval_every", "0"), cwd=finished))
    resume = ("train.py", "--resume", "--train_dataset_path", "data", "--train_output_path", tmp_path / "run")
    back_to(tmp_path / "run", 1)
    assert "resumed after epoch 1 of 3" in done(call_script(*resume, cwd=finished))
    assert "loss_scale" not in values(tmp_path / "run")
    back_to(tmp_path / "run", 2)
    assert "resumed after epoch 2 of 3" in done(call_script(*resume, "--cpu_layers", "mindspore", cwd=finished))
    assert 2**13 <= values(tmp_path / "run")["loss_scale"] <= 2**16  # some steps overflow at first


def test_a_run_in_bfloat16_stays_near_that_in_float32(finished, tmp_path):
    """By default a CPU with bfloat16 uses it. oneDNN emulates it where the CPU has none."""
    need_library()
    need_bfloat16()
    trap = f"sys.path.insert(0, {str(ROOT)!r})\nfrom src.layers.cpu import library\nlibrary.BFLOAT16 = 0x27"
    (tmp_path / "trapped.py").write_text(TRAPPED.format(trap=trap))
    out = done(start_script(tmp_path / "trapped.py", ROOT / "train.py", *arguments(tmp_path / "run", "--amp_level",
                            "auto"), cwd=finished, env={"ONEDNN_MAX_CPU_ISA": "DEFAULT"}))
    assert "--amp_level auto: O2, because this CPU has bfloat16\n" in out
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["settings"]["amp_level"] == "O2"
    assert losses(tmp_path / "run") != losses(finished / "run")
    assert losses(tmp_path / "run") == pytest.approx(losses(finished / "run"), rel=2e-2)
    assert {value.dtype for value in values(tmp_path / "run").values() if value.dtype.kind == "f"} == {
        np.dtype(np.float32)}
    assert os.readlink(tmp_path / "run" / "checkpoint" / "latest") == "checkpoint_simclr-3.ckpt"

"""Files of earlier versions are read, and mean what they meant.

In version_1/ is what the version before the checkpoints described their network has left of the 40 + 20 images of
``write_cifar``: train.py --encoder resnet18 --width_multiplier 0.015625 --batch_size 8 --projection_dimension 4
--normalize True --epoch_size 3, then linear_eval.py --epoch_size 2 --batch_size 8 --protocol all, and finetune.py
--epoch_size 1 --batch_size 8.
"""
import json
import shutil

import mindspore as ms
import numpy as np
import pytest
import safetensors.numpy as safetensors
from helpers import ROOT, back_to, call_script, done, equal, features_of, of_kind, refused, values, write_cifar
from mindspore import Tensor

from src.common.files import sha256_of
from src.data.shapes import draw
from src.dataset import DATA_SETS
from src.run import records
from src.run.checkpoint import load
from src.run.info import up_to_date
from src.settings.network import Network

pytestmark = pytest.mark.long

VERSION_1 = ROOT / "tests" / "run" / "version_1"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
NETWORK = Network("resnet18", 0.015625, "cifar", 32, MEAN, STD, 4)
# What the settings of the first versions did not have.
LATER = ("image_size", "stem", "amp_level", "sync_bn", "lr_scaling", "cross_device_negatives")


@pytest.fixture
def work(tmp_path):
    """A folder with the images in ``data`` and a copy of the run in ``run``."""
    write_cifar(tmp_path / "data", train=40, test=20)
    shutil.copytree(VERSION_1, tmp_path / "run", symlinks=True)
    return tmp_path


@pytest.fixture
def edited(monkeypatch):
    """CIFAR-10 gets another mean and deviation than at the time."""
    monkeypatch.setitem(DATA_SETS, "cifar10", DATA_SETS["cifar10"]._replace(mean=(0.1, 0.2, 0.3), std=(0.7, 0.8, 0.9)))


def raw_info(path):
    return json.loads(str(ms.load_checkpoint(str(path))["simclr_info"]))


def rewrite(path, info):
    """Write a checkpoint anew with the info of an earlier version."""
    there = ms.load_checkpoint(str(path))
    del there["simclr_info"]
    ms.save_checkpoint([{"name": name, "data": value} for name, value in there.items()], str(path),
                       append_dict={"simclr_info": json.dumps(info)})


def first_version(path):
    """Give a run's checkpoint the info that the first versions wrote."""
    info = raw_info(path)
    del info["global_batch"]
    rewrite(path, {**info, "settings": {name: value for name, value in info["settings"].items() if name not in LATER}})


def then(kind):
    return of_kind(kind, VERSION_1)


def evaluate(work, output, *more):
    return done(call_script("linear_eval.py", "--encoder_checkpoint_path", "run", "--train_dataset_path", "data",
                            "--batch_size", "8", "--epoch_size", "2", "--train_output_path", output, *more, cwd=work))


def test_a_run_is_resumed(work, edited):
    """It ends with the weights and the record that it ended with then, whatever CIFAR-10's mean is now."""
    back_to(work / "run", 2)
    others = [record for record in records.read(work / "run" / "metrics.jsonl")
              if record["kind"] not in (records.PRETRAIN, records.MONITOR)]
    resume = ("train.py", "--resume", "--train_dataset_path", "data", "--train_output_path", "run")
    refused(call_script(*resume, "--views", "4", cwd=work), "--views: got 4, but .* made with 2;")
    out = done(call_script(*resume, cwd=work))
    assert "resumed after epoch 2 of 3" in out and "of 8 images in 2 views" in out
    resumed, whole = values(work / "run"), values(VERSION_1)
    assert resumed.keys() == whole.keys()
    for name in whole:
        assert np.allclose(resumed[name], whole[name], rtol=0, atol=1e-5), name
    for found, known in zip(of_kind(records.PRETRAIN, work / "run"), then(records.PRETRAIN)):
        for name in ("epoch", "loss", "contrastive_accuracy", "last_loss", "learning_rate"):
            assert found[name] == pytest.approx(known[name], abs=1e-5)
    (found,), (known,) = of_kind(records.MONITOR, work / "run"), then(records.MONITOR)
    assert found.keys() == known.keys() and found["embedding_std"] == pytest.approx(known["embedding_std"], rel=1e-3)
    assert [record for record in records.read(work / "run" / "metrics.jsonl")
            if record["kind"] not in (records.PRETRAIN, records.MONITOR)] == others
    assert load(str(work / "run"), "simclr", "test").network == NETWORK


def test_a_finished_run_is_evaluated_as_then(work, edited):
    (sgd, lbfgs), (knn,) = then(records.LINEAR_EVAL), then(records.KNN_EVAL)
    evaluate(work, "given", "--pre_classifier_checkpoint_path", "run/linear_classifier")
    (record,) = of_kind(records.LINEAR_EVAL, work / "given")
    assert record["confusion"] == sgd["confusion"]
    # Its own classifier may be replaced. The layers are those of then.
    evaluate(work, "run", "--protocol", "all", "--cpu_layers", "mindspore")
    again = [*of_kind(records.LINEAR_EVAL, work / "run")[2:], *of_kind(records.KNN_EVAL, work / "run")[1:]]
    assert len(again) == 3
    for found, known in zip(again, (sgd, lbfgs, knn)):
        # Of the 8 held-out images one is read otherwise after the rounding of another processor.
        held_out = [record.pop("held_out_accuracy", {}) for record in (found, known)]
        assert held_out[0] == pytest.approx(held_out[1], abs=1 / 8)
        assert {**found, "encoder_checkpoint": ""} == {**known, "encoder_checkpoint": ""}
    assert [record["protocol_id"] for record in (sgd, lbfgs, knn)] == [
        records.LINEAR_SGD, records.LINEAR_LBFGS, records.KNN]


def test_a_run_of_the_first_versions_is_resumed_and_evaluated(work):
    encoder = work / "run" / "checkpoint" / "checkpoint_simclr-3.ckpt"
    classifier = work / "run" / "linear_classifier" / "linear_classifier-2.ckpt"
    first_version(encoder)
    info = {**raw_info(classifier), "encoder_digest": sha256_of(encoder)}
    del info["classes"]
    rewrite(classifier, info)
    evaluate(work, "given", "--pre_classifier_checkpoint_path", classifier)
    (record,) = of_kind(records.LINEAR_EVAL, work / "given")
    assert record["confusion"] == then(records.LINEAR_EVAL)[0]["confusion"]
    assert "resumed after epoch 3 of 3" in done(call_script(
        "train.py", "--resume", "--train_dataset_path", "data", "--train_output_path", "run", cwd=work))


def test_it_is_exported(work, edited):
    out = done(call_script("export.py", "--ckpt_simclr_encoder", "run", "--ckpt_linear_classifier",
                           "run/linear_classifier/latest", "--batch_size", "20", cwd=work))
    assert "class probabilities" in out
    images = draw(20, 9)
    model = ms.nn.GraphCell(ms.load(str(work / "simclr.mindir")))
    chosen = model(Tensor(np.ascontiguousarray(images.pixels.transpose(0, 3, 1, 2))))[0].asnumpy().argmax(1)
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (images.labels, chosen), 1)
    assert confusion.tolist() == then(records.LINEAR_EVAL)[0]["confusion"]


def test_it_is_converted_and_back(work, edited, trace):
    safe, back = work / "converted" / "encoder.safetensors", work / "converted" / "back.ckpt"
    done(call_script("convert.py", "--source_path", "run", "--target_path", safe, cwd=work))
    weights, encoder = safetensors.load_file(safe), values(VERSION_1)
    assert np.array_equal(weights["conv1.weight"], encoder["encoder.conv1.weight"])
    assert np.array_equal(weights["layer4.1.bn2.running_var"], encoder["encoder.layer4.1.bn2.moving_variance"])
    done(call_script("convert.py", "--source_path", safe, "--target_path", back, cwd=work))
    equal(values(back), {name: value for name, value in encoder.items() if name.startswith("encoder.")})
    found = load(str(back), "simclr", "test")
    assert found.network == NETWORK.without_head and found.info["epoch"] == 3
    trace.check(work / "converted")


def test_it_is_fine_tuned_as_then(work, edited):
    finetune = ("finetune.py", "--encoder_checkpoint_path", "run", "--train_dataset_path", "data", "--batch_size", "8",
                "--epoch_size", "1", "--train_output_path")
    refused(call_script(*finetune, "run", cwd=work),
            "--train_output_path: run/finetune/pretrained-1 already holds a fine-tuned network; name another folder$")
    done(call_script(*finetune, "again", cwd=work))
    (epoch,), (result,) = of_kind(records.FINETUNE, work / "again"), of_kind(records.FINETUNE_EVAL, work / "again")
    (known_epoch,), (known,) = then(records.FINETUNE), then(records.FINETUNE_EVAL)
    for name in ("loss", "train_accuracy", "last_loss", "learning_rate"):
        assert epoch[name] == pytest.approx(known_epoch[name], abs=1e-5)
    assert result["confusion"] == known["confusion"]
    assert result.items() >= {**known, "encoder_checkpoint": result["encoder_checkpoint"]}.items()
    assert load(str(work / "again" / "finetune" / "pretrained-1" / "encoder.ckpt"), "simclr", "test").network == \
        NETWORK.without_head


def test_its_fine_tuned_network_is_evaluated_as_then(work, edited):
    place = work / "run" / "finetune" / "pretrained-1"
    assert load(str(place / "encoder.ckpt"), "simclr", "test").network == NETWORK.without_head
    evaluate(work, "again", "--encoder_checkpoint_path", place / "encoder.ckpt", "--pre_classifier_checkpoint_path",
             place / "linear_classifier.ckpt")
    (record,), (known,) = of_kind(records.LINEAR_EVAL, work / "again"), then(records.FINETUNE_EVAL)
    assert record["confusion"] == known["confusion"]


def test_a_network_of_today_keeps_its_normalisation_too(finished, tmp_path, edited):
    """The registry is edited after it was trained; its features stay."""
    assert load(str(finished / "run"), "simclr", "test").network.mean == MEAN
    done(call_script("linear_eval.py", "--encoder_checkpoint_path", "run", "--pre_classifier_checkpoint_path",
                     "run/linear_classifier", "--train_dataset_path", "data", "--batch_size", "16",
                     "--train_output_path", tmp_path, cwd=finished))
    old, new = (features_of(folder, "test") for folder in (finished / "run", tmp_path))
    assert np.allclose(old, new, rtol=0, atol=1e-6)
    (record,), (known,) = (of_kind(records.LINEAR_EVAL, folder) for folder in (tmp_path, finished / "run"))
    assert record["confusion"] == known["confusion"]


# --- the info ---

@pytest.mark.parametrize("name, side, stem", [
    ("cifar10", 32, "cifar"), ("cifar100", 32, "cifar"), ("shapes", 32, "cifar"), ("stl10", 96, "imagenet"),
    ("imagefolder", 224, "imagenet")])
@pytest.mark.parametrize("normalize", [True, False])
def test_the_first_versions_had_one_size_for_a_data_set(monkeypatch, name, side, stem, normalize):
    mean, std = (DATA_SETS[name].mean, DATA_SETS[name].std) if normalize else (None, None)
    monkeypatch.setitem(DATA_SETS, name, DATA_SETS[name]._replace(side=8, mean=(0, 0, 0), std=(1, 1, 1)))
    settings = {"dataset_name": name, "encoder": "resnet18", "width_multiplier": 0.5, "projection_dimension": 8,
                "head_batch_norm": True, "normalize": normalize, "batch_size": 16, "temperature": 0.1, "resume": True}
    old = {"kind": "simclr", "epoch": 2, "data": "x", "settings": settings}
    new = up_to_date(old)
    assert Network.of(new["network"]) == Network("resnet18", 0.5, stem, side, mean, std, 8, True)
    assert (new["holds"], new["epoch"], new["data"], new["global_batch"]) == ("simclr", 2, "x", 16)
    assert new["settings"].items() >= {"dataset_name": name, "batch_size": 16, "temperature": 0.1, "views": 2}.items()
    assert up_to_date(new) == new
    assert old == {"kind": "simclr", "epoch": 2, "data": "x", "settings": settings}


def test_a_classifier_without_names_has_those_of_its_data_set():
    old = {"kind": "linear_classifier", "class_num": 12, "features": 8, "dataset_name": "cifar10", "epoch": 2}
    new = up_to_date(old)
    assert new["classes"] == ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    assert {**old, "holds": "linear_classifier", "classes": new["classes"]} == {**new, "kind": "linear_classifier"}
    named = up_to_date({**old, "classes": ["ant", "bee"]})
    assert named["classes"] == ["ant", "bee"]

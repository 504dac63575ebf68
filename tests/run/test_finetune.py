"""Training with labels: which labels, which images with them, the loss, and finetune.py as a user runs it."""
import json

import numpy as np
import pytest
from helpers import start_script
from hypothesis import given
from hypothesis import strategies as st
from mindspore import Tensor
from scipy.special import log_softmax

from src.common.errors import UserError
from src.data.augmentation import Augmentation, LabelledViews
from src.data.cifar import write_file
from src.data.few_labels import balanced_subset
from src.data.shapes import draw
from src.run.checkpoint import load
from src.run.folder import read_metrics
from src.tasks.fine_tuning import CrossEntropy

CLASSES = tuple("abcde")


@given(st.integers(1, 60), st.floats(0.01, 0.99), st.integers(0, 99))
def test_a_subset_is_balanced_and_nested(per_class, fraction, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(5), per_class))
    rows = balanced_subset(labels, fraction, seed, CLASSES)
    assert np.bincount(labels[rows], minlength=5).tolist() == [max(1, round(fraction * per_class))] * 5
    assert (np.diff(rows) > 0).all()
    assert set(balanced_subset(labels, fraction / 3, seed, CLASSES)) <= set(rows)
    assert np.array_equal(rows, balanced_subset(labels, fraction, seed, CLASSES))


def test_a_subset_depends_on_the_seed_and_all_means_all():
    labels = np.tile(np.arange(5), 40)
    subsets = {tuple(balanced_subset(labels, 0.1, seed, CLASSES)) for seed in range(20)}
    assert len(subsets) == 20
    lopsided = np.array([0] * 9 + [1] * 2)
    assert np.array_equal(balanced_subset(lopsided, 1, 0, CLASSES[:2]), np.arange(11))
    with pytest.raises(UserError, match=r"--label_fraction: got 0.9, .* 5 images of every class, but b has 2; take a"):
        balanced_subset(lopsided, 0.9, 0, CLASSES[:2])


def test_every_image_comes_with_its_label():
    """Images of one colour, which no crop and no flip changes, tell which they are."""
    count, batch = 50, 8
    pixels = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 16, 16, 3))
    labels, rows = np.arange(count) * 7 % 10, np.arange(0, count, 2)
    crops_and_flips = Augmentation(jitter_strength=0, grayscale_probability=0)
    views = LabelledViews(pixels, labels, rows=rows, batch_size=batch, augmentation=crops_and_flips, seed=3, workers=1)
    epochs = []
    for _ in range(2):
        batches = list(views)
        assert len(batches) == len(views) == len(rows) // batch
        images, of_images = (np.concatenate(part) for part in zip(*batches))
        assert images.dtype == np.uint8 and images.shape == (24, 3, 16, 16) and of_images.dtype == np.int32
        seen = images[:, 0, 0, 0]
        assert (images == seen[:, None, None, None]).all()
        assert len(set(seen)) == 24 and set(seen) <= set(rows)
        assert np.array_equal(of_images, labels[seen])
        epochs.append(tuple(seen))
    assert epochs[0] != epochs[1]


def test_ranks_share_the_images():
    pixels, rows = np.zeros((40, 16, 16, 3), np.uint8), np.arange(5, 29)
    orders = [LabelledViews(pixels, np.arange(40), rows=rows, batch_size=4, augmentation=Augmentation(), seed=3,
                            workers=1, rank=rank, world_size=3).order_of(0) for rank in range(3)]
    assert sorted(np.concatenate(orders)) == rows.tolist()


def test_cross_entropy():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(32, 7)) * 4, rng.integers(0, 7, 32)
    loss, accuracy = CrossEntropy()(Tensor(logits.astype(np.float32)), Tensor(labels.astype(np.int32)))
    assert float(loss.asnumpy()) == pytest.approx(-log_softmax(logits, 1)[np.arange(32), labels].mean(), rel=1e-5)
    assert float(accuracy.asnumpy()) == pytest.approx((logits.argmax(1) == labels).mean())


SMALL = ("--encoder", "resnet18", "--width_multiplier", "0.0625")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a small CIFAR-10, an encoder of it, and two seeds of fine-tuning with a fifth of its labels."""
    folder = tmp_path_factory.mktemp("fine_tuning")
    (folder / "data").mkdir()
    write_file(folder / "data" / "data_batch_1.bin", draw(200, 1))
    write_file(folder / "data" / "test_batch.bin", draw(37, 9))
    result = start_script("train.py", *SMALL, "--train_dataset_path", "data", "--epoch_size", 1, "--batch_size", 64,
                        "--eval_every", 0, "--normalize", True, cwd=folder)
    assert result.returncode == 0, result.stderr
    result = finetune(folder, "--label_fraction", 0.2, "--repeat", 2, "--seed", 4, "--learning_rate", 0.2)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    (folder / "finetune.out").write_text(result.stdout)
    return folder


def finetune(folder, *more):
    return start_script("finetune.py", "--encoder_checkpoint_path", "outputs/checkpoint/latest", "--train_dataset_path",
                      "data", "--epoch_size", 2, "--batch_size", 20, *more, cwd=folder)


def test_the_record_says_everything(work):
    records = read_metrics(work / "outputs" / "metrics.jsonl")
    epochs = [(r["seed"], r["epoch"]) for r in records if r["kind"] == "finetune"]
    assert epochs == [(4, 1), (4, 2), (5, 1), (5, 2)]
    results = [r for r in records if r["kind"] == "finetune_eval"]
    labels = {}
    for record in results:
        assert record["images"] == 37 and sum(map(sum, record["confusion"])) == 37
        assert "fine-tuning of the whole network, 20 % of the labels (40 images, 4 of each class" in record["protocol"]
        assert record["protocol"].endswith("last epoch") and record["labelled_images"] == 40
        subset = json.loads((work / "outputs" / record["labels_file"]).read_text())
        assert subset["seed"] == record["seed"] and subset["label_fraction"] == 0.2
        labels[record["seed"]] = subset["rows"]
        assert np.bincount(draw(200, 1).labels[subset["rows"]]).tolist() == [4] * 10
    assert labels[4] != labels[5]
    (repeated,) = (r for r in records if r["kind"] == "repeated_eval")
    accuracies = [record["accuracy"] for record in results]
    assert repeated["seeds"] == [4, 5] and repeated["accuracies"] == accuracies
    assert repeated["accuracy_std"] == pytest.approx(np.std(accuracies, ddof=1))
    assert f"{100 * np.mean(accuracies):.3f} %" in (work / "finetune.out").read_text().splitlines()[-2]


def test_the_network_is_kept_whole(work):
    """linear_eval.py finds the accuracy of the first seed again with what was written, and export.py takes it."""
    place = work / "outputs" / "finetune" / "pretrained-0.2"
    result = start_script(
        "linear_eval.py", "--encoder_checkpoint_path", place / "encoder.ckpt", "--pre_classifier_checkpoint_path",
        place / "linear_classifier.ckpt", "--train_dataset_path", "data", "--train_output_path", "again", cwd=work)
    assert result.returncode == 0, result.stderr
    kept, again = (next(r for r in read_metrics(work / folder / "metrics.jsonl") if r["kind"] == kind)
                   for folder, kind in (("outputs", "finetune_eval"), ("again", "linear_eval")))
    assert kept["confusion"] == again["confusion"] and kept["accuracy"] == again["accuracy"]
    before, after = (load(str(path), "simclr", "x") for path in (
        work / "outputs" / "checkpoint" / "latest", place / "encoder.ckpt"))
    assert after.info["settings"]["normalize"] is True  # the pixels are the encoder's own
    for name, value in after.parameters.items():
        if name.endswith((".weight", ".moving_mean")):
            assert not np.array_equal(value.asnumpy(), before.parameters[name].asnumpy()), name
    exported = start_script("export.py", "--ckpt_simclr_encoder", place / "encoder.ckpt", "--ckpt_linear_classifier",
                          place / "linear_classifier.ckpt", cwd=work)
    assert exported.returncode == 0 and "class probabilities" in exported.stdout, exported.stderr


def test_supervised_training_begins_with_random_weights(work):
    """With a learning rate of all but nothing, what is written is what the training began with."""
    still = ("--learning_rate", 1e-30, "--epoch_size", 1, "--train_output_path")
    for output, more in (("pretrained", ()), ("random", ("--initial_weights", "random", "--amp_level", "O2"))):
        result = finetune(work, *still, output, *more)
        assert result.returncode == 0, result.stderr
    pretrained = load(str(work / "outputs" / "checkpoint" / "latest"), "simclr", "x").parameters
    equal = {}
    for name in ("pretrained", "random"):
        written = load(str(work / name / "finetune" / f"{name}-1" / "encoder.ckpt"), "simclr", "x").parameters
        equal[name] = np.allclose(*(weights["encoder.conv1.weight"].asnumpy() for weights in (written, pretrained)))
        assert not list((work / name).glob("finetune/*/labels*")), "all labels need no list"
    assert equal == {"pretrained": True, "random": False}
    (record,) = (r for r in read_metrics(work / "random" / "metrics.jsonl") if r["kind"] == "finetune_eval")
    assert record["protocol"].startswith("supervised training from random weights, all 200 labels, 1 epochs of 20")
    assert record["protocol"].endswith("mixed precision O2, in the test too, last epoch")


@pytest.mark.parametrize("flags, message", [
    (("--label_fraction", "0.02"), "--batch_size: got 20, takes at most the 10 labelled images"),
    (("--label_fraction", "0"), "--label_fraction: got '0', takes"),
    (("--encoder", "resnet50"), "--encoder: got resnet50, but "),
    (("--class_num", "7"), "--class_num: got 7, takes at least the 10 classes"),
    (("--seed", 2**32 - 1, "--repeat", 2), f"--repeat: got 2 with --seed {2**32 - 1}, takes seeds of at most")])
def test_bad_input_is_refused_before_anything_is_written(work, flags, message):
    result = finetune(work, "--train_output_path", "nothing", *flags)
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr
    assert not (work / "nothing").exists()


def test_a_fine_tuned_network_is_not_overwritten(work):
    before = (work / "outputs" / "metrics.jsonl").read_bytes()
    result = finetune(work, "--label_fraction", 0.2)
    assert result.returncode == 2 and "finetune/pretrained-0.2 already holds a fine-tuned network" in result.stderr
    assert (work / "outputs" / "metrics.jsonl").read_bytes() == before


def test_another_data_set_than_the_encoders(work):
    """CIFAR-10's encoder on the shapes; the pair of checkpoints then belongs to the shapes."""
    result = finetune(work, "--dataset_name", "shapes", "--train_dataset_path", "shapes", "--num_samples", 100,
                      "--train_output_path", "other", "--epoch_size", 1)
    assert result.returncode == 0, result.stderr
    place = work / "other" / "finetune" / "pretrained-1"
    result = start_script(
        "linear_eval.py", "--encoder_checkpoint_path", place / "encoder.ckpt", "--pre_classifier_checkpoint_path",
        place / "linear_classifier.ckpt", "--train_dataset_path", "shapes", "--train_output_path", "others", cwd=work)
    assert result.returncode == 0, result.stderr
    (first, again) = (read_metrics(work / folder / "metrics.jsonl")[-1] for folder in ("other", "others"))
    assert first["confusion"] == again["confusion"] and again["dataset"] == "shapes" and again["images"] == 2000

"""Training with labels: which labels, which images with them, the loss, and finetune.py as a user runs it."""
import shutil

import numpy as np
import pytest
import yaml
from helpers import call_script, done, equal, kill_script, of_kind, refused, start_script, values
from hypothesis import given
from hypothesis import strategies as st
from mindspore import Tensor
from mindspore.train import Callback
from scipy.special import log_softmax, softmax

from src import optimizer
from src.common.errors import UserError
from src.data import shapes
from src.data.images import balanced_subset
from src.data.shapes import draw
from src.data.views import LabelledViews
from src.resnet import build_encoder
from src.run import records
from src.run.checkpoint import load
from src.settings.augmentation import PAPER_SMALL, Augmentation
from src.simclr_model import CrossEntropy
from src.training import loop

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
    crops_and_flips = PAPER_SMALL._replace(jitter_strength=0, grayscale_probability=0)
    views = LabelledViews(pixels, labels, rows=rows, batch_size=batch, augmentation=crops_and_flips, seed=3, workers=1)
    epochs = []
    for epoch in range(2):
        batches = list(views.of_epoch(epoch))
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
    orders = [LabelledViews(pixels, np.arange(40), rows=rows, batch_size=4, augmentation=PAPER_SMALL, seed=3,
                            workers=1, rank=rank, world_size=3).order_of(0) for rank in range(3)]
    assert sorted(np.concatenate(orders)) == rows.tolist()


def test_cross_entropy():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(32, 7)) * 4, rng.integers(0, 7, 32)
    loss, accuracy = CrossEntropy()(Tensor(logits.astype(np.float32)), Tensor(labels.astype(np.int32)))
    assert float(loss.asnumpy()) == pytest.approx(-log_softmax(logits, 1)[np.arange(32), labels].mean(), rel=1e-5)
    assert float(accuracy.asnumpy()) == pytest.approx((logits.argmax(1) == labels).mean())


# --- the script ---

TWO_SEEDS = ("--label_fraction", 0.2, "--repeat", 2, "--seed", 4, "--learning_rate", 0.2)


def arguments(finished, output, *more):
    return ("finetune.py", "--encoder_checkpoint_path", finished / "run", "--train_dataset_path", finished / "data",
            "--epoch_size", 2, "--batch_size", 10, "--train_output_path", output, *more)


def finetune(finished, output, *more):
    return call_script(*arguments(finished, output, *more), cwd=finished)


@pytest.fixture(scope="module")
def tuned(finished, tmp_path_factory):
    """The folder of two seeds of fine-tuning with a fifth of the labels; its output is in ``out``."""
    folder = tmp_path_factory.mktemp("fine_tuning")
    result = start_script(*arguments(finished, folder / "outputs", *TWO_SEEDS), cwd=folder)
    assert result.stderr == ""
    (folder / "out").write_text(done(result))
    return folder / "outputs"


def test_the_record_says_everything(tuned):
    epochs = [(record["seed"], record["epoch"]) for record in of_kind(records.FINETUNE, tuned)]
    assert epochs == [(4, 1), (4, 2), (5, 1), (5, 2)]
    results = of_kind(records.FINETUNE_EVAL, tuned)
    for record in results:
        assert record["images"] == 37 and sum(map(sum, record["confusion"])) == 37
        assert record["protocol_id"] == records.FINE_TUNED
        assert "fine-tuning of the whole network, 20 % of the labels (20 images, 2 of each class" in record["protocol"]
        assert record["protocol"].endswith("last epoch") and record["labelled_images"] == 20
    (repeated,) = of_kind(records.REPEATED_EVAL, tuned)
    accuracies = [record["accuracy"] for record in results]
    assert repeated["seeds"] == [4, 5] and repeated["accuracies"] == accuracies
    assert repeated["accuracy_std"] == pytest.approx(np.std(accuracies, ddof=1))
    assert f"{100 * np.mean(accuracies):.3f} %" in (tuned.parent / "out").read_text().splitlines()[-2]


@pytest.mark.long
def test_the_network_is_kept_whole(finished, tuned, tmp_path):
    """linear_eval.py finds the accuracy of the first seed again with what was written, and export.py takes it."""
    place = tuned / "finetune" / "pretrained-0.2"
    done(call_script(
        "linear_eval.py", "--encoder_checkpoint_path", place / "encoder.ckpt", "--pre_classifier_checkpoint_path",
        place / "linear_classifier.ckpt", "--train_dataset_path", finished / "data", "--train_output_path", "again",
        cwd=tmp_path))
    kept, (again,) = of_kind(records.FINETUNE_EVAL, tuned)[0], of_kind(records.LINEAR_EVAL, tmp_path / "again")
    assert kept["confusion"] == again["confusion"] and kept["accuracy"] == again["accuracy"]
    before, after = load(str(finished / "run"), "simclr", "x"), load(str(place / "encoder.ckpt"), "simclr", "x")
    assert before.network.mean and after.network == before.network.without_head  # the pixels are the encoder's own
    for name, value in after.parameters.items():
        if name.endswith((".weight", ".moving_mean")):
            assert not np.array_equal(value.asnumpy(), before.parameters[name].asnumpy()), name
    assert "class probabilities" in done(call_script(
        "export.py", "--ckpt_simclr_encoder", place / "encoder.ckpt", "--ckpt_linear_classifier",
        place / "linear_classifier.ckpt", cwd=tmp_path))


@pytest.mark.long
def test_supervised_training_begins_with_random_weights(finished, tmp_path, trace):
    """With a learning rate of all but nothing, what is written is what the training began with."""
    done(finetune(finished, tmp_path, "--learning_rate", 1e-30, "--epoch_size", 1, "--initial_weights", "random",
                  "--amp_level", "O2", "--cpu_layers", "mindspore"))
    written = values(tmp_path / "finetune" / "random-1" / "encoder.ckpt")["encoder.conv1.weight"]
    assert not np.allclose(written, values(finished / "run")["encoder.conv1.weight"])
    assert not list(tmp_path.glob("finetune/*/labels*")), "all labels need no list"
    (record,) = of_kind(records.FINETUNE_EVAL, tmp_path)
    assert record["protocol_id"] == records.SUPERVISED
    assert record["protocol"].startswith("supervised training from random weights, all 100 labels, 1 epochs of 10")
    assert record["protocol"].endswith("trained in mixed precision O2, last epoch")
    trace.check(tmp_path)


class Recorder(Callback):
    """Keeps all the values that a learner has, before the first step and after every one."""

    def __init__(self, learner):
        super().__init__()
        self.learner = learner
        self.states = []
        self.keep()

    def keep(self):
        self.states.append({p.name: p.asnumpy().astype(np.float64) for p in self.learner.state()})

    def on_train_step_end(self, run_context):
        self.keep()


@pytest.fixture(scope="module")
def watched(finished, tmp_path_factory):
    """CIFAR-10's encoder fine-tuned on 16 shapes, an epoch a step: the folder, optimizers asked for, and all values."""
    folder, asked, recorders = tmp_path_factory.mktemp("watched"), [], []
    train, build = loop.train, optimizer.build_optimizer

    def watched_train(learner, views, first_epoch, epochs, callbacks, device_target):
        recorders.append(Recorder(learner))
        train(learner, views, first_epoch, epochs, [*callbacks, recorders[-1]], device_target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "IMAGES", {"train": 16, "test": 41})
        patch.setattr(loop, "train", watched_train)
        patch.setattr(optimizer, "build_optimizer", lambda *arguments: asked.append(arguments) or build(*arguments))
        done(finetune(finished, folder / "run", "--dataset_name", "shapes", "--train_dataset_path", folder / "shapes",
                      "--batch_size", 16, "--epoch_size", 3))
    return folder, asked, [recorder.states for recorder in recorders]


@pytest.mark.long
def test_the_updates_are_those_of_momentum_in_numpy(finished, watched):
    """The paper's way of fine-tuning: momentum 0.9, rate 0.05 x B / 256 with cosine decay, no weight decay."""
    folder, ((name, parameters, rates, weight_decay),), ((*states, last),) = watched
    expected_rates = 0.05 * 16 / 256 * (1 + np.cos(np.pi * np.arange(3) / 3)) / 2
    assert (name, weight_decay) == ("SGD", 0.0) and rates == pytest.approx(expected_rates, rel=1e-6)
    settings = yaml.safe_load((folder / "run" / "finetune_config.yaml").read_text())["settings"]
    assert (settings["learning_rate"], settings["weight_decay"]) == (0.05 * 16 / 256, 0.0)
    logged = [record["learning_rate"] for record in of_kind(records.FINETUNE, folder / "run")]
    assert logged == pytest.approx(expected_rates, rel=1e-6)

    assert len(states) == 3 and {f"moments.{p.name}" for p in parameters} <= set(last)
    network, images = load(str(finished / "run"), "simclr", "x").network.without_head, draw(16, 0)
    views = LabelledViews(images.pixels, images.labels, batch_size=16, augmentation=Augmentation(0.08, 0.5, 0, 0, 0),
                          seed=0, workers=2)
    encoder = build_encoder(network).set_train()  # its features are given, the gradients of the classifier follow
    weights, begun = states[0], values(finished / "run")
    assert all(np.array_equal(begun[name], weights[name]) for name in begun if name.startswith("encoder."))
    weight, bias = weights["classifier.linear.weight"], weights["classifier.linear.bias"]
    momenta = np.zeros_like(weight), np.zeros_like(bias)
    for epoch, (state, rate) in enumerate(zip(states, expected_rates)):
        for parameter in encoder.get_parameters():
            parameter.set_data(Tensor(state[f"encoder.{parameter.name}"].astype(np.float32)))
        ((pixels, labels),) = views.of_epoch(epoch)
        h = encoder(Tensor(pixels)).asnumpy().astype(np.float64)
        residual = (softmax(h @ weight.T + bias, 1) - np.eye(10)[labels]) / 16
        momenta = 0.9 * momenta[0] + residual.T @ h, 0.9 * momenta[1] + residual.sum(0)
        weight, bias = weight - rate * momenta[0], bias - rate * momenta[1]
        after = [*states, last][epoch + 1]
        assert np.abs(bias).max() > 1e-5
        assert after["classifier.linear.weight"] == pytest.approx(weight, rel=1e-4, abs=1e-7)
        assert after["classifier.linear.bias"] == pytest.approx(bias, rel=1e-4, abs=1e-7)
    # The classifier begins with zeros, so the first gradients of the encoder are zero; weight decay would not be.
    of_encoder = [p.name for p in parameters if p.name.startswith("encoder.")]
    assert not any(states[1][f"moments.{name}"].any() for name in of_encoder)
    assert all(last[f"moments.{name}"].any() for name in of_encoder)


# --- an earlier start is finished, and not overwritten ---

@pytest.mark.long
def test_a_killed_training_goes_on_with_the_seeds_that_are_missing(finished, tuned, tmp_path):
    """It is killed in its second seed, and ends with the weights and results of one that was not."""
    output = tmp_path / "outputs"
    kill_script(*arguments(finished, output, *TWO_SEEDS), cwd=tmp_path,
                when={"kind": "finetune", "seed": 5, "epoch": 1})
    place = output / "finetune" / "pretrained-0.2"
    (place / ".encoder.ckpt.999999999.part.ckpt").write_bytes(b"half")
    first = (place / "encoder.ckpt").read_bytes()
    assert "1 of 2 seeds are finished already\n" in done(finetune(finished, output, *TWO_SEEDS))
    assert (place / "encoder.ckpt").read_bytes() == first
    for name, holds in (("encoder.ckpt", "simclr"), ("linear_classifier.ckpt", "linear_classifier")):
        equal(values(place / name, holds), values(tuned / "finetune" / "pretrained-0.2" / name, holds))
    assert not list(place.glob(".*"))
    epochs = [(record["seed"], record["epoch"]) for record in of_kind(records.FINETUNE, output)]
    assert epochs == [(4, 1), (4, 2), (5, 1), (5, 1), (5, 2)]
    for kind in (records.FINETUNE_EVAL, records.REPEATED_EVAL):
        assert of_kind(kind, output) == of_kind(kind, tuned)


@pytest.mark.parametrize("flags, other", [
    ((), ""), (("--seed", 6), ", with another seed"), (("--learning_rate", 0.1), ", with another protocol"),
    (("--encoder_checkpoint_path", "other"), ", with another encoder_digest")])
def test_a_fine_tuned_network_is_not_overwritten(finished, tuned, flags, other):
    flags = [finished / "run" / "checkpoint" / "checkpoint_simclr-2.ckpt" if value == "other" else value
             for value in flags]
    before = (tuned / "metrics.jsonl").read_bytes()
    refused(finetune(finished, tuned, *TWO_SEEDS, *flags),
            f"finetune/pretrained-0.2 already holds a fine-tuned network{other}; name another folder$")
    assert (tuned / "metrics.jsonl").read_bytes() == before


def test_a_network_without_its_records_is_not_overwritten(finished, tuned, tmp_path):
    shutil.copytree(tuned / "finetune", tmp_path / "outputs" / "finetune")
    refused(finetune(finished, tmp_path / "outputs", *TWO_SEEDS), "its records are missing; name another folder$")
    assert not (tmp_path / "outputs" / "metrics.jsonl").exists()

@pytest.mark.parametrize("flags, message", [
    (("--label_fraction", "0.02", "--batch_size", "20"), "--batch_size: got 20, takes at most the 10 labelled images"),
    (("--class_num", "7"), "--class_num: got 7, takes at least the 10 classes"),
    (("--seed", 2**32 - 1, "--repeat", 2), f"--repeat: got 2 with --seed {2**32 - 1}, takes seeds of at most")])
def test_bad_input_is_refused_before_anything_is_written(finished, tmp_path, flags, message):
    refused(finetune(finished, tmp_path / "nothing", *flags), message)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.long
def test_another_data_set_than_the_encoders(watched, tmp_path):
    """The pair of checkpoints then belongs to the shapes."""
    folder, _, _ = watched
    place = folder / "run" / "finetune" / "pretrained-1"
    done(call_script(
        "linear_eval.py", "--encoder_checkpoint_path", place / "encoder.ckpt", "--pre_classifier_checkpoint_path",
        place / "linear_classifier.ckpt", "--train_dataset_path", folder / "shapes", "--train_output_path", "again",
        cwd=tmp_path))
    (first,) = of_kind(records.FINETUNE_EVAL, folder / "run")
    (again,) = of_kind(records.LINEAR_EVAL, tmp_path / "again")
    assert first["confusion"] == again["confusion"] and again["dataset"] == "shapes" and again["images"] == 41

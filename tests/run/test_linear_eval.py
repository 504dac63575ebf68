"""linear_eval.py: every protocol, what it leaves, what it refuses."""
import os
import re
import shutil

import numpy as np
import pytest
from helpers import (
    CLASSIFIER_EPOCHS,
    CLASSIFIER_STEPS,
    TEST_LABELS,
    call_script,
    done,
    equal,
    features_of,
    kill_script,
    of_kind,
    refused,
    start_script,
    values,
)
from scipy.special import softmax

from src.data.cifar import write_file
from src.data.shapes import draw
from src.run import records
from src.run.checkpoint import load


def evaluate(folder, output, *more):
    return call_script("linear_eval.py", "--encoder_checkpoint_path", "run/checkpoint/latest", "--train_dataset_path",
                       "data", "--batch_size", "16", "--train_output_path", output, *more, cwd=folder)


def last_evaluation(run):
    return of_kind(records.LINEAR_EVAL, run)[-1]


@pytest.fixture
def output(finished, tmp_path):
    """A new run's folder, with the features of the finished one's encoder."""
    shutil.copytree(finished / "run" / "features", tmp_path / "output" / "features")
    return tmp_path / "output"


# --- what the evaluation of the finished run left ---

def test_evaluation_sees_every_test_image_once(finished):
    record = last_evaluation(finished / "run")
    confusion = np.array(record["confusion"])
    assert record["images"] == 37
    assert confusion.sum(1).tolist() == np.bincount(TEST_LABELS).tolist()
    assert record["accuracy"] == pytest.approx(confusion.trace() / 37)
    assert record["top5_accuracy"] >= record["accuracy"]
    assert record["class_accuracy"]["airplane"] == pytest.approx(confusion[0, 0] / confusion[0].sum())
    last = (finished / "eval.out").read_text().splitlines()[-1]
    assert last == f"Average accuracy: {{'Accuracy': {round(record['accuracy'], 7)}}}"
    assert record["protocol_id"] == records.LINEAR_SGD
    assert "cached features" in record["protocol"] and "12 epochs" in record["protocol"]


def test_evaluation_logs_and_checkpoints(finished):
    out = (finished / "eval.out").read_text()
    assert re.search(r"^epoch: 1 step: 3, loss is \d", out, re.M)
    assert re.search(r"^epoch: 12 step: 7, loss is \d", out, re.M)
    saved = {f"linear_classifier-{epoch}.ckpt" for epoch in (5, 10, 12)}
    assert set(os.listdir(finished / "run" / "linear_classifier")) == saved | {"latest"}
    losses = [record["loss"] for record in of_kind(records.CLASSIFIER_EPOCH, finished / "run")]
    assert len(losses) == CLASSIFIER_EPOCHS and losses[-1] < losses[0]


def test_features_and_classifier_by_an_independent_route(finished):
    """The stored features and the saved classifier give the logged accuracy in NumPy."""
    saved = values(finished / "run" / "linear_classifier", "linear_classifier")
    standardised = (features_of(finished / "run", "test") - saved["mean"]) * saved["scale"]
    logits = standardised @ saved["linear.weight"].T + saved["linear.bias"]
    assert (logits.argmax(1) == TEST_LABELS).mean() == pytest.approx(last_evaluation(finished / "run")["accuracy"])


def test_the_classifier_is_that_of_adam_in_numpy(finished):
    """From the stored features, by the definitions: rate 1e-3 with cosine decay, no weight decay, float64."""
    rows = features_of(finished / "run", "train").astype(np.float64)
    rows = (rows - rows.mean(0)) / (rows.std(0) + 1e-6)
    labels, total = np.arange(100) % 10, CLASSIFIER_EPOCHS * CLASSIFIER_STEPS
    rows = np.hstack([rows, np.ones((100, 1))])  # for the bias
    weights, first, second = np.zeros((3, 10, rows.shape[1]))
    for step in range(total):
        epoch, batch = divmod(step, CLASSIFIER_STEPS)
        order = np.random.default_rng((0, epoch + 1)).permutation(100)
        chosen = np.resize(order, (CLASSIFIER_STEPS, 16))[batch]
        gradient = (softmax(rows[chosen] @ weights.T, 1) - np.eye(10)[labels[chosen]]).T @ rows[chosen] / 16
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        rate = 1e-3 * (1 + np.cos(np.pi * step / total)) / 2
        rate *= np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        weights -= rate * first / (np.sqrt(second) + 1e-8)
    saved = values(finished / "run" / "linear_classifier", "linear_classifier")
    assert np.abs(weights).max() > 0.01
    assert np.abs(np.column_stack([saved["linear.weight"], saved["linear.bias"]]) - weights).max() < 1e-6


# --- other evaluations ---

def test_a_second_evaluation_takes_the_cached_features(finished, output):
    out = done(evaluate(finished, output, "--epoch_size", "1"))
    assert out.count("computed and kept") == 0
    assert out.count("features of") == 2


@pytest.mark.long
def test_features_are_made_again_for_another_encoder(finished, output, trace):
    out = done(evaluate(finished, output, "--epoch_size", "2", "--keep_checkpoint_max", "1",
                        "--encoder_checkpoint_path", "run/checkpoint/checkpoint_simclr-1.ckpt"))
    assert out.count("computed and kept") == 2
    assert len(list((output / "features").glob("*.npz"))) == 4
    assert set(os.listdir(output / "linear_classifier")) == {"linear_classifier-2.ckpt", "latest"}
    for file in (finished / "run" / "features").iterdir():
        (output / "features" / file.name).unlink()  # it was not written here
    trace.check(output)


def test_a_given_classifier_is_evaluated_without_training(finished, output):
    given = "run/linear_classifier/linear_classifier-12.ckpt"
    assert "epoch:" not in done(evaluate(finished, output, "--pre_classifier_checkpoint_path", given))
    assert last_evaluation(output)["confusion"] == last_evaluation(finished / "run")["confusion"]


@pytest.mark.long
def test_more_classes_than_the_data_set_has(finished, output):
    done(evaluate(finished, output, "--class_num", "12", "--epoch_size", "1"))
    done(evaluate(finished, output, "--pre_classifier_checkpoint_path", output / "linear_classifier"))
    record = last_evaluation(output)
    assert np.array(record["confusion"]).shape == (12, 12)
    assert record["class_accuracy"]["class 11"] is None


@pytest.mark.long
def test_a_killed_evaluation_leaves_a_whole_classifier_and_the_next_one_replaces_it(finished, output):
    """The earlier classifier, of one epoch, goes when a new one stands, and not before."""
    flags = ("--epoch_size", 4, "--save_checkpoint_epochs", 3)
    done(evaluate(finished, output, "--epoch_size", 1))
    kill_script("linear_eval.py", "--encoder_checkpoint_path", "run/checkpoint/latest", "--train_dataset_path", "data",
                "--batch_size", "16", "--train_output_path", output, *flags, cwd=finished,
                when={"kind": "linear_classifier", "epoch": 3})
    assert load(str(output / "linear_classifier"), "linear_classifier", "x").info["epoch"] == 1
    done(evaluate(finished, output, *flags))
    assert set(os.listdir(output / "linear_classifier")) == {
        "linear_classifier-3.ckpt", "linear_classifier-4.ckpt", "latest"}
    done(evaluate(finished, output.with_name("other"), *flags))
    equal(*(values(place / "linear_classifier", "linear_classifier")
            for place in (output, output.with_name("other"))))
    assert last_evaluation(output) == last_evaluation(output.with_name("other"))


def test_a_diverging_classifier_ends_with_status_3(finished, output):
    result = evaluate(finished, output, "--learning_rate", 1e30, "--epoch_size", 3)
    assert result.returncode == 3
    assert re.fullmatch("linear_eval.py: the .* of the linear classifier is not finite after epoch 1: its training "
                        "has diverged; begin again with a lower --learning_rate\n", result.stderr)
    assert not (output / "linear_classifier").exists() and not (output / "metrics.jsonl").exists()


def test_every_protocol_in_one_table(finished, output):
    result = evaluate(finished, output, "--protocol", "all", "--epoch_size", "2", "--repeat", "2", "--seed", "7")
    out = done(result)
    assert result.stderr == ""
    linear, nearest = of_kind(records.LINEAR_EVAL, output), of_kind(records.KNN_EVAL, output)
    assert [record["seed"] for record in linear] == [7, 8] * 2
    assert [record["seed"] for record in nearest] == [7]
    assert [("Adam" in record["protocol"], "L-BFGS" in record["protocol"]) for record in linear] == [
        (True, False)] * 2 + [(False, True)] * 2
    assert [record["protocol_id"] for record in linear + nearest] == [
        *[records.LINEAR_SGD] * 2, *[records.LINEAR_LBFGS] * 2, records.KNN]
    for record in linear + nearest:
        assert np.array(record["confusion"]).sum() == 37
        assert record["accuracy_interval"][0] < record["accuracy"] < record["accuracy_interval"][1]
        assert (record["encoder_epoch"], record["dataset"]) == (3, "cifar10")
    means = [np.mean([record["accuracy"] for record in part]) for part in (linear[:2], linear[2:], nearest)]
    repeated = of_kind(records.REPEATED_EVAL, output)
    assert [record["protocol_id"] for record in repeated] == [records.LINEAR_SGD, records.LINEAR_LBFGS]
    assert [record["accuracy_mean"] for record in repeated] == pytest.approx(means[:2])
    assert repeated[0]["accuracy_std"] == pytest.approx(np.std([record["accuracy"] for record in linear[:2]], ddof=1))
    header, *rows, last = out.splitlines()[-5:]
    assert header.split() == ["accuracy", "95", "%", "interval", "over", "seeds", "protocol"]
    assert [float(row.split()[0]) for row in rows] == pytest.approx([100 * mean for mean in means], abs=1e-3)
    assert last == f"Average accuracy: {{'Accuracy': {round(means[0], 7)}}}"
    assert load(str(output / "linear_classifier"), "linear_classifier", "test").info["epoch"] == 2


@pytest.mark.long
def test_test_labels_change_nothing_but_the_accuracy(finished, tmp_path):
    """With the test labels in another order L-BFGS chooses the same penalty and all scores stay."""
    shutil.copytree(finished / "data", tmp_path / "relabelled")
    images = draw(37, 9)
    write_file(tmp_path / "relabelled" / "test_batch.bin", images._replace(labels=np.roll(images.labels, 5)))
    found = []
    for data in (finished / "data", tmp_path / "relabelled"):
        output = tmp_path / f"of {data.name}"
        shutil.copytree(finished / "run" / "features", output / "features")
        done(evaluate(finished, output, "--protocol", "lbfgs", "--train_dataset_path", data))
        assert not (output / "linear_classifier").exists()
        found.append(last_evaluation(output))
    assert found[0]["confusion"] != found[1]["confusion"]
    predicted = [np.array(record["confusion"]).sum(0).tolist() for record in found]
    assert predicted[0] == predicted[1]
    for name in ("l2", "held_out_accuracy", "iterations", "protocol"):
        assert found[0][name] == found[1][name]


# --- refusals ---

def test_the_classifier_of_another_encoder_is_not_replaced(finished):
    before = sorted(finished.rglob("*"))
    refused(evaluate(finished, "run", "--encoder_checkpoint_path", "run/checkpoint/checkpoint_simclr-1.ckpt"),
            "--train_output_path: run/linear_classifier holds the classifier of another encoder")
    assert sorted(finished.rglob("*")) == before


@pytest.mark.parametrize("flags, message", [
    (("--width_multiplier", "1"), "--width_multiplier: got 1.0, but .* was made with 0.0625"),
    (("--encoder_checkpoint_path", "run/checkpoint/checkpoint_simclr-1.ckpt", "--pre_classifier_checkpoint_path",
      "run/linear_classifier"), r"--pre_classifier_checkpoint_path: .* another encoder \(after epoch 3\)"),
    (("--class_num", "9"), "--class_num: got 9, takes at least the 10 classes of cifar10"),
    (("--eval_dataset_path", "nowhere"), "--eval_dataset_path: nowhere is not a folder"),
    (("--encoder_checkpoint_path", "run/linear_classifier"), "takes a simclr checkpoint"),
    (("--protocol", "lbfgs", "--num_samples", "3"), "--num_samples: 3 training images are too few to hold some out"),
])
def test_evaluation_refuses_what_does_not_fit(finished, flags, message):
    refused(evaluate(finished, "never", *flags), message)
    assert not (finished / "never").exists()


def test_a_missing_scikit_learn_is_said_before_the_work(finished, tmp_path):
    (tmp_path / "without" / "sklearn").mkdir(parents=True)
    (tmp_path / "without" / "sklearn" / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'sklearn'\", name='sklearn')")
    result = start_script("linear_eval.py", "--encoder_checkpoint_path", "run/checkpoint/latest", "--protocol", "lbfgs",
                          "--train_output_path", "never", cwd=finished, env={"PYTHONPATH": str(tmp_path / "without")})
    refused(result, "the package sklearn is not installed here; pip install -r requirements.txt")
    assert not (finished / "never").exists()

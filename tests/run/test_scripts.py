"""The three scripts, run as a user runs them."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import mindspore as ms
import numpy as np
import pytest
import yaml
from helpers import ROOT, start_script

from src.data.cifar import write_file
from src.data.shapes import draw
from src.run.checkpoint import load
from src.run.folder import read_metrics

SMALL = ("--dataset_name", "cifar10", "--encoder", "resnet18", "--width_multiplier", "0.0625", "--batch_size", "16",
         "--projection_dimension", "8", "--head_batch_norm", "True", "--seed", "5")
EPOCHS, STEPS = 3, 6


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a small CIFAR-10 in it and a finished run in ``run``."""
    folder = tmp_path_factory.mktemp("work")
    data = folder / "data"
    data.mkdir()
    for index in range(1, 6):
        write_file(data / f"data_batch_{index}.bin", draw(20, index))
    write_file(data / "test_batch.bin", draw(37, 9))
    result = train(folder, "run")
    assert result.returncode == 0, result.stderr
    (folder / "train.out").write_text(result.stdout)
    assert result.stderr == "", "MindSpore's own noise reaches the user"
    return folder


def train(folder, output, *more):
    return start_script("train.py", *SMALL, "--epoch_size", EPOCHS, "--train_dataset_path", "data",
                      "--train_output_path", output, *more, cwd=folder)


def begin(folder, output, epochs):
    """Start a run and return its process as soon as its first epoch is saved."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *SMALL, "--epoch_size", str(epochs), "--train_dataset_path", "data",
         "--train_output_path", output], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (folder / output / "checkpoint" / "checkpoint_simclr-1.ckpt").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    return process


def refused(result, message):
    assert result.returncode == 2, result.stdout + result.stderr
    assert re.search(message, result.stderr), result.stderr
    assert result.stderr.count("\n") == 1, result.stderr


def of_kind(kind, run):
    return [record for record in read_metrics(run / "metrics.jsonl") if record["kind"] == kind]


def parameters(file):
    return {name: parameter.asnumpy() for name, parameter in load(str(file), "simclr", "test").parameters.items()}


# --- train.py ---

def test_log_lines(work):
    lines = (work / "train.out").read_text()
    losses = re.findall(r"^epoch: (\d+) step: 6, loss is (\d+\.\d+)$", lines, re.M)
    assert [int(epoch) for epoch, _ in losses] == [1, 2, 3]
    times = re.findall(r"^epoch time: \d+\.\d{3} ms, per step time: \d+\.\d{3} ms$", lines, re.M)
    assert len(times) == EPOCHS
    assert (work / "run" / "log").read_text() == lines
    assert "\x1b" not in lines and "\r" not in lines  # no progress bar where there is no terminal


def test_metrics_and_settings_on_disk(work):
    records = of_kind("pretrain", work / "run")
    assert [record["epoch"] for record in records] == [1, 2, 3]
    log = (work / "run" / "log").read_text()
    for record in records:
        assert abs(record["loss"] - 2 * np.log(31)) < 1.5  # near that of an untrained network
        assert 0 <= record["contrastive_accuracy"] <= 1
        assert f"epoch: {record['epoch']} step: 6, loss is " + str(np.float32(record["last_loss"])) in log
    written = yaml.safe_load((work / "run" / "config.yaml").read_text())
    assert written["settings"]["learning_rate"] == pytest.approx(9e-4 * (16 / 1024) ** 0.5)
    assert written["settings"]["warmup_epochs"] == pytest.approx(0.45)
    assert written["versions"]["mindspore"] == ms.__version__
    assert written["command_line"][1].endswith("train.py")


def test_checkpoints_hold_everything(work):
    folder = work / "run" / "checkpoint"
    assert sorted(os.listdir(folder)) == [f"checkpoint_simclr-{epoch}.ckpt" for epoch in range(EPOCHS + 1)] + ["latest"]
    assert os.readlink(folder / "latest") == "checkpoint_simclr-3.ckpt"
    found = load(str(folder), "simclr", "test")
    assert found.info["epoch"] == EPOCHS
    assert found.info["settings"]["seed"] == 5
    assert found.parameters["global_step"].asnumpy() == EPOCHS * STEPS
    for name in ("encoder.conv1.weight", "encoder.bn1.moving_mean", "projection_head.dense2.bias",
                 "moment1.encoder.conv1.weight", "moment2.projection_head.dense2.bias"):
        assert np.abs(found.parameters[name].asnumpy()).max() > 0


@pytest.mark.parametrize("every, measured", [(0, []), (1, [1, 2, 3])])
def test_a_seed_repeats_the_run_watched_or_not(work, every, measured):
    """By default a run is measured after every fifth epoch and the last; it does not notice."""
    again = work / f"again-{every}"
    assert train(work, again, "--eval_every", every).returncode == 0
    first, second = (parameters(run / "checkpoint") for run in (work / "run", again))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert [record["epoch"] for record in of_kind("monitor", again)] == measured
    (by_default,) = of_kind("monitor", work / "run")
    assert by_default["epoch"] == 3 and 0 <= by_default["knn_accuracy"] <= 1
    if measured:
        by_default["seconds"] = of_kind("monitor", again)[-1]["seconds"]
        assert of_kind("monitor", again)[-1] == by_default


def test_training_without_test_images(work):
    (work / "untested").mkdir()
    shutil.copy(work / "data" / "data_batch_1.bin", work / "untested")
    result = train(work, "unjudged", "--train_dataset_path", "untested", "--epoch_size", "1")
    assert result.returncode == 0, result.stderr
    assert re.search(r"^warning: no kNN accuracy during the run, for want of test images \(", result.stdout, re.M)
    (record,) = of_kind("monitor", work / "unjudged")
    assert record["knn_accuracy"] is None and record["effective_rank"] > 1


def test_a_killed_run_resumes_to_the_same_weights(work):
    process = begin(work, "killed", EPOCHS)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = {path.name for path in (work / "killed" / "checkpoint").glob("checkpoint*")}
    assert "checkpoint_simclr-3.ckpt" not in left
    with (work / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "pretrain", "epoch": 3, "lo')  # as a process leaves it that is killed while it writes
    result = start_script("train.py", "--resume", "--train_dataset_path", work / "data", "--train_output_path", "killed",
                        cwd=work)
    assert result.returncode == 0, result.stderr
    assert re.search(r"^resumed after epoch [12] of 3 from ", result.stdout, re.M)
    whole, resumed = (parameters(work / name / "checkpoint") for name in ("run", "killed"))
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)
    records = [[{key: record[key] for key in ("epoch", "last_loss", "learning_rate")}
                for record in read_metrics(work / name / "metrics.jsonl") if record["kind"] == "pretrain"]
               for name in ("run", "killed")]
    assert records[0] == records[1]


def test_resuming_with_another_setting_is_refused(work):
    before = (work / "run" / "metrics.jsonl").read_bytes()
    refused(train(work, "run", "--resume", "True", "--temperature", "0.1"),
            r"--temperature: got 0.1, but .*checkpoint_simclr-3.ckpt was made with 0.5")
    assert (work / "run" / "metrics.jsonl").read_bytes() == before


def test_resuming_on_other_data_is_refused(work):
    refused(train(work, "run", "--resume", "--num_samples", "99"), "--num_samples: got 99")
    other = work / "other"
    other.mkdir()
    write_file(other / "data_batch_1.bin", draw(120, 7))
    refused(start_script("train.py", "--resume", "--train_dataset_path", "other", "--train_output_path", "run", cwd=work),
            r"--train_dataset_path: its training images \(120 images, .*\) are not those that .* \(100 images, ")


def test_a_finished_run_resumes_to_nothing(work):
    before = (work / "run" / "checkpoint" / "checkpoint_simclr-3.ckpt").read_bytes()
    result = train(work, "run", "--resume")
    assert result.returncode == 0, result.stderr
    assert "resumed after epoch 3 of 3" in result.stdout
    assert (work / "run" / "checkpoint" / "checkpoint_simclr-3.ckpt").read_bytes() == before
    assert [record["epoch"] for record in read_metrics(work / "run" / "metrics.jsonl")
            if record["kind"] == "pretrain"] == [1, 2, 3]


def test_an_interrupted_run_says_so(work):
    process = begin(work, "interrupted", 1000)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert process.stderr.read() == "train.py: interrupted\n"


def test_a_diverging_run_ends_with_status_3(work):
    result = train(work, "diverged", "--learning_rate", "1e30", "--optimizer", "SGD", "--warmup_epochs", "0")
    assert result.returncode == 3, result.stdout + result.stderr
    assert re.fullmatch(r"train.py: the loss of epoch 1, step [2-6] is not finite .*: training has diverged; .*\n",
                        result.stderr)
    for file in (work / "diverged" / "checkpoint").glob("*.ckpt"):
        assert all(np.isfinite(value).all() for value in parameters(file).values())


def test_a_run_is_not_overwritten(work):
    refused(train(work, "run"), "--train_output_path: run already holds a run; .*--resume True")


def test_pre_trained_weights(work):
    source = work / "run" / "checkpoint" / "checkpoint_simclr-2.ckpt"
    result = start_script("train.py", "--pre_trained_path", source, "--pretrain_epoch_size", "2", "--epoch_size", EPOCHS,
                        "--batch_size", "16", "--train_dataset_path", "data", "--train_output_path", "tuned", cwd=work)
    assert result.returncode == 0, result.stderr
    assert re.findall(r"^epoch: (\d+) step", result.stdout, re.M) == ["3"]
    begun, given = (parameters(file) for file in (work / "tuned" / "checkpoint" / "checkpoint_simclr-2.ckpt", source))
    weights = [name for name in given if name.startswith(("encoder.", "projection_head."))]
    assert all(np.array_equal(begun[name], given[name]) for name in weights)
    assert not begun["moment1.encoder.conv1.weight"].any()  # the optimizer begins anew
    rates = [record["learning_rate"] for record in of_kind("pretrain", work / "tuned")]
    assert rates == [of_kind("pretrain", work / "run")[2]["learning_rate"]]


@pytest.mark.parametrize("flag, value, stored", [
    ("width_multiplier", "0.125", "0.0625"), ("head_batch_norm", "False", "True"), ("normalize", "True", "False")])
def test_weights_of_another_network_are_refused(work, flag, value, stored):
    refused(start_script("train.py", f"--{flag}", value, "--train_dataset_path", "data", "--pre_trained_path",
                       "run/checkpoint/latest", "--train_output_path", "never", cwd=work),
            rf"--{flag}: got {value}, but .*checkpoint_simclr-3.ckpt was made with {stored}")
    assert not (work / "never").exists()


@pytest.mark.parametrize("flags, message", [
    (("--train_dataset_path", "nowhere"), "--train_dataset_path: nowhere is not a folder"),
    (("--batch_size", "101"), "--batch_size: got 101, takes at most the 100 images"),
    (("--num_parallel_workers", "1000"), r"--num_parallel_workers: got 1000, takes at most the \d+ cores"),
    (("--pre_trained_path", "nothing.ckpt"), "--pre_trained_path: no checkpoint at nothing.ckpt"),
    (("--device_target", "Ascend"), "--device_target: got Ascend, but this machine has no such device"),
    (("--train_output_path", "data/test_batch.bin/run"), "--train_output_path: cannot write to"),
])
def test_bad_input_writes_nothing(work, flags, message):
    before = sorted(work.rglob("*"))
    result = start_script("train.py", *SMALL, "--train_dataset_path", "data", "--train_output_path", "never", *flags,
                        cwd=work)
    refused(result, message)
    assert sorted(work.rglob("*")) == before


def test_graphs_are_saved_on_request(work):
    result = train(work, "graphs", "--save_graphs", "True", "--num_samples", "16", "--epoch_size", "1")
    assert result.returncode == 0, result.stderr
    assert any((work / "graphs" / "graphs").rglob("*.ir"))


# --- linear_eval.py ---

@pytest.fixture(scope="module")
def evaluated(work):
    """``work``, with the linear evaluation of its run and that evaluation's output."""
    encoder = work / "run" / "checkpoint" / "checkpoint_simclr-3.ckpt"
    before = encoder.read_bytes()
    result = evaluate(work, "run", "--epoch_size", "12", "--save_checkpoint_epochs", "5", "--print_iter", "3")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert encoder.read_bytes() == before
    return work, result.stdout


def evaluate(folder, output, *more):
    return start_script("linear_eval.py", "--encoder_checkpoint_path", "run/checkpoint/latest", "--train_dataset_path",
                      "data", "--batch_size", "16", "--train_output_path", output, *more, cwd=folder)


def last_evaluation(folder):
    return [record for record in read_metrics(folder / "metrics.jsonl") if record["kind"] == "linear_eval"][-1]


def test_evaluation_sees_every_test_image_once(evaluated):
    work, out = evaluated
    record = last_evaluation(work / "run")
    confusion = np.array(record["confusion"])
    labels = np.arange(37) % 10
    assert record["images"] == 37
    assert confusion.sum(1).tolist() == np.bincount(labels).tolist()
    assert record["accuracy"] == pytest.approx(confusion.trace() / 37)
    assert record["top5_accuracy"] >= record["accuracy"]
    assert record["class_accuracy"]["airplane"] == pytest.approx(confusion[0, 0] / confusion[0].sum())
    assert out.splitlines()[-1] == f"Average accuracy: {{'Accuracy': {round(record['accuracy'], 7)}}}"
    assert "cached features" in record["protocol"] and "12 epochs" in record["protocol"]


def test_evaluation_logs_and_checkpoints(evaluated):
    work, out = evaluated
    assert re.search(r"^epoch: 1 step: 3, loss is \d", out, re.M)
    assert re.search(r"^epoch: 12 step: 7, loss is \d", out, re.M)
    saved = {f"linear_classifier-{epoch}.ckpt" for epoch in (5, 10, 12)}
    assert set(os.listdir(work / "run" / "linear_classifier")) == saved | {"latest"}
    losses = [record["loss"] for record in read_metrics(work / "run" / "metrics.jsonl")
              if record["kind"] == "linear_classifier"]
    assert losses[-1] < losses[0]


def test_features_and_classifier_by_an_independent_route(evaluated):
    """The stored features and the saved classifier give the logged accuracy in NumPy."""
    work, _ = evaluated
    (file,) = (work / "run" / "features").glob("test-*.npy")
    saved = load(str(work / "run" / "linear_classifier"), "linear_classifier", "test").parameters
    mean, scale, weight, bias = (saved[name].asnumpy() for name in ("mean", "scale", "linear.weight", "linear.bias"))
    logits = (np.load(file) - mean) * scale @ weight.T + bias
    labels = np.arange(37) % 10
    assert (logits.argmax(1) == labels).mean() == pytest.approx(last_evaluation(work / "run")["accuracy"])


def test_a_second_evaluation_takes_the_cached_features(evaluated):
    work, _ = evaluated
    shutil.copytree(work / "run" / "features", work / "second" / "features")
    result = evaluate(work, "second", "--epoch_size", "1")
    assert result.stdout.count("computed and kept") == 0
    assert result.stdout.count("features of") == 2


def test_a_given_classifier_is_evaluated_without_training(evaluated):
    work, _ = evaluated
    given = "run/linear_classifier/linear_classifier-12.ckpt"
    result = evaluate(work, "given", "--pre_classifier_checkpoint_path", given)
    assert result.returncode == 0, result.stderr
    assert "epoch:" not in result.stdout
    (expected,) = (record for record in read_metrics(work / "run" / "metrics.jsonl")
                   if record["kind"] == "linear_eval" and "12 epochs" in record["protocol"])
    assert last_evaluation(work / "given")["confusion"] == expected["confusion"]


def test_more_classes_than_the_data_set_has(evaluated):
    work, _ = evaluated
    result = evaluate(work, "twelve", "--class_num", "12", "--epoch_size", "1")
    assert result.returncode == 0, result.stderr
    given = evaluate(work, "twelve", "--pre_classifier_checkpoint_path", "twelve/linear_classifier")
    assert given.returncode == 0, given.stderr
    record = last_evaluation(work / "twelve")
    assert np.array(record["confusion"]).shape == (12, 12)
    assert record["class_accuracy"]["class 11"] is None


def test_the_classifier_of_another_encoder_is_not_replaced(evaluated):
    work, _ = evaluated
    before = sorted(work.rglob("*"))
    refused(evaluate(work, "run", "--encoder_checkpoint_path", "run/checkpoint/checkpoint_simclr-1.ckpt"),
            "--train_output_path: run/linear_classifier holds the classifier of another encoder")
    assert sorted(work.rglob("*")) == before


def test_a_shorter_evaluation_replaces_the_longer_one(evaluated):
    work, _ = evaluated
    for epochs in (3, 1):
        assert evaluate(work, "replaced", "--epoch_size", epochs).returncode == 0
    assert set(os.listdir(work / "replaced" / "linear_classifier")) == {"linear_classifier-1.ckpt", "latest"}
    assert (work / "replaced" / "linear_classifier" / "latest").exists()


@pytest.mark.parametrize("flags, message", [
    (("--width_multiplier", "1"), "--width_multiplier: got 1.0, but .* was made with 0.0625"),
    (("--encoder_checkpoint_path", "run/checkpoint/checkpoint_simclr-1.ckpt", "--pre_classifier_checkpoint_path",
      "run/linear_classifier"), r"--pre_classifier_checkpoint_path: .* another encoder \(after epoch 3\)"),
    (("--encoder", "resnet50"), "--encoder: got resnet50, but .* was made with resnet18"),
    (("--projection_dimension", "128"), "--projection_dimension: got 128, but .* was made with 8"),
    (("--class_num", "9"), "--class_num: got 9, takes at least the 10 classes of cifar10"),
    (("--eval_dataset_path", "nowhere"), "--eval_dataset_path: nowhere is not a folder"),
    (("--encoder_checkpoint_path", "run/linear_classifier"), "takes a simclr checkpoint"),
    (("--pre_classifier_checkpoint_path", "run/checkpoint"), "takes a linear_classifier checkpoint"),
    (("--protocol", "lbfgs", "--num_samples", "3"), "--num_samples: 3 training images are too few to hold some out"),
    (("--protocol", "lbfgs", "--pre_classifier_checkpoint_path", "run/linear_classifier"),
     "--protocol: got lbfgs with --pre_classifier_checkpoint_path"),
    (("--protocol", "knn", "--repeat", "2"), "--repeat: got 2 where nothing is random"),
])
def test_evaluation_refuses_what_does_not_fit(evaluated, flags, message):
    work, _ = evaluated
    refused(evaluate(work, "never", *flags), message)
    assert not (work / "never").exists()


def test_every_protocol_in_one_table(evaluated):
    work, _ = evaluated
    shutil.copytree(work / "run" / "features", work / "all" / "features")
    result = evaluate(work, "all", "--protocol", "all", "--epoch_size", "2", "--repeat", "3", "--seed", "7")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    linear, nearest = of_kind("linear_eval", work / "all"), of_kind("knn_eval", work / "all")
    assert [record["seed"] for record in linear] == [7, 8, 9] * 2
    assert [record["seed"] for record in nearest] == [7]
    assert [("Adam" in record["protocol"], "L-BFGS" in record["protocol"]) for record in linear] == [
        (True, False)] * 3 + [(False, True)] * 3
    for record in linear + nearest:
        assert np.array(record["confusion"]).sum() == 37
        assert record["accuracy_interval"][0] < record["accuracy"] < record["accuracy_interval"][1]
        assert (record["encoder_epoch"], record["dataset"]) == (3, "cifar10")
    means = [np.mean([record["accuracy"] for record in part]) for part in (linear[:3], linear[3:], nearest)]
    repeated = of_kind("repeated_eval", work / "all")
    assert [record["accuracy_mean"] for record in repeated] == pytest.approx(means[:2])
    assert repeated[0]["accuracy_std"] == pytest.approx(np.std([record["accuracy"] for record in linear[:3]], ddof=1))
    header, *rows, last = result.stdout.splitlines()[-5:]
    assert header.split() == ["accuracy", "95", "%", "interval", "over", "seeds", "protocol"]
    assert [float(row.split()[0]) for row in rows] == pytest.approx([100 * mean for mean in means], abs=1e-3)
    assert last == f"Average accuracy: {{'Accuracy': {round(means[0], 7)}}}"
    assert load(str(work / "all" / "linear_classifier"), "linear_classifier", "test").info["epoch"] == 2


def test_test_labels_change_nothing_but_the_accuracy(evaluated):
    """With the test labels in another order L-BFGS chooses the same penalty and all scores stay."""
    work, _ = evaluated
    shutil.copytree(work / "data", work / "relabelled")
    images = draw(37, 9)
    write_file(work / "relabelled" / "test_batch.bin", images._replace(labels=np.roll(images.labels, 5)))
    records = []
    for data in ("data", "relabelled"):
        shutil.copytree(work / "run" / "features", work / f"lbfgs-{data}" / "features")
        result = evaluate(work, f"lbfgs-{data}", "--protocol", "lbfgs", "--train_dataset_path", data)
        assert result.returncode == 0, result.stderr
        assert not (work / f"lbfgs-{data}" / "linear_classifier").exists()
        records.append(last_evaluation(work / f"lbfgs-{data}"))
    assert records[0]["confusion"] != records[1]["confusion"]
    predicted = [np.array(record["confusion"]).sum(0).tolist() for record in records]
    assert predicted[0] == predicted[1]
    for name in ("l2", "held_out_accuracy", "iterations", "protocol"):
        assert records[0][name] == records[1][name]


def test_a_missing_scikit_learn_is_said_before_the_work(evaluated):
    work, _ = evaluated
    (work / "without" / "sklearn").mkdir(parents=True)
    (work / "without" / "sklearn" / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'sklearn'\", name='sklearn')")
    result = start_script("linear_eval.py", "--encoder_checkpoint_path", "run/checkpoint/latest", "--protocol", "lbfgs",
                        "--train_output_path", "never", cwd=work, env={"PYTHONPATH": str(work / "without")})
    refused(result, "the package sklearn is not installed here; pip install -r requirements.txt")
    assert not (work / "never").exists()


# --- export.py ---

def export(work, *more):
    return start_script("export.py", "--ckpt_simclr_encoder", "run/checkpoint/latest", *more, cwd=work)


@pytest.mark.parametrize("file_format, suffix", [("MINDIR", "mindir"), ("ONNX", "onnx")])
def test_exported_classifier_gives_the_probabilities(evaluated, file_format, suffix):
    work, _ = evaluated
    result = export(work, "--ckpt_linear_classifier", "run/linear_classifier/linear_classifier-12.ckpt",
                    "--file_format", file_format, "--file_name", "mödels + more/classifier", "--batch_size", "37")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert re.search(r"^largest difference to the live model on random images: \S+$", result.stdout, re.M)
    shutil.copy(work / "mödels + more" / f"classifier.{suffix}", work)
    file = work / f"classifier.{suffix}"
    images = np.ascontiguousarray(pixels_of_test_set(work).transpose(0, 3, 1, 2))
    if file_format == "ONNX":
        import onnxruntime
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        probabilities = session.run(None, {session.get_inputs()[0].name: images})[0]
    else:
        probabilities = ms.nn.GraphCell(ms.load(str(file)))(ms.Tensor(images)).asnumpy()
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    assert [path.name for path in (work / "mödels + more").iterdir() if path.name.startswith(".")] == []
    first = next(record for record in read_metrics(work / "run" / "metrics.jsonl") if record["kind"] == "linear_eval")
    assert (probabilities.argmax(1) == np.arange(37) % 10).mean() == pytest.approx(first["accuracy"])


def pixels_of_test_set(work):
    from src.data.cifar import CIFAR10
    return CIFAR10.read_files([work / "data" / "test_batch.bin"]).pixels


def test_exported_encoder_gives_the_features(evaluated):
    work, _ = evaluated
    result = export(work, "--file_name", "encoder.mindir", "--batch_size", "37")
    assert result.returncode == 0, result.stderr
    images = np.ascontiguousarray(pixels_of_test_set(work).transpose(0, 3, 1, 2))
    features = ms.nn.GraphCell(ms.load(str(work / "encoder.mindir")))(ms.Tensor(images)).asnumpy()
    (cached,) = (work / "run" / "features").glob("test-*.npy")
    assert np.allclose(features, np.load(cached), atol=1e-5)


@pytest.mark.parametrize("flags, message", [
    (("--file_format", "AIR"), "--file_format: got AIR on CPU, and MindSpore writes AIR on Ascend only"),
    (("--width_multiplier", "1"), "--width_multiplier: got 1.0, but .* was made with 0.0625"),
    (("--dataset_name", "shapes"), "--dataset_name: got shapes, but .* was made with cifar10"),
    (("--ckpt_simclr_encoder", "run/checkpoint/checkpoint_simclr-1.ckpt", "--ckpt_linear_classifier",
      "run/linear_classifier"), "--ckpt_linear_classifier: .* was trained on another encoder"),
    (("--file_name", "data/test_batch.bin/x"), "--file_name: cannot write"),
    (("--file_name", "data/"), "--file_name: got 'data/', a folder, takes the name of a file"),
])
def test_export_refuses_what_does_not_fit(evaluated, flags, message):
    work, _ = evaluated
    before = sorted(work.rglob("*"))
    refused(export(work, *flags), message)
    assert sorted(work.rglob("*")) == before


def test_metrics_are_json_lines(evaluated):
    work, _ = evaluated
    for line in (work / "run" / "metrics.jsonl").read_text().splitlines():
        assert "kind" in json.loads(line)

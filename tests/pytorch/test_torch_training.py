"""The PyTorch reference's augmentation against MindSpore's, and a small run of its training script."""
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, call_script, done, of_kind, refused, start_script
from mindspore import dataset as ds
from mindspore.dataset import vision
from scipy.stats import ks_2samp

from src.data import shapes
from src.data.cifar import NAMES, write_file
from src.data.views import operations
from src.run import checkpoint, records
from src.settings.augmentation import Augmentation
from src.settings.given import values_of
from src.settings.network import Network
from src.settings.parsing import parse
from src.settings.scripts import TrainSettings
from src.training.beginning import Start, resolve
from src.weights import torch_files

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
sys.path.insert(0, str(ROOT / "benchmarks"))
import torch_augmentation  # noqa: E402
import train_reference  # noqa: E402
from torch_augmentation import augment  # noqa: E402

pytestmark = pytest.mark.long

torch.set_num_threads(1)  # several spin while they wait, and crawl where another process has the cores
STILL = {"crop_min_scale": 1.0, "flip_probability": 0.0, "jitter_strength": 0.0, "grayscale_probability": 0.0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def to_torch(pixels):
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())


def from_torch(x):
    return np.moveaxis((x * 255).round().to(torch.uint8).numpy(), 1, 3).astype(int)


@pytest.fixture(scope="module")
def pictures():
    """Smooth colour pictures, uint8 (24, 32, 32, 3)."""
    coarse = np.random.default_rng(0).integers(0, 256, (24, 6, 6, 3), dtype=np.uint8)
    return np.stack([vision.Resize((32, 32))(picture) for picture in coarse])


@pytest.mark.parametrize("name, factors, tolerance", [
    ("brightness", (0.6, 0.9, 1.4), 1), ("contrast", (0.6, 0.9, 1.4), 1), ("saturation", (0.6, 0.9, 1.4), 2),
    ("hue", (-0.1, 0.04, 0.1), 4)])  # MindSpore's hue has 180 steps, uint8 saturation and value
def test_each_adjustment_is_mindspores(pictures, name, factors, tolerance):
    for factor in factors:
        mindspores = {"brightness": vision.AdjustBrightness, "contrast": vision.AdjustContrast,
                      "saturation": vision.AdjustSaturation, "hue": vision.AdjustHue}[name](factor)
        expected = np.stack([mindspores(picture) for picture in pictures]).astype(int)
        adjusted = getattr(torch_augmentation, name)(to_torch(pictures).float() / 255,
                                                     torch.full((len(pictures), 1, 1, 1), factor))
        found = np.abs(from_torch(adjusted) - expected)
        assert found.max() <= 3 * tolerance and found.mean() <= tolerance / 2, (factor, found.max(), found.mean())


def test_gray_is_mindspores(pictures):
    expected = np.stack([vision.ConvertColor(vision.ConvertMode.COLOR_RGB2GRAY)(picture) for picture in pictures])
    found = from_torch(torch_augmentation.luminance(to_torch(pictures).float() / 255))[..., 0]
    assert np.abs(found - expected.reshape(found.shape)).max() <= 1


def test_crops_are_mindspores(pictures):
    count, rng = len(pictures), np.random.default_rng(1)
    width, height = rng.integers(4, 33, (2, count))
    left, top = rng.integers(0, 33 - width), rng.integers(0, 33 - height)
    flipped = rng.random(count) < 0.5
    found = from_torch(torch_augmentation.resized_crops(
        to_torch(pictures).float() / 255, *(torch.from_numpy(v).float() for v in (left, top, width, height)),
        torch.from_numpy(flipped)))
    for index, picture in enumerate(pictures):
        crop = np.ascontiguousarray(picture[top[index]:, left[index]:][:height[index], :width[index]])
        expected = vision.Resize((32, 32))(crop).astype(int)
        expected = expected[:, ::-1] if flipped[index] else expected
        assert np.abs(found[index] - expected).max() <= 2


def draws(picture, count, **changes):
    """``count`` views of one picture, int (count, 32, 32, 3): MindSpore's, then the reference's."""
    settings = {**STILL, **changes}
    chosen = operations(Augmentation(**settings, blur_probability=0.0), 32)
    if settings["crop_min_scale"] == 1:
        chosen = chosen[1:]  # MindSpore rounds the sides so that it may still cut off one row of pixels
    many = np.ascontiguousarray(np.broadcast_to(picture, (count, 32, 32, 3)))
    ds.config.set_seed(5)
    rows = ds.NumpySlicesDataset({"view": many}, shuffle=False).map(chosen, ["view"])
    ours = np.stack([view for (view,) in rows.create_tuple_iterator(num_epochs=1, output_numpy=True)])
    theirs = augment(to_torch(many), generator(), **settings).numpy()
    return ours.astype(int), np.moveaxis(theirs, 1, 3).astype(int)


def same_distribution(ours, theirs):
    return ks_2samp(ours, theirs).pvalue > 1e-3


def test_crops_are_drawn_alike():
    """A red ramp along x and a green one along y tell left, top, width and height of a crop."""
    ramp = np.zeros((32, 32, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(32) * 8, (np.arange(32) * 8)[:, None]
    boxes = []
    for views in draws(ramp, 3200, crop_min_scale=0.08):
        x, y = views[:, 0, :, 0], views[:, :, 0, 1]
        width, height = np.ptp(x, axis=1) + 8, np.ptp(y, axis=1) + 8
        boxes.append({"left": x.min(1), "top": y.min(1), "width": width, "height": height, "area": width * height,
                      "ratio": width / height})
    for name in boxes[0]:
        assert same_distribution(boxes[0][name], boxes[1][name]), name
    areas = [box["area"] / 256**2 for box in boxes]
    assert abs(areas[0].mean() - areas[1].mean()) < 5 * areas[0].std() * np.sqrt(2 / 3200)


def test_colours_are_drawn_alike(pictures):
    """Means of every channel after the jitter, over many draws of one picture."""
    ours, theirs = draws(pictures[0], 3200, jitter_strength=0.5)
    for views in (ours, theirs):
        assert share_within((views == pictures[0]).all((1, 2, 3)).mean(), 0.2, 3200)
    for channel in range(3):
        mean, deviation = ([statistic(views[..., channel].mean((1, 2))) for views in (ours, theirs)]
                           for statistic in (np.mean, np.std))
        assert abs(mean[0] - mean[1]) < 5 * deviation[1] * np.sqrt(2 / 3200)
        assert deviation[0] == pytest.approx(deviation[1], rel=0.1)


def share_within(share, probability, count):
    """Whether a share of ``count`` draws fits ``probability``, with a bound of five deviations."""
    return abs(share - probability) <= 5 * np.sqrt(probability * (1 - probability) / count)


def test_flips_and_grays_are_as_probable(pictures):
    for views in draws(pictures[1], 3200, flip_probability=0.3):
        assert share_within((views == pictures[1][:, ::-1]).all((1, 2, 3)).mean(), 0.3, 3200)
    for views in draws(pictures[1], 3200, grayscale_probability=0.2):
        assert share_within((np.ptp(views, axis=3) == 0).all((1, 2)).mean(), 0.2, 3200)


def test_views_repeat_with_the_seed_and_differ_within_it(pictures):
    x = to_torch(pictures)
    first, second = augment(x.repeat(2, 1, 1, 1), generator(3)).chunk(2)
    assert not (first == second).flatten(1).all(1).any()
    again = augment(x.repeat(2, 1, 1, 1), generator(3))
    assert torch.equal(torch.cat([first, second]), again)
    assert torch.equal(augment(x, generator(), **STILL), x)


# --- the script ---

SMALL = ("--dataset_name", "shapes", "--encoder", "resnet18", "--width_multiplier", 0.0625, "--batch_size", 64,
         "--projection_dimension", 16, "--epoch_size", 2, "--warmup_epochs", 0, "--learning_rate", 3e-3,
         "--head_batch_norm", "--normalize", "--device_target", "CPU")
# With AVX2, which conftest.py sets for MindSpore, and which is all that older CPUs have, PyTorch 2.13's oneDNN crashes.
HAS_AVX512 = "avx512f" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
PYTORCH = {"OMP_NUM_THREADS": "1", "ONEDNN_MAX_CPU_ISA": "DEFAULT" if HAS_AVX512 else "AVX"}


@pytest.fixture
def few_shapes(tmp_path):
    folder = tmp_path / "shapes"
    folder.mkdir()
    (folder / NAMES).write_text("\n".join(shapes.CLASSES) + "\n")
    write_file(folder / "data_batch_1.bin", shapes.draw(960, 0))
    write_file(folder / "test_batch.bin", shapes.draw(200, 1))
    return folder


def test_a_run_learns_and_its_weights_fit(few_shapes, tmp_path):
    from safetensors.torch import load_file
    training = ("benchmarks/train_reference.py", *SMALL, "--train_dataset_path", few_shapes, "--train_output_path",
                "run")
    done(start_script(*training, cwd=tmp_path, env=PYTORCH))
    written = records.read(tmp_path / "run" / "metrics.jsonl")
    assert [record["kind"] for record in written] == ["reference", "pretrain", "pretrain", "quick_eval"]
    first, second, evaluation = written[1:]
    assert second["loss"] < first["loss"] - 0.2
    assert second["loss"] < 2 * np.log(2 * 64 - 1) - 0.6  # what an untrained network has, and collapse too
    assert first["images_per_second"] > 0
    assert evaluation["images"] == 200 and evaluation["knn_accuracy"] > 0.15 and evaluation["linear_accuracy"] > 0.15
    weights = load_file(tmp_path / "run" / "simclr.safetensors")
    model = train_reference.SimCLR("resnet18", 0.0625, 16, True)
    model.load_state_dict(weights)
    assert {name.split(".")[0] for name in weights} == {"encoder", "projection_head"}
    _, description = torch_files.read(str(tmp_path / "run" / "simclr.safetensors"), "test")
    assert description == {
        "encoder": "resnet18", "width_multiplier": 0.0625, "stem": "cifar", "image_size": 32, "normalize": True,
        "mean": list(shapes.SHAPES.mean), "std": list(shapes.SHAPES.std), "dataset_name": "shapes",
        "pretrain_epoch_size": 2}
    done(call_script("convert.py", "--source_path", "run/simclr.safetensors", "--target_path", "reference.ckpt",
                     cwd=tmp_path))
    converted, data_set = checkpoint.load(str(tmp_path / "reference.ckpt"), "simclr", "test"), shapes.SHAPES
    assert converted.network == Network("resnet18", 0.0625, "cifar", 32, data_set.mean, data_set.std, 16, True)
    assert (converted.info["settings"], converted.info["epoch"]) == ({"dataset_name": "shapes"}, 2)
    done(call_script("linear_eval.py", "--encoder_checkpoint_path", "reference.ckpt", "--train_dataset_path",
                     few_shapes, "--protocol", "all", "--epoch_size", 20, cwd=tmp_path))
    (knn,) = of_kind("knn_eval", tmp_path / "outputs")
    assert knn["accuracy"] == pytest.approx(evaluation["knn_accuracy"], abs=2.01 / 200)
    assert knn["encoder_epoch"] == 2 and len(of_kind("linear_eval", tmp_path / "outputs")) == 2
    refused(call_script(*training, cwd=tmp_path), "--train_output_path: run already holds a run")


def test_what_the_reference_cannot_do_is_an_error(tmp_path):
    refused(call_script("benchmarks/train_reference.py", *SMALL, "--resume", "True", cwd=tmp_path),
            "--resume: got True, which the reference cannot do")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flags", [(), ("--optimizer", "LARS", "--epoch_size", "5"), (
    "--config", str(ROOT / "configs" / "cifar10_resnet18_cpu.yaml"))])
def test_flags_that_are_not_given_mean_the_same_as_in_training(flags):
    argv = [*flags, "--batch_size", "1024", "--num_parallel_workers", "1"]
    settings, network = resolve(parse(TrainSettings, argv), Start(), 1)
    reference = train_reference.resolve(parse(train_reference.ReferenceSettings, argv[:-2]))
    found, expected = values_of(reference), values_of(settings)
    assert {name: found[name] for name in train_reference.TAKEN - {"compile"}} == {
        name: expected[name] for name in train_reference.TAKEN - {"compile"}}
    assert train_reference.network_of(reference) == network


def test_the_reference_needs_no_mindspore():
    code = "import sys; sys.modules['mindspore'] = None; import train_reference"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "benchmarks", capture_output=True, text=True,
                            timeout=60)
    assert result.returncode == 0, result.stderr

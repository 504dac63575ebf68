"""Pretrain with the PyTorch reference: the flags and recipes of train.py, without MindSpore.

    python benchmarks/train_reference.py --config configs/cifar10_resnet18_cpu.yaml --train_dataset_path DIR

On a GPU the network runs in bfloat16 (autocast) and the loss in float32, on the CPU everything in float32. The
images stay on the device and are augmented there. The folder --train_output_path gets metrics.jsonl and
simclr.safetensors, whose names are those of torchvision under `encoder.`. At the end the frozen encoder is
evaluated there and then, by kNN and by a linear classifier; the figures to report are linear_eval.py's.
"""
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any, Dict

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch_augmentation import augment
from torch_reference import SimCLR, build_optimizer, nt_xent

import common  # first: it lets `src` be found from any folder
from src import dataset
from src.common.errors import DivergedError, UserError
from src.common.files import written_whole
from src.common.logs import log_epoch, logger
from src.common.script import status_of
from src.data.images import Images
from src.lr_generator import default_learning_rate, default_scaling, default_warmup, learning_rates
from src.settings.augmentation import PAPER_SMALL
from src.settings.given import CIRCUMSTANCE, Given, Group, flag, values_of
from src.settings.network import SMALL_SIDE, Network, default_stem
from src.settings.parsing import parse
from src.settings.scripts import TrainSettings
from src.settings.types import BOOLEAN

# The flags of train.py that mean something here.
TAKEN = frozenset((
    "config", "device_target", "dataset_name", "train_dataset_path", "download", "num_samples", "train_output_path",
    "encoder", "width_multiplier", "stem", "projection_dimension", "head_batch_norm", "normalize", "batch_size",
    "epoch_size", "save_checkpoint_epochs", "seed", "optimizer", "learning_rate", "lr_scaling", "lr_schedule",
    "warmup_epochs", "weight_decay", "temperature", "crop_min_scale", "flip_probability", "jitter_strength",
    "grayscale_probability", "views", "compile"))
AUGMENTATION = ("crop_min_scale", "flip_probability", "jitter_strength", "grayscale_probability")
METRICS, WEIGHTS = "metrics.jsonl", "simclr.safetensors"
NEIGHBOURS, KNN_TEMPERATURE = 200, 0.1
LINEAR_DECAY, LINEAR_ITERATIONS = 1e-3, 200
ENCODED_AT_ONCE = 500


@dataclasses.dataclass(frozen=True)
class ReferenceSettings(TrainSettings):
    """Settings of train.py, of which this script knows ``TAKEN``, and its own."""

    compile: bool = flag(
        BOOLEAN, "torch.compile the network: faster steps on a GPU, after a minute or two", CIRCUMSTANCE, Group.RUN,
        False)

    @staticmethod
    def check(given: Given) -> None:
        TrainSettings.check(given)
        defaults = Given(ReferenceSettings, {})
        for name in sorted(given.chosen.keys() - TAKEN):
            if given[name] != defaults[name]:
                raise UserError(f"--{name}: got {given[name]}, which the reference cannot do; leave the flag out, or "
                                f"give its default, {defaults[name]}")
        if (Path(given["train_output_path"]) / METRICS).exists():
            raise UserError(f"--train_output_path: {given['train_output_path']} already holds a run; name another "
                            "folder")


def resolve(given: Given) -> ReferenceSettings:
    """Fill in what train.py takes where a flag is not given.

    Raises:
        UserError: the data set has images of more than 32 pixels, which would take blur.
    """
    side = dataset.DATA_SETS[given["dataset_name"]].side
    if side > SMALL_SIDE:
        raise UserError(f"--dataset_name: got {given['dataset_name']}, whose images of {side} pixels are blurred, "
                        f"which the reference cannot do; take one with up to {SMALL_SIDE}, such as cifar10")
    given = given.fill(**PAPER_SMALL._asdict())
    if given["learning_rate"] is None:
        scaling = given["lr_scaling"] or default_scaling(given["optimizer"])
        given = given.fill(lr_scaling=scaling, learning_rate=default_learning_rate(
            given["optimizer"], given["batch_size"], scaling))
    return given.fill(warmup_epochs=default_warmup(given["warmup_epochs"], given["epoch_size"])).resolved(
        image_size=side, stem=given["stem"] or default_stem(side), num_parallel_workers=1)


def network_of(settings: ReferenceSettings) -> Network:
    """Return what describes the network."""
    data_set = dataset.DATA_SETS[settings.dataset_name]
    return Network(settings.encoder, settings.width_multiplier, settings.stem, settings.image_size,
                   data_set.mean if settings.normalize else None, data_set.std if settings.normalize else None,
                   settings.projection_dimension, settings.head_batch_norm)


def choose_device(target: str) -> torch.device:
    if target not in (None, "CPU", "GPU") or target == "GPU" and not torch.cuda.is_available():
        raise UserError(f"--device_target: got {target}, which PyTorch cannot use here; take CPU"
                        + (" or GPU" if torch.cuda.is_available() else ""))
    return torch.device("cuda" if target != "CPU" and torch.cuda.is_available() else "cpu")


def to_device(images: Images, device: torch.device) -> Tensor:
    """Return the pixels, uint8 (N, 3, side, side)."""
    return torch.from_numpy(images.pixels).to(device).permute(0, 3, 1, 2).contiguous()


def build_model(network: Network, device: torch.device) -> SimCLR:
    colours = {"mean": network.mean, "std": network.std} if network.mean else {}
    model = SimCLR(network.encoder, network.width_multiplier, network.projection_dimension, network.head_batch_norm,
                   network.stem, **colours)
    return model.to(device, memory_format=torch.channels_last)


class Trainer:
    """Model, optimizer and random numbers of a run; ``epoch`` trains one."""

    def __init__(self, settings: ReferenceSettings, pixels: Tensor):
        self.settings, self.pixels, self.device = settings, pixels, pixels.device
        torch.manual_seed(settings.seed)
        self.model = build_model(network_of(settings), self.device)
        self.network: nn.Module = torch.compile(self.model) if settings.compile else self.model
        self.optimizer = build_optimizer(settings.optimizer, self.model.parameters(), settings.learning_rate,
                                         settings.weight_decay)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.augmentation = {name: getattr(settings, name) for name in AUGMENTATION}
        self.steps = len(pixels) // settings.batch_size
        self.rates = learning_rates(settings.lr_schedule, settings.learning_rate, settings.epoch_size, self.steps,
                                    settings.warmup_epochs)

    def step(self, images: Tensor, rate: float) -> Tensor:
        """One update of the weights; return loss and contrastive accuracy (2,), on the device."""
        views = augment(images.repeat(self.settings.views, 1, 1, 1), self.generator, **self.augmentation)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            z = self.network(views.contiguous(memory_format=torch.channels_last))
        loss, accuracy = nt_xent(z.float(), self.settings.temperature, self.settings.views)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return torch.stack([loss.detach(), accuracy])

    def epoch(self, number: int) -> Dict[str, Any]:
        """Train epoch ``number``, from 1, and return its record: the names are those of train.py."""
        begin = time.perf_counter()
        self.model.train()
        order = np.random.default_rng((self.settings.seed, number)).permutation(len(self.pixels))
        batches = torch.from_numpy(order[:self.steps * self.settings.batch_size]).to(self.device).view(self.steps, -1)
        rates = self.rates[(number - 1) * self.steps:number * self.steps].tolist()
        total = torch.zeros(2, device=self.device)
        for batch, rate in zip(batches, rates):
            last = self.step(self.pixels[batch], rate)
            total += last
        loss, accuracy = (total / self.steps).tolist()
        last_loss, seconds = last[0].item(), time.perf_counter() - begin
        log_epoch(number, self.steps, last_loss, seconds)
        if not np.isfinite(loss):
            raise DivergedError(f"the loss of epoch {number} is {loss}: training has diverged; begin again with a "
                                "lower --learning_rate or a higher --temperature")
        return {"kind": "pretrain", "epoch": number, "loss": loss, "contrastive_accuracy": accuracy,
                "last_loss": last_loss, "learning_rate": rates[-1], "seconds": round(seconds, 3),
                "images_per_second": round(batches.numel() / seconds, 1)}


@torch.no_grad()
def extract(encoder: nn.Module, pixels: Tensor) -> Tensor:
    """Return the representations (N, features), float32, of the images as they are."""
    encoder.eval()
    return torch.cat([encoder(batch) for batch in pixels.split(ENCODED_AT_ONCE)])


def knn_accuracy(train: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, k: int = NEIGHBOURS,
                 temperature: float = KNN_TEMPERATURE) -> float:
    """Return the share of test rows whose class wins the vote of the k training rows with the greatest cosine.

    A vote weighs exp(cosine / temperature) (Wu et al. 2018, section 3.4).
    """
    train, hits = functional.normalize(train), 0
    votes_of = functional.one_hot(labels.long()).float()
    for rows, classes in zip(functional.normalize(test).split(ENCODED_AT_ONCE), test_labels.split(ENCODED_AT_ONCE)):
        cosine, nearest = (rows @ train.T).topk(min(k, len(train)))
        votes = ((cosine / temperature).exp()[:, :, None] * votes_of[nearest]).sum(1)
        hits += (votes.argmax(1) == classes).sum().item()
    return hits / len(test)


def linear_accuracy(train: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Return the accuracy of multinomial logistic regression by L-BFGS on standardised rows, with a fixed L2 penalty
    of ``LINEAR_DECAY`` / 2 times the sum of the squared weights beside the mean loss."""
    mean, scale = train.mean(0), train.std(0) + 1e-6
    train, test = (train - mean) / scale, (test - mean) / scale
    layer = nn.Linear(train.shape[1], int(labels.max()) + 1).to(train.device)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=LINEAR_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(layer(train), labels.long()) + LINEAR_DECAY / 2 * layer.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return (layer(test).argmax(1) == test_labels).float().mean().item()


def evaluate(encoder: nn.Module, train: Images, test: Images, device: torch.device) -> Dict[str, Any]:
    """Evaluate the frozen encoder on every test image and return the record."""
    begin = time.perf_counter()
    splits = []
    for images in (train, test):
        splits += [extract(encoder, to_device(images, device)), torch.from_numpy(images.labels).to(device)]
    return {"kind": "quick_eval", "knn_accuracy": knn_accuracy(*splits), "linear_accuracy": linear_accuracy(*splits),
            "protocol": f"last epoch, features without augmentation; kNN with k={NEIGHBOURS}, temperature "
                        f"{KNN_TEMPERATURE}; logistic regression by L-BFGS, L2 {LINEAR_DECAY}, standardised",
            "train_images": len(train.labels), "images": len(test.labels),
            "seconds": round(time.perf_counter() - begin, 1)}


def save(model: nn.Module, path: Path, settings: ReferenceSettings, epoch: int) -> None:
    """Write the weights, and for convert.py, which looks for it under this name, what they do not tell."""
    network = network_of(settings)
    told = {**network.without_head.settings, "mean": network.mean, "std": network.std,
            "dataset_name": settings.dataset_name, "pretrain_epoch_size": epoch}
    with written_whole(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()},
                  str(temporary), metadata={"simclr_settings": json.dumps(told)})


def add_record(folder: Path, record: Dict[str, Any]) -> None:
    with (folder / METRICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def main() -> None:
    settings = resolve(parse(ReferenceSettings, description=__doc__))
    device = choose_device(settings.device_target)
    train, test = (dataset.load(settings.dataset_name, settings.train_dataset_path, split, num_samples=count,
                                download=settings.download)
                   for split, count in (("train", settings.num_samples), ("test", None)))
    if len(train.labels) < settings.batch_size:
        raise UserError(f"--batch_size: got {settings.batch_size}, takes at most the {len(train.labels)} images to "
                        "train on")
    torch.backends.cudnn.benchmark = True
    trainer = Trainer(settings, to_device(train, device))
    folder = Path(settings.train_output_path)
    folder.mkdir(parents=True, exist_ok=True)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    add_record(folder, {"kind": "reference", "torch": torch.__version__, "device": name, "cores": common.cores(),
                        "settings": values_of(settings)})
    logger.info("PyTorch %s on %s; %d epochs of %d steps of %d images; run folder %s", torch.__version__, name,
                settings.epoch_size, trainer.steps, settings.batch_size, folder)
    for epoch in range(1, settings.epoch_size + 1):
        add_record(folder, trainer.epoch(epoch))
        if epoch % settings.save_checkpoint_epochs == 0 or epoch == settings.epoch_size:
            save(trainer.model, folder / WEIGHTS, settings, epoch)
    record = evaluate(trainer.model.encoder, train, test, device)
    add_record(folder, record)
    logger.info("kNN %.2f %%, linear %.2f %% of %d test images (%s)", 100 * record["knn_accuracy"],
                100 * record["linear_accuracy"], record["images"], record["protocol"])


if __name__ == "__main__":
    sys.exit(status_of(main))

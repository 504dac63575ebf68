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
from src.common.logs import log_epoch, logger, status_of
from src.data.images import Images
from src.lr_generator import default_learning_rate, default_scaling, default_warmup, learning_rates
from src.settings.flags import TrainConfig, flag, settings_of
from src.settings.parsing import parse
from src.settings.types import BOOLEAN

# The flags of train.py that mean something here.
TAKEN = frozenset((
    "config", "device_target", "dataset_name", "train_dataset_path", "download", "num_samples", "train_output_path",
    "encoder", "width_multiplier", "stem", "projection_dimension", "head_batch_norm", "normalize", "batch_size",
    "epoch_size", "save_checkpoint_epochs", "seed", "optimizer", "learning_rate", "lr_scaling", "lr_schedule",
    "warmup_epochs", "weight_decay", "temperature", "crop_min_scale", "flip_probability", "jitter_strength",
    "grayscale_probability", "compile"))
LARGEST_WITHOUT_BLUR = 32  # pixels; they have also this strength of the jitter by default
JITTER_STRENGTH = 0.5
AUGMENTATION = ("crop_min_scale", "flip_probability", "jitter_strength", "grayscale_probability")
METRICS, WEIGHTS = "metrics.jsonl", "simclr.safetensors"
NEIGHBOURS, KNN_TEMPERATURE = 200, 0.1
LINEAR_DECAY, LINEAR_ITERATIONS = 1e-3, 200
ENCODED_AT_ONCE = 500


@dataclasses.dataclass(frozen=True)
class ReferenceConfig(TrainConfig):
    """Settings of train.py, of which this script knows ``TAKEN``, and its own."""

    compile: bool = flag(False, BOOLEAN, "torch.compile the network: faster steps on a GPU, after a minute or two")

    def check(self) -> None:
        super().check()
        for name in sorted(self.given - TAKEN):
            if getattr(self, name) != getattr(ReferenceConfig, name):
                raise UserError(f"--{name}: got {getattr(self, name)}, which the reference cannot do; leave the flag "
                                f"out, or give its default, {getattr(ReferenceConfig, name)}")
        if (Path(self.train_output_path) / METRICS).exists():
            raise UserError(f"--train_output_path: {self.train_output_path} already holds a run; name another folder")


def resolve(config: ReferenceConfig) -> ReferenceConfig:
    """Fill in what train.py takes where a flag is not given.

    Raises:
        UserError: the data set has images of more than 32 pixels, which would take blur.
    """
    side = dataset.DATA_SETS[config.dataset_name].side
    if side > LARGEST_WITHOUT_BLUR:
        raise UserError(f"--dataset_name: got {config.dataset_name}, whose images of {side} pixels are blurred, which "
                        f"the reference cannot do; take one with up to {LARGEST_WITHOUT_BLUR}, such as cifar10")
    missing: Dict[str, Any] = {"image_size": side, "stem": config.stem or "cifar"}
    if config.jitter_strength is None:
        missing["jitter_strength"] = JITTER_STRENGTH
    if config.learning_rate is None:
        scaling = config.lr_scaling or default_scaling(config.optimizer)
        missing.update(lr_scaling=scaling,
                       learning_rate=default_learning_rate(config.optimizer, config.batch_size, scaling))
    if "warmup_epochs" not in config.given:
        missing["warmup_epochs"] = default_warmup(config.warmup_epochs, config.epoch_size)
    return dataclasses.replace(config, **missing)


def choose_device(target: str) -> torch.device:
    if target not in (None, "CPU", "GPU") or target == "GPU" and not torch.cuda.is_available():
        raise UserError(f"--device_target: got {target}, which PyTorch cannot use here; take CPU"
                        + (" or GPU" if torch.cuda.is_available() else ""))
    return torch.device("cuda" if target != "CPU" and torch.cuda.is_available() else "cpu")


def to_device(images: Images, device: torch.device) -> Tensor:
    """Return the pixels, uint8 (N, 3, side, side)."""
    return torch.from_numpy(images.pixels).to(device).permute(0, 3, 1, 2).contiguous()


def build_model(config: ReferenceConfig, device: torch.device) -> SimCLR:
    data_set = dataset.DATA_SETS[config.dataset_name]
    colours = {"mean": data_set.mean, "std": data_set.std} if config.normalize else {}
    model = SimCLR(config.encoder, config.width_multiplier, config.projection_dimension, config.head_batch_norm,
                   config.stem, **colours)
    return model.to(device, memory_format=torch.channels_last)


class Trainer:
    """Model, optimizer and random numbers of a run; ``epoch`` trains one."""

    def __init__(self, config: ReferenceConfig, pixels: Tensor):
        self.config, self.pixels, self.device = config, pixels, pixels.device
        torch.manual_seed(config.seed)
        self.model = build_model(config, self.device)
        self.network: nn.Module = torch.compile(self.model) if config.compile else self.model
        self.optimizer = build_optimizer(config.optimizer, self.model.parameters(), config.learning_rate,
                                         config.weight_decay)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.augmentation = {name: getattr(config, name) for name in AUGMENTATION}
        self.steps = len(pixels) // config.batch_size
        self.rates = learning_rates(config.lr_schedule, config.learning_rate, config.epoch_size, self.steps,
                                    config.warmup_epochs)

    def step(self, images: Tensor, rate: float) -> Tensor:
        """One update of the weights; return loss and contrastive accuracy (2,), on the device."""
        views = augment(images.repeat(2, 1, 1, 1), self.generator, **self.augmentation)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            z = self.network(views.contiguous(memory_format=torch.channels_last))
        loss, accuracy = nt_xent(z.float(), self.config.temperature)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return torch.stack([loss.detach(), accuracy])

    def epoch(self, number: int) -> Dict[str, Any]:
        """Train epoch ``number``, from 1, and return its record: the names are those of train.py."""
        begin = time.perf_counter()
        self.model.train()
        order = np.random.default_rng((self.config.seed, number)).permutation(len(self.pixels))
        batches = torch.from_numpy(order[:self.steps * self.config.batch_size]).to(self.device).view(self.steps, -1)
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


def save(model: nn.Module, path: Path, settings: Dict[str, Any], epoch: int) -> None:
    """Write the weights, and the settings for convert.py, which looks for them under this name."""
    told = {**settings, "pretrain_epoch_size": epoch}
    with written_whole(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()},
                  str(temporary), metadata={"simclr_settings": json.dumps(told)})


def add_record(folder: Path, record: Dict[str, Any]) -> None:
    with (folder / METRICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def main() -> None:
    config = resolve(parse(ReferenceConfig, description=__doc__))
    device = choose_device(config.device_target)
    train, test = (dataset.load(config.dataset_name, config.train_dataset_path, split, num_samples=count,
                                download=config.download)
                   for split, count in (("train", config.num_samples), ("test", None)))
    if len(train.labels) < config.batch_size:
        raise UserError(f"--batch_size: got {config.batch_size}, takes at most the {len(train.labels)} images to train "
                        "on")
    torch.backends.cudnn.benchmark = True
    trainer = Trainer(config, to_device(train, device))
    folder, settings = Path(config.train_output_path), settings_of(config)
    folder.mkdir(parents=True, exist_ok=True)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    add_record(folder, {"kind": "reference", "torch": torch.__version__, "device": name, "cores": common.cores(),
                        "settings": settings})
    logger.info("PyTorch %s on %s; %d epochs of %d steps of %d images; run folder %s", torch.__version__, name,
                config.epoch_size, trainer.steps, config.batch_size, folder)
    for epoch in range(1, config.epoch_size + 1):
        add_record(folder, trainer.epoch(epoch))
        if epoch % config.save_checkpoint_epochs == 0 or epoch == config.epoch_size:
            save(trainer.model, folder / WEIGHTS, settings, epoch)
    record = evaluate(trainer.model.encoder, train, test, device)
    add_record(folder, record)
    logger.info("kNN %.2f %%, linear %.2f %% of %d test images (%s)", 100 * record["knn_accuracy"],
                100 * record["linear_accuracy"], record["images"], record["protocol"])


if __name__ == "__main__":
    sys.exit(status_of(main))

"""The flags, each of them once: its default, what it takes and its help text. Here are those of train.py and what
the scripts share; those of the scripts that take an encoder are in src/settings/encoder_flags.py.

A script's flags are the fields of a frozen dataclass, which is also the type of its settings; src/settings/parsing.py
fills it in. README's tables are checked against both files.
"""
import dataclasses
import os
from typing import Any, Dict, FrozenSet, List, Optional

from src.common.errors import UserError
from src.settings.types import BOOLEAN, PATH, URL, Kind, choice, integer, number

LARGEST_SEED = 2**32 - 1

# Flags that say where and how to run, not what is learned; a run may be resumed with others.
CIRCUMSTANCES = frozenset((
    "config", "device_target", "device_id", "run_cloudbrain", "run_distribute", "device_num", "data_url",
    "train_url", "train_dataset_path", "download", "train_output_path", "save_checkpoint_epochs",
    "keep_checkpoint_max", "eval_every", "resume", "save_graphs"))


def flag(default: Any, kind: Kind, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"kind": kind, "help": text})


def with_default(config_class: type, name: str, default: Any, text: str = "") -> Any:
    """Return the flag ``name`` of ``config_class`` with another default, and another help text where one is given."""
    (field,) = (field for field in dataclasses.fields(config_class) if field.name == name)
    return flag(default, field.metadata["kind"], text or field.metadata["help"])


@dataclasses.dataclass(frozen=True)
class Flags:
    """Common ground of the scripts.

    What describes the network has no default here: linear_eval.py and export.py take it from the
    checkpoint.
    """

    config: Optional[str] = flag(None, PATH, "recipe: a YAML file of flags; the command line wins")
    device_target: Optional[str] = flag(
        None, choice("Ascend", "GPU", "CPU"), "where to run; by default Ascend where one is present, else CPU")
    device_id: int = flag(0, integer(0), "which of the machine's devices")
    dataset_name: Optional[str] = flag(
        None, choice("cifar10", "cifar100", "stl10", "imagefolder", "shapes"),
        "data set; `imagefolder` is a folder of images per class, `shapes` is generated and needs no files")
    image_size: Optional[int] = flag(
        None, integer(8), "side in pixels that the images of `imagefolder` are resized to; by default 224")
    encoder: Optional[str] = flag(None, choice("resnet18", "resnet34", "resnet50", "resnet101"), "base encoder")
    width_multiplier: Optional[float] = flag(
        None, number(0, 16, above=True), "factor on every width of the encoder; 0.25 is laptop-sized")
    stem: Optional[str] = flag(
        None, choice("cifar", "strided", "imagenet"), "first layers of the encoder; cifar: 3x3; strided: 3x3 with "
        "stride 2, for a quarter of the multiplications; imagenet: 7x7 with stride 2, and pooling; by default cifar "
        "for images of up to 32 pixels, as in the paper, and imagenet for larger ones")
    given: FrozenSet[str] = frozenset()

    @staticmethod
    def why_not(name: str) -> Optional[str]:
        """Return why there is no flag ``name`` although people look for it; None for any other name."""
        return None

    def check(self) -> None:
        """Raise UserError where values that are fine alone do not go together."""

    def require_encoder(self, name: str, purpose: str) -> None:
        """Raise UserError where the flag ``name``, which has no default, was not given."""
        if not getattr(self, name):
            raise UserError(f"--{name}: got nothing, takes the checkpoint of the encoder to {purpose}, "
                            "such as outputs/checkpoint/latest")


@dataclasses.dataclass(frozen=True)
class RunFlags(Flags):
    """What training and evaluation share."""

    run_distribute: bool = flag(False, BOOLEAN, "this process is one of several, one per device; the launchers set it")
    device_num: int = flag(1, integer(1), "devices of the whole run, checked against what was started")
    run_cloudbrain: bool = flag(False, BOOLEAN, "take the data from data_url and put the run into train_url")
    data_url: Optional[str] = flag(None, URL, "cloud storage with the data, copied to train_dataset_path")
    train_url: Optional[str] = flag(None, URL, "cloud storage for the run, copied from train_output_path")
    train_dataset_path: Optional[str] = flag(
        None, PATH, "folder with the data files, or its parent; by default data/<dataset_name>")
    download: bool = flag(False, BOOLEAN, "fetch the data set into train_dataset_path first, if it is not there")
    num_samples: Optional[int] = flag(None, integer(1), "train on the first N training images only; by default on all")
    train_output_path: str = flag("./outputs", PATH, "folder of the run")
    batch_size: int = flag(128, integer(2), "images per step and device")
    epoch_size: int = flag(100, integer(1), "number of epochs")
    seed: int = flag(0, integer(0, LARGEST_SEED), "seed of weights, order and augmentation")
    save_graphs: bool = flag(False, BOOLEAN, "write MindSpore's compiled graphs into the run's folder")

    @property
    def graphs_folder(self) -> Optional[str]:
        """Where MindSpore writes its compiled graphs, if it is to."""
        return os.path.join(self.train_output_path, "graphs") if self.save_graphs else None

    @property
    def promised_devices(self) -> Optional[int]:
        """The devices that a distributed run must have; None where any number will do."""
        return self.device_num if "device_num" in self.given else None

    def check(self) -> None:
        if self.device_num != 1 and not self.run_distribute:
            raise UserError(f"--device_num: got {self.device_num} without --run_distribute True; start a run on "
                            "several devices with scripts/run_distribution_train_msrun.sh or ..._ascend.sh")
        if self.run_distribute and "device_id" in self.given:
            raise UserError(f"--device_id: got {self.device_id} with --run_distribute True, where every rank has a "
                            "device of its own; leave the flag out")
        for name in ("data_url", "train_url"):
            if self.run_cloudbrain and not getattr(self, name):
                raise UserError(f"--{name}: got nothing with --run_cloudbrain True, takes a URL of the cloud's storage")
            if getattr(self, name) and not self.run_cloudbrain:
                raise UserError(f"--{name}: got {getattr(self, name)} without --run_cloudbrain True; add it, or leave "
                                "the flag out")


@dataclasses.dataclass(frozen=True)
class CheckpointFlags(RunFlags):
    """What saves checkpoints as it goes."""

    save_checkpoint_epochs: int = flag(1, integer(1), "epochs from one checkpoint to the next")
    keep_checkpoint_max: int = flag(5, integer(1), "how many of the newest checkpoints to keep")


@dataclasses.dataclass(frozen=True)
class TrainingFlags(RunFlags):
    """What trains an encoder."""

    weight_decay: float = flag(
        3e-4, number(0), "L2 penalty on weights, not on biases and batch norm; the paper's LARS has 1e-6")
    amp_level: str = flag(
        "O0", choice("O0", "O2", "O3"), "mixed precision: O0 none; O2 float16 but for loss and batch norm; O3 float16 "
        "but for the loss; slower on a CPU")
    sync_bn: bool = flag(True, BOOLEAN, "batch-norm statistics over all devices, as in the paper")
    num_parallel_workers: int = flag(
        2, integer(1), "threads of the input pipeline; the random augmentations depend on it")
    crop_min_scale: float = flag(0.08, number(0, 1, above=True), "smallest share of the area that a crop keeps")
    flip_probability: float = flag(0.5, number(0, 1), "probability of a horizontal flip")


@dataclasses.dataclass(frozen=True)
class TrainConfig(CheckpointFlags, TrainingFlags):
    """Settings of train.py."""

    dataset_name: str = with_default(Flags, "dataset_name", "cifar10")
    encoder: str = with_default(Flags, "encoder", "resnet50")
    width_multiplier: float = with_default(Flags, "width_multiplier", 1.0)
    projection_dimension: int = flag(128, integer(1), "width of the embedding z")
    learning_rate: Optional[float] = flag(
        None, number(0, above=True), "peak learning rate; by default that of optimizer and lr_scaling")
    lr_scaling: Optional[str] = flag(
        None, choice("sqrt", "linear"), "how the default learning rate follows the global batch B: Adam 9e-4 at 1024 "
        "(by default sqrt), SGD 0.03 at 256 (linear), LARS 4.8 at 4096 (linear: the paper's 0.3 x B / 256; sqrt: its "
        "0.075 x sqrt(B))")
    lr_schedule: str = flag("linear", choice("linear", "cosine", "step", "polynomial"), "decay after the warm-up")
    warmup_epochs: float = flag(15.0, number(0), "epochs of linear warm-up; where none are given, at most 15% of "
                                "epoch_size")
    optimizer: str = flag("Adam", choice("Adam", "SGD", "LARS"), "optimizer")
    temperature: float = flag(0.5, number(0, above=True), "temperature of the contrastive loss")
    head_batch_norm: bool = flag(False, BOOLEAN, "batch norm in the projection head, as in the paper's code")
    pre_trained_path: Optional[str] = flag(None, PATH, "checkpoint to take the weights from (weights alone)")
    pretrain_epoch_size: int = flag(
        0, integer(0), "epochs that pre_trained_path has behind it: the schedule goes on from there")
    eval_every: int = flag(
        5, integer(0), "epochs from one measurement of the representations (kNN, spread) to the next; the last epoch "
        "has one too; 0 for none")
    resume: bool = flag(False, BOOLEAN, "go on with the run in train_output_path from its latest checkpoint")
    cross_device_negatives: bool = flag(
        True, BOOLEAN, "take negatives from all devices instead of each device's own batch")
    jitter_strength: Optional[float] = flag(
        None, number(0, 1.25), "strength of the colour jitter, 0 for none; by default 0.5 for images of up to 32 "
        "pixels and 1 for larger ones, as in the paper")
    grayscale_probability: float = flag(0.2, number(0, 1), "probability of a view without colour")
    blur_probability: Optional[float] = flag(
        None, number(0, 1), "probability of Gaussian blur; by default 0 for images of up to 32 pixels and 0.5 for "
        "larger ones, as in the paper")
    normalize: bool = flag(False, BOOLEAN, "subtract the data set's mean colour and divide by its deviation")

    @staticmethod
    def why_not(name: str) -> Optional[str]:
        if "accum" not in name:
            return None
        return ("gradient accumulation is not offered, for it changes the negatives: a view would be compared within "
                "each small batch only; for more negatives take a larger --batch_size or more devices")

    def check(self) -> None:
        super().check()
        if self.lr_scaling and "learning_rate" in self.given:
            raise UserError(f"--lr_scaling: got {self.lr_scaling} with --learning_rate {self.learning_rate}, which is "
                            "the peak itself and is not scaled; leave one of them out")
        for name in {"warmup_epochs", "pretrain_epoch_size"} & self.given:
            if getattr(self, name) >= self.epoch_size and not self.resume:
                raise UserError(f"--{name}: got {getattr(self, name)}, takes less than epoch_size, "
                                f"which is {self.epoch_size}")
        if self.pretrain_epoch_size and not self.pre_trained_path and not self.resume:
            raise UserError(f"--pretrain_epoch_size: got {self.pretrain_epoch_size} without --pre_trained_path; "
                            "name the checkpoint that has these epochs behind it")


def flags_of(config_class: type) -> List[dataclasses.Field]:
    """Return the fields of ``config_class`` that are flags, in the order of definition."""
    return [field for field in dataclasses.fields(config_class) if "kind" in field.metadata]


def settings_of(config: Flags) -> Dict[str, Any]:
    """Return every flag of ``config`` with its value, ready for YAML or JSON."""
    return {field.name: getattr(config, field.name) for field in flags_of(type(config))}

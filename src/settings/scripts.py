"""The settings of each script: its flags, and the checks of flags that depend on each other."""
import dataclasses
from typing import Optional, Sequence, Tuple

from src.common.errors import UserError
from src.settings.augmentation import PAPER_SMALL, Augmentation
from src.settings.flags import (
    A_CHECKPOINT,
    CIRCUMSTANCE,
    LEARNING,
    NETWORK,
    OPTIMIZERS,
    SCALINGS,
    SCHEDULES,
    CheckpointFlags,
    EncoderFlags,
    Flags,
    RunFlags,
    TrainingFlags,
)
from src.settings.given import Given, Group, changed, flag
from src.settings.types import BOOLEAN, PATH, choice, integer, number


@dataclasses.dataclass(frozen=True)
class TrainSettings(CheckpointFlags, TrainingFlags):
    """Settings of train.py."""

    dataset_name: str = changed(Flags, "dataset_name", default="cifar10")
    encoder: str = changed(Flags, "encoder", default="resnet50")
    width_multiplier: float = changed(Flags, "width_multiplier", default=1.0)
    projection_dimension: int = flag(integer(1, 100_000), "width of the embedding z", NETWORK, Group.NETWORK, 128)
    head_batch_norm: bool = flag(
        BOOLEAN, "batch norm in the projection head, as in the paper's code", NETWORK, Group.NETWORK, False)
    normalize: bool = flag(
        BOOLEAN, "subtract the data set's mean colour and divide by its deviation", NETWORK, Group.NETWORK, False)
    temperature: float = flag(
        number(0.001, 1000), "temperature of the contrastive loss", LEARNING, Group.LEARNING, 0.5, usual=True)
    cross_device_negatives: bool = flag(
        BOOLEAN, "take negatives from all devices instead of each device's own batch", LEARNING, Group.LEARNING, True)
    optimizer: str = flag(choice(*OPTIMIZERS), "optimizer", LEARNING, Group.LEARNING, "Adam")
    learning_rate: float = flag(
        number(0, 1e30, above=True), "peak learning rate; by default it follows from optimizer and lr_scaling",
        LEARNING, Group.LEARNING)
    lr_scaling: Optional[str] = flag(
        choice(*SCALINGS), "how the default learning rate follows the global batch B: Adam 9e-4 at 1024 (by default "
        "sqrt), SGD 0.03 at 256 (linear), LARS 4.8 at 4096 (linear: the paper's 0.3 x B / 256; sqrt: its "
        "0.075 x sqrt(B))", LEARNING, Group.LEARNING)
    lr_schedule: str = flag(choice(*SCHEDULES), "decay after the warm-up", LEARNING, Group.LEARNING, "linear")
    warmup_epochs: float = flag(
        number(0), "epochs of linear warm-up; the default is at most 15% of epoch_size", LEARNING,
        Group.LEARNING, 15.0)
    pre_trained_path: Optional[str] = flag(
        PATH, "checkpoint to begin with; only its weights are taken", LEARNING, Group.RUN)
    pretrain_epoch_size: int = flag(
        integer(0), "epochs that pre_trained_path was trained for; the schedule continues there", LEARNING, Group.RUN,
        0)
    resume: bool = flag(
        BOOLEAN, "continue the run in train_output_path from its latest checkpoint", CIRCUMSTANCE, Group.RUN, False,
        usual=True)
    eval_every: int = flag(
        integer(0), "measure the representations (kNN, spread) every N epochs and after the last one; 0 for never",
        CIRCUMSTANCE, Group.EVALUATION, 5)
    views: int = flag(
        integer(2, 100), "views of every image in a step, 2 in the paper; 4 views of half as many images cost the same",
        LEARNING, Group.VIEWS, 2)
    jitter_strength: float = flag(
        number(0, 1.25), "strength of the colour jitter, 0 for none; by default 0.5 for images of up to 32 pixels and "
        "1 for larger ones, as in the paper", LEARNING, Group.VIEWS)
    grayscale_probability: float = flag(
        number(0, 1), "probability of a view without colour", LEARNING, Group.VIEWS, PAPER_SMALL.grayscale_probability)
    blur_probability: float = flag(
        number(0, 1), "probability of Gaussian blur; by default 0 for images of up to 32 pixels and 0.5 for larger "
        "ones, as in the paper", LEARNING, Group.VIEWS)

    @property
    def augmentation(self) -> Augmentation:
        """The random transformations of a view."""
        return Augmentation(*(getattr(self, name) for name in Augmentation._fields))

    @classmethod
    def check(cls, given: Given) -> None:
        super().check(given)
        if given["lr_scaling"] and "learning_rate" in given.chosen:
            raise UserError(f"--lr_scaling: got {given['lr_scaling']} with --learning_rate {given['learning_rate']}, "
                            "which is the peak itself and is not scaled; leave one of them out")
        if not given["resume"]:
            cls.check_beginning(given)

    @staticmethod
    def check_beginning(given: Given) -> None:
        """Raise UserError where flags contradict each other that a new run takes, but a resumed one does not."""
        for name in ("warmup_epochs", "pretrain_epoch_size"):
            if name in given.chosen and given[name] >= given["epoch_size"]:
                raise UserError(f"--{name}: got {given[name]}, takes less than --epoch_size "
                                f"{given['epoch_size']}")
        if given["pretrain_epoch_size"] and not given["pre_trained_path"]:
            raise UserError(f"--pretrain_epoch_size: got {given['pretrain_epoch_size']} without --pre_trained_path; "
                            "name the checkpoint that was trained for so many epochs")


@dataclasses.dataclass(frozen=True)
class EvalSettings(CheckpointFlags, EncoderFlags):
    """Settings of linear_eval.py."""

    projection_dimension: Optional[int] = changed(TrainSettings, "projection_dimension", default=None)
    protocol: str = flag(
        choice("sgd", "lbfgs", "knn", "all"), "sgd: linear classifier trained in minibatches by Adam, for export.py; "
        "lbfgs: logistic regression, its penalty chosen on held-out training images; knn: weighted nearest "
        "neighbours; all: all three", LEARNING, Group.EVALUATION, "sgd", usual=True)
    pre_classifier_checkpoint_path: Optional[str] = flag(
        PATH, "classifier to evaluate, instead of training one", CIRCUMSTANCE, Group.EVALUATION)
    print_iter: int = flag(
        integer(1), "steps from one logged loss to the next", CIRCUMSTANCE, Group.EVALUATION, 100)
    learning_rate: float = flag(
        number(0, 1e30, above=True), "peak learning rate of the classifier (Adam)", LEARNING, Group.LEARNING, 1e-3)

    @property
    def protocols(self) -> Tuple[str, ...]:
        """The protocols to evaluate with."""
        return ("sgd", "lbfgs", "knn") if self.protocol == "all" else (self.protocol,)

    def seeds_of(self, protocol: str) -> Sequence[int]:
        """Return the seeds to repeat ``protocol`` with: one for nearest neighbours, where nothing is random."""
        return range(self.seed, self.seed + (1 if protocol == "knn" else self.repeat))

    @classmethod
    def check(cls, given: Given) -> None:
        super().check(given)
        if given["pre_classifier_checkpoint_path"] and given["protocol"] != "sgd":
            raise UserError(f"--protocol: got {given['protocol']} with --pre_classifier_checkpoint_path, which names a "
                            "classifier to evaluate; leave one of them out")
        if given["repeat"] > 1 and (given["pre_classifier_checkpoint_path"] or given["protocol"] == "knn"):
            raise UserError(f"--repeat: got {given['repeat']} where nothing is random (nearest neighbours, or a given "
                            "classifier); leave the flag out")


@dataclasses.dataclass(frozen=True)
class FinetuneSettings(TrainingFlags, EncoderFlags):
    """Settings of finetune.py."""

    weight_decay: float = changed(
        TrainingFlags, "weight_decay", default=0.0,
        help="L2 penalty on weights, not on biases and batch norm; the paper has none")
    seed: int = changed(RunFlags, "seed", help="seed of weights, order, augmentation and the choice of labels")
    repeat: int = changed(
        EncoderFlags, "repeat", help="train with N seeds, seed, seed + 1, ..., and give mean and deviation")
    initial_weights: str = flag(
        choice("pretrained", "random"), "pretrained: fine-tune the encoder; random: train the same network from "
        "random weights, as the supervised reference", LEARNING, Group.LEARNING, "pretrained", usual=True)
    label_fraction: float = flag(
        number(0, 1, above=True), "share of the training images whose labels are used, the same for every class; "
        "0.01 and 0.1 are usual", LEARNING, Group.DATA, 1.0, usual=True)
    learning_rate: float = flag(
        number(0, 1e30, above=True), "peak learning rate (SGD with momentum, cosine decay); by default 0.05 x B / 256 "
        "for B images per step over all devices, the paper's", LEARNING, Group.LEARNING)

    @property
    def seeds(self) -> Sequence[int]:
        """The seeds of the repetitions."""
        return range(self.seed, self.seed + self.repeat)


@dataclasses.dataclass(frozen=True)
class ExportSettings(Flags):
    """Settings of export.py."""

    ckpt_simclr_encoder: str = flag(PATH, A_CHECKPOINT, CIRCUMSTANCE, Group.RUN, usual=True, required=True)
    ckpt_linear_classifier: Optional[str] = flag(
        PATH, "checkpoint of linear_eval.py or finetune.py; without it the encoder alone is exported (features)",
        CIRCUMSTANCE, Group.RUN, usual=True)
    file_name: str = flag(
        PATH, "file to write; the format's suffix is added", CIRCUMSTANCE, Group.RUN, "simclr", usual=True)
    file_format: str = flag(
        choice("MINDIR", "AIR", "ONNX"), "format; AIR needs an Ascend device", CIRCUMSTANCE, Group.RUN, "MINDIR",
        usual=True)
    batch_size: int = flag(
        integer(1, 100_000), "images per call of the exported model", CIRCUMSTANCE, Group.RUN, 1, usual=True)
    input: str = flag(
        choice("uint8", "float32"), "type of the images: uint8 from 0 to 255, or float32 from 0 to 1", CIRCUMSTANCE,
        Group.RUN, "uint8", usual=True)
    overwrite: bool = flag(
        BOOLEAN, "replace an existing file that export.py has not written; its own are always replaced", CIRCUMSTANCE,
        Group.RUN, False)


@dataclasses.dataclass(frozen=True)
class ConvertSettings(Flags):
    """Settings of convert.py."""

    dataset_name: str = changed(Flags, "dataset_name", default="cifar10")
    source_path: str = flag(
        PATH, "weights of PyTorch (.safetensors, .pth, .pt, .ckpt, .tar), or a checkpoint of train.py", CIRCUMSTANCE,
        Group.RUN, usual=True, required=True)
    target_path: str = flag(
        PATH, "file to write: .ckpt for this project, .safetensors, .pth or .pt for PyTorch", CIRCUMSTANCE, Group.RUN,
        usual=True, required=True)
    normalize: bool = flag(
        BOOLEAN, "the weights were trained on normalised pixels (mean and deviation of the data set's colours), as is "
        "usual in PyTorch", NETWORK, Group.NETWORK, True)
    pretrain_epoch_size: Optional[int] = flag(
        integer(0, 1_000_000), "epochs that the weights were trained for, for the records; by default unknown",
        CIRCUMSTANCE, Group.RUN)

    @classmethod
    def check(cls, given: Given) -> None:
        super().check(given)
        suffixes = (".ckpt", ".safetensors", ".pth", ".pt")
        if not given["target_path"].endswith(suffixes):
            raise UserError(f"--target_path: got {given['target_path']}, takes a file that ends in one of "
                            f"{', '.join(suffixes)}")


SCRIPTS = {"train.py": TrainSettings, "linear_eval.py": EvalSettings, "finetune.py": FinetuneSettings,
           "export.py": ExportSettings, "convert.py": ConvertSettings}

"""The flags of the scripts that take an encoder: linear_eval.py, finetune.py, export.py and convert.py."""
import dataclasses
from typing import Optional, Sequence, Tuple

from src.common.errors import UserError
from src.settings.flags import (
    LARGEST_SEED,
    CheckpointFlags,
    Flags,
    RunFlags,
    TrainConfig,
    TrainingFlags,
    flag,
    with_default,
)
from src.settings.types import BOOLEAN, PATH, choice, integer, number

ENCODER = ("checkpoint of train.py, convert.py or finetune.py, a run's checkpoint folder or its `latest` "
           "(required)")


@dataclasses.dataclass(frozen=True)
class EvalConfig(CheckpointFlags):
    """Settings of linear_eval.py."""

    projection_dimension: Optional[int] = with_default(TrainConfig, "projection_dimension", None)
    encoder_checkpoint_path: Optional[str] = flag(None, PATH, ENCODER)
    eval_dataset_path: Optional[str] = flag(
        None, PATH, "folder with the test files, or its parent; by default train_dataset_path")
    class_num: Optional[int] = flag(
        None, integer(2), "number of classes; by default those of the data set, and more are allowed")
    protocol: str = flag(
        "sgd", choice("sgd", "lbfgs", "knn", "all"), "sgd: linear classifier trained in minibatches, which export.py "
        "takes; lbfgs: logistic regression with its penalty chosen on held-out training images; knn: weighted nearest "
        "neighbours; all: the three of them")
    repeat: int = flag(1, integer(1), "evaluate with N seeds, seed, seed + 1, ..., and give mean and deviation")
    pre_classifier_checkpoint_path: Optional[str] = flag(
        None, PATH, "classifier to evaluate; no training then")
    print_iter: int = flag(100, integer(1), "steps from one logged loss to the next")
    learning_rate: float = flag(1e-3, number(0, above=True), "peak learning rate of the classifier (Adam)")

    def check(self) -> None:
        super().check()
        self.require_encoder("encoder_checkpoint_path", "evaluate")
        if self.pre_classifier_checkpoint_path and self.protocol != "sgd":
            raise UserError(f"--protocol: got {self.protocol} with --pre_classifier_checkpoint_path, which names a "
                            "classifier to evaluate; leave one of them out")
        if self.repeat > 1 and (self.pre_classifier_checkpoint_path or self.protocol == "knn"):
            raise UserError(f"--repeat: got {self.repeat} where nothing is random (nearest neighbours, or a given "
                            "classifier), takes 1; leave the flag out")

    @property
    def protocols(self) -> Tuple[str, ...]:
        """The protocols to evaluate by."""
        return ("sgd", "lbfgs", "knn") if self.protocol == "all" else (self.protocol,)

    def seeds_of(self, protocol: str) -> Sequence[int]:
        """Return the seeds to repeat ``protocol`` with; nearest neighbours have nothing random."""
        return range(self.seed, self.seed + (1 if protocol == "knn" else self.repeat))


@dataclasses.dataclass(frozen=True)
class FinetuneConfig(TrainingFlags):
    """Settings of finetune.py."""

    weight_decay: float = with_default(
        TrainingFlags, "weight_decay", 0.0, "L2 penalty on weights, not on biases and batch norm; the paper has none")
    seed: int = with_default(RunFlags, "seed", 0, "seed of weights, order, augmentation and of the drawn labels")
    encoder_checkpoint_path: Optional[str] = with_default(EvalConfig, "encoder_checkpoint_path", None)
    eval_dataset_path: Optional[str] = with_default(EvalConfig, "eval_dataset_path", None)
    class_num: Optional[int] = with_default(EvalConfig, "class_num", None)
    initial_weights: str = flag(
        "pretrained", choice("pretrained", "random"), "pretrained: fine-tune the encoder; random: train the same "
        "network from the beginning, as the supervised reference")
    label_fraction: float = flag(
        1.0, number(0, 1, above=True), "share of the training images whose labels are used, as many of every class; "
        "0.01 and 0.1 are usual")
    repeat: int = with_default(
        EvalConfig, "repeat", 1, "train with N seeds, seed, seed + 1, ..., and give mean and deviation")
    learning_rate: Optional[float] = flag(
        None, number(0, above=True), "peak learning rate (SGD with momentum, cosine decay); by default 0.05 x B / 256 "
        "for B images per step over all devices, the paper's")

    def check(self) -> None:
        super().check()
        self.require_encoder("encoder_checkpoint_path", "fine-tune")
        if self.seeds[-1] > LARGEST_SEED:
            raise UserError(f"--repeat: got {self.repeat} with --seed {self.seed}, takes seeds of at most "
                            f"{LARGEST_SEED}")

    @property
    def seeds(self) -> Sequence[int]:
        """The seeds of the repetitions."""
        return range(self.seed, self.seed + self.repeat)


@dataclasses.dataclass(frozen=True)
class ExportConfig(Flags):
    """Settings of export.py."""

    ckpt_simclr_encoder: Optional[str] = flag(None, PATH, ENCODER)
    ckpt_linear_classifier: Optional[str] = flag(
        None, PATH, "checkpoint of linear_eval.py or finetune.py; without it the encoder alone is exported (features)")
    file_name: str = flag("simclr", PATH, "file to write; the format's suffix is added")
    file_format: str = flag("MINDIR", choice("MINDIR", "AIR", "ONNX"), "format; AIR needs an Ascend device")
    batch_size: int = flag(1, integer(1), "images per call of the exported model")

    def check(self) -> None:
        self.require_encoder("ckpt_simclr_encoder", "export")


@dataclasses.dataclass(frozen=True)
class ConvertConfig(Flags):
    """Settings of convert.py."""

    dataset_name: str = with_default(Flags, "dataset_name", "cifar10")
    source_path: Optional[str] = flag(
        None, PATH, "weights of PyTorch (.safetensors, .pth, .pt, .ckpt, .tar), or a checkpoint of train.py (required)")
    target_path: Optional[str] = flag(
        None, PATH, "file to write: .ckpt for this project, .safetensors, .pth or .pt for PyTorch (required)")
    normalize: bool = flag(True, BOOLEAN, "the weights were trained on pixels less the data set's mean colour, divided "
                           "by its deviation, as is usual in PyTorch")
    pretrain_epoch_size: Optional[int] = flag(
        None, integer(0), "epochs that the weights have behind them, for the records; by default unknown")

    def check(self) -> None:
        for name, takes in (("source_path", "resnet50.pth or outputs/checkpoint/latest"),
                            ("target_path", "resnet50.ckpt or resnet50.safetensors")):
            if not getattr(self, name):
                raise UserError(f"--{name}: got nothing, takes a file such as {takes}")
        suffixes = (".ckpt", ".safetensors", ".pth", ".pt")
        if not self.target_path.endswith(suffixes):
            raise UserError(f"--target_path: got {self.target_path}, takes a file that ends in one of "
                            f"{', '.join(suffixes)}")

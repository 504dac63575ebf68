"""The settings of each script: its flags, and the checks of flags that depend on each other."""
import dataclasses
from typing import Optional, Tuple

from src.settings.augmentation import PAPER_SMALL, Augmentation
from src.settings.flags import A_CHECKPOINT, CheckpointFlags, EncoderFlags, Flags, RunFlags, TrainingFlags
from src.settings.given import CIRCUMSTANCE, LEARNING, NETWORK, Given, Group, changed, flag
from src.settings.types import BOOLEAN, PATH, choice, integer, number

# The names in the registries of src/optimizer.py and src/lr_generator.py; a test compares them.
OPTIMIZERS = ("Adam", "SGD", "LARS")
SCALINGS = ("sqrt", "linear")
SCHEDULES = ("linear", "cosine", "step", "polynomial")


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
        "sqrt), SGD 0.03 at 256 (linear), LARS 4.8 at 4096 (linear)", LEARNING, Group.LEARNING)
    lr_schedule: str = flag(choice(*SCHEDULES), "decay after the warm-up", LEARNING, Group.LEARNING, "linear")
    warmup_epochs: float = flag(
        number(0), "epochs of linear warm-up; the default is cut to 15% of epoch_size", LEARNING, Group.LEARNING, 15.0)
    pre_trained_path: Optional[str] = flag(
        PATH, "checkpoint to begin with; only its weights are taken", LEARNING, Group.RUN)
    pretrain_epoch_size: int = flag(
        integer(0), "epochs that pre_trained_path was trained for; epoch_size counts them too, and the schedule "
        "goes on after them", LEARNING, Group.RUN, 0)
    resume: bool = flag(
        BOOLEAN, "continue the run in train_output_path", CIRCUMSTANCE, Group.RUN, False, usual=True)
    eval_every: int = flag(
        integer(0), "measure the representations (kNN, spread) every N epochs and after the last one; 0 for never",
        CIRCUMSTANCE, Group.EVALUATION, 5)
    views: int = flag(
        integer(2, 100), "views of every image in a step, 2 in the paper; 4 views of half as many images cost the same",
        LEARNING, Group.VIEWS, 2)
    jitter_strength: float = flag(
        number(0, 1.25), "strength of the colour jitter; by default 0.5 for images of up to 32 pixels, else 1",
        LEARNING, Group.VIEWS)
    grayscale_probability: float = flag(
        number(0, 1), "probability of a view without colour", LEARNING, Group.VIEWS, PAPER_SMALL.grayscale_probability)
    blur_probability: float = flag(
        number(0, 1), "probability of Gaussian blur; by default 0 for images of up to 32 pixels, else 0.5", LEARNING,
        Group.VIEWS)

    @property
    def augmentation(self) -> Augmentation:
        """The random transformations of a view."""
        return Augmentation(*(getattr(self, name) for name in Augmentation._fields))

    @classmethod
    def check(cls, given: Given) -> None:
        super().check(given)
        if given["lr_scaling"] and "learning_rate" in given.chosen:
            raise given.refusal("lr_scaling", "with --learning_rate, which is not scaled; leave one of them out")
        if not given["resume"]:
            cls.check_beginning(given)

    @staticmethod
    def check_beginning(given: Given) -> None:
        """Raise UserError where flags contradict each other that a new run takes, but a resumed one does not."""
        for name in ("warmup_epochs", "pretrain_epoch_size"):
            if name in given.chosen and given[name] >= given["epoch_size"]:
                raise given.refusal(name, f"with --epoch_size {given['epoch_size']}; takes less than that")
        if given["pretrain_epoch_size"] and not given["pre_trained_path"]:
            raise given.refusal("pretrain_epoch_size", "without --pre_trained_path; name the checkpoint that was "
                                "trained for so many epochs")


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
    print_iter: int = flag(integer(1), "steps between logged losses", CIRCUMSTANCE, Group.EVALUATION, 100)
    learning_rate: float = flag(
        number(0, 1e30, above=True), "peak learning rate of the classifier (Adam)", LEARNING, Group.LEARNING, 1e-3)

    @property
    def protocols(self) -> Tuple[str, ...]:
        """The protocols to evaluate with."""
        return ("sgd", "lbfgs", "knn") if self.protocol == "all" else (self.protocol,)

    @classmethod
    def check(cls, given: Given) -> None:
        super().check(given)
        if given["pre_classifier_checkpoint_path"] and given["protocol"] != "sgd":
            raise given.refusal("protocol", "with --pre_classifier_checkpoint_path; leave one of them out")
        if given["repeat"] > 1 and (given["pre_classifier_checkpoint_path"] or given["protocol"] == "knn"):
            raise given.refusal("repeat", "where nothing is random (nearest neighbours, or a given classifier); leave "
                                "it out")


@dataclasses.dataclass(frozen=True)
class FinetuneSettings(TrainingFlags, EncoderFlags):
    """Settings of finetune.py."""

    weight_decay: float = changed(
        TrainingFlags, "weight_decay", default=0.0, help="L2 penalty on weights, not on biases and batch norm")
    seed: int = changed(RunFlags, "seed", help="seed of weights, order, augmentation and the choice of labels")
    repeat: int = changed(EncoderFlags, "repeat", help="train with N seeds from `seed` on: mean and deviation")
    initial_weights: str = flag(
        choice("pretrained", "random"), "pretrained: fine-tune the encoder; random: train the same network from "
        "random weights, for comparison", LEARNING, Group.LEARNING, "pretrained", usual=True)
    label_fraction: float = flag(
        number(0, 1, above=True), "share of the training images of every class whose labels are used", LEARNING,
        Group.DATA, 1.0, usual=True)
    learning_rate: float = flag(
        number(0, 1e30, above=True), "peak learning rate (SGD with momentum, cosine decay); by default the paper's "
        "0.05 x B / 256 at global batch B", LEARNING, Group.LEARNING)


@dataclasses.dataclass(frozen=True)
class ExportSettings(Flags):
    """Settings of export.py."""

    ckpt_simclr_encoder: str = flag(PATH, A_CHECKPOINT, CIRCUMSTANCE, Group.RUN, usual=True, required=True)
    ckpt_linear_classifier: Optional[str] = flag(
        PATH, "checkpoint of linear_eval.py or finetune.py; without it the model gives features", CIRCUMSTANCE,
        Group.RUN, usual=True)
    file_name: str = flag(
        PATH, "file to write; the format's suffix is added", CIRCUMSTANCE, Group.RUN, "simclr", usual=True)
    file_format: str = flag(
        choice("MINDIR", "AIR", "ONNX"), "AIR needs an Ascend device", CIRCUMSTANCE, Group.RUN, "MINDIR", usual=True)
    batch_size: int = flag(
        integer(1, 100_000), "images per call of the exported model", CIRCUMSTANCE, Group.RUN, 1, usual=True)
    input: str = flag(
        choice("uint8", "float32"), "pixels: 0 to 255, or 0 to 1", CIRCUMSTANCE, Group.RUN, "uint8", usual=True)
    overwrite: bool = flag(
        BOOLEAN, "replace a file of the same name, even if not from export.py", CIRCUMSTANCE, Group.RUN, False)


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
        BOOLEAN, "whether the weights were trained on pixels normalised by the data set's mean and deviation, as is "
        "usual in PyTorch", NETWORK, Group.NETWORK, True)
    pretrain_epoch_size: Optional[int] = flag(
        integer(0, 1_000_000), "epochs of training, for the records; by default unknown", CIRCUMSTANCE, Group.RUN)

    @classmethod
    def check(cls, given: Given) -> None:
        super().check(given)
        suffixes = (".ckpt", ".safetensors", ".pth", ".pt")
        if not given["target_path"].endswith(suffixes):
            raise given.refusal("target_path", f"which does not end in one of {', '.join(suffixes)}")


SCRIPTS = {"train.py": TrainSettings, "linear_eval.py": EvalSettings, "finetune.py": FinetuneSettings,
           "export.py": ExportSettings, "convert.py": ConvertSettings}

"""The flags that several scripts share, each of them once; what only one script takes is in src/settings/scripts.py."""
import dataclasses
from typing import Optional

from src.common.errors import UserError
from src.settings.augmentation import PAPER_SMALL
from src.settings.given import Given, Group, Role, flag, flags_of
from src.settings.network import STEMS
from src.settings.types import BOOLEAN, PATH, URL, choice, integer, number

NETWORK, LEARNING, CIRCUMSTANCE = Role
LARGEST_SEED = 2**32 - 1
MOST_DEVICES = 99_999  # as in a rank table
A_CHECKPOINT = ("checkpoint of train.py, convert.py or finetune.py, a run's checkpoint folder or its `latest`, or a "
                ".safetensors file of convert.py")

# The names that the registries of src/dataset.py, src/resnet.py and src/lr_generator.py have; a test compares them.
DATA_SETS = ("cifar10", "cifar100", "stl10", "imagefolder", "shapes")
ENCODERS = ("resnet18", "resnet34", "resnet50", "resnet101")
OPTIMIZERS = ("Adam", "SGD", "LARS")
SCALINGS = ("sqrt", "linear")
SCHEDULES = ("linear", "cosine", "step", "polynomial")


# Flags of the model zoo's script, and what has their place here.
OF_THE_MODEL_ZOO = {
    "use_crop": ("crop_min_scale", "1 for whole images"), "use_flip": ("flip_probability", "0 for none"),
    "use_color_jitter": ("jitter_strength", "0 for none"), "use_color_gray": ("grayscale_probability", "0 for none"),
    "use_blur": ("blur_probability", "0 for none"), "use_norm": ("normalize", "True or False")}


@dataclasses.dataclass(frozen=True)
class Flags:
    """Common ground of the scripts. What describes the network has no default: most take it from a checkpoint."""

    config: Optional[str] = flag(
        PATH, "recipe: a YAML file of flags; the command line wins", CIRCUMSTANCE, Group.RUN, usual=True)
    device_target: Optional[str] = flag(
        choice("Ascend", "GPU", "CPU"), "where to run; by default Ascend where one is present, else CPU", CIRCUMSTANCE,
        Group.DEVICE, usual=True)
    device_id: int = flag(
        integer(0, MOST_DEVICES), "which of the machine's devices", CIRCUMSTANCE, Group.DEVICE, 0)
    dataset_name: str = flag(
        choice(*DATA_SETS), "data set; `imagefolder` is a folder of images per class, `shapes` is generated and needs "
        "no files", LEARNING, Group.DATA, usual=True)
    image_size: int = flag(
        integer(8, 4096), "side in pixels that the images of `imagefolder` are resized to; by default 224", NETWORK,
        Group.DATA)
    encoder: str = flag(choice(*ENCODERS), "base encoder", NETWORK, Group.NETWORK, usual=True)
    width_multiplier: float = flag(
        number(1 / 64, 16), "factor on every width of the encoder; 0.25 is laptop-sized", NETWORK,
        Group.NETWORK, usual=True)
    stem: str = flag(
        choice(*STEMS), "first layers of the encoder; cifar: 3x3; strided: 3x3 with stride 2, for a quarter of the "
        "multiplications; imagenet: 7x7 with stride 2, and pooling; by default cifar for images of up to 32 pixels, as "
        "in the paper, and imagenet for larger ones", NETWORK, Group.NETWORK)

    @classmethod
    def why_not(cls, name: str) -> Optional[str]:
        """Return why there is no flag ``name`` although people look for it; None for any other name."""
        if name not in OF_THE_MODEL_ZOO:
            return None
        here, takes = OF_THE_MODEL_ZOO[name]
        if here not in (field.name for field in flags_of(cls)):
            return "it was the model zoo's, and here the checkpoint knows what it says; leave it out"
        return f"it was the model zoo's; here it is --{here}, {takes}"

    @staticmethod
    def check(given: Given) -> None:
        """Raise UserError where values that are fine alone do not go together."""


@dataclasses.dataclass(frozen=True)
class RunFlags(Flags):
    """What leaves something in a run's folder."""

    run_distribute: bool = flag(
        BOOLEAN, "this process is one of several, one per device; the launchers set it", CIRCUMSTANCE, Group.DEVICE,
        False)
    device_num: Optional[int] = flag(
        integer(1, MOST_DEVICES), "devices of the whole run, checked against what was started; by default any number",
        CIRCUMSTANCE, Group.DEVICE)
    run_cloudbrain: bool = flag(
        BOOLEAN, "take the data from data_url and put the run into train_url", CIRCUMSTANCE, Group.CLOUD, False)
    data_url: Optional[str] = flag(
        URL, "cloud storage with the data, copied to train_dataset_path", CIRCUMSTANCE, Group.CLOUD)
    train_url: Optional[str] = flag(
        URL, "cloud storage for the run, copied from train_output_path", CIRCUMSTANCE, Group.CLOUD)
    train_dataset_path: Optional[str] = flag(
        PATH, "folder with the data files, or its parent; by default data/<dataset_name>", CIRCUMSTANCE, Group.DATA,
        usual=True)
    download: bool = flag(
        BOOLEAN, "fetch the data set into train_dataset_path first, if it is not there", CIRCUMSTANCE, Group.DATA,
        False)
    num_samples: Optional[int] = flag(
        integer(1), "train on the first N training images only; by default on all", LEARNING, Group.DATA)
    train_output_path: str = flag(PATH, "folder of the run", CIRCUMSTANCE, Group.RUN, "./outputs", usual=True)
    batch_size: int = flag(integer(2), "images per step and device", LEARNING, Group.LEARNING, 128, usual=True)
    epoch_size: int = flag(integer(1, 100_000), "number of epochs", LEARNING, Group.LEARNING, 100, usual=True)
    seed: int = flag(
        integer(0, LARGEST_SEED), "seed of weights, order and augmentation", LEARNING, Group.LEARNING, 0, usual=True)
    jit_level: Optional[str] = flag(
        choice("O0", "O1", "O2"), "how far MindSpore fuses operators; by default O1 on Ascend, and its own choice on "
        "the first generation (Ascend 910) and elsewhere", CIRCUMSTANCE, Group.DEVICE)
    cpu_layers: str = flag(
        choice("own", "mindspore"), "on a CPU: this project's layers, built at the first use, or MindSpore's, at half "
        "the speed", CIRCUMSTANCE, Group.DEVICE, "own")
    report: bool = flag(
        BOOLEAN, "write the run's page, report.html, into its folder while it goes on; report.py does it at any time",
        CIRCUMSTANCE, Group.RUN, True)
    quiet: bool = flag(
        BOOLEAN, "show warnings and errors alone; the run's log has everything", CIRCUMSTANCE, Group.RUN, False)
    tensorboard: bool = flag(
        BOOLEAN, "write the run's numbers as events for TensorBoard too; takes the package tensorboardX", CIRCUMSTANCE,
        Group.RUN, False)
    save_graphs: bool = flag(
        BOOLEAN, "write MindSpore's compiled graphs into the run's folder", CIRCUMSTANCE, Group.RUN, False)

    @staticmethod
    def check(given: Given) -> None:
        if given["device_num"] not in (None, 1) and not given["run_distribute"]:
            raise UserError(f"--device_num: got {given['device_num']} without --run_distribute True; start a run on "
                            "several devices with scripts/run_distribution_train_msrun.sh or ..._ascend.sh")
        if given["run_distribute"] and "device_id" in given.chosen:
            raise UserError(f"--device_id: got {given['device_id']} with --run_distribute True, where every rank has a "
                            "device of its own; leave the flag out")
        for name in ("data_url", "train_url"):
            if given["run_cloudbrain"] and not given[name]:
                raise UserError(f"--{name}: got nothing with --run_cloudbrain True, takes a URL of the cloud's storage")
            if given[name] and not given["run_cloudbrain"]:
                raise UserError(f"--{name}: got {given[name]} without --run_cloudbrain True; add it, or leave the flag "
                                "out")


@dataclasses.dataclass(frozen=True)
class CheckpointFlags(RunFlags):
    """What saves checkpoints as it goes."""

    save_checkpoint_epochs: int = flag(
        integer(1), "epochs from one checkpoint to the next", CIRCUMSTANCE, Group.RUN, 1)
    keep_checkpoint_max: int = flag(
        integer(1), "how many of the newest checkpoints to keep", CIRCUMSTANCE, Group.RUN, 5)


@dataclasses.dataclass(frozen=True)
class TrainingFlags(RunFlags):
    """What trains an encoder."""

    weight_decay: float = flag(
        number(0, 1), "L2 penalty on weights, not on biases and batch norm; the paper's LARS has 1e-6", LEARNING,
        Group.LEARNING, 3e-4)
    amp_level: str = flag(
        choice("O0", "O2", "O3"), "mixed precision: O0 none; O2 float16 but for loss and batch norm; O3 float16 but "
        "for the loss; on a CPU both are bfloat16 where it has that", LEARNING, Group.LEARNING, "O0")
    sync_bn: bool = flag(
        BOOLEAN, "batch-norm statistics over all devices, as in the paper", LEARNING, Group.LEARNING, True)
    num_parallel_workers: int = flag(
        integer(1), "threads of the input pipeline, on which the random augmentations depend; by default 2, and for "
        "image files as many as the machine has cores", LEARNING, Group.VIEWS)
    crop_min_scale: float = flag(
        number(0, 1, above=True), "smallest share of the area that a crop keeps", LEARNING, Group.VIEWS,
        PAPER_SMALL.crop_min_scale)
    flip_probability: float = flag(
        number(0, 1), "probability of a horizontal flip", LEARNING, Group.VIEWS, PAPER_SMALL.flip_probability)


@dataclasses.dataclass(frozen=True)
class EncoderFlags(RunFlags):
    """What evaluates or trains further an encoder, with labels."""

    encoder_checkpoint_path: str = flag(
        PATH, f"{A_CHECKPOINT} (required)", CIRCUMSTANCE, Group.RUN, usual=True)
    eval_dataset_path: Optional[str] = flag(
        PATH, "folder with the test files, or its parent; by default train_dataset_path", CIRCUMSTANCE, Group.DATA)
    class_num: int = flag(
        integer(2, 100_000), "number of classes; by default those of the data set, and more are allowed", LEARNING,
        Group.DATA)
    repeat: int = flag(
        integer(1, 1000), "evaluate with N seeds, seed, seed + 1, ..., and give mean and deviation", CIRCUMSTANCE,
        Group.EVALUATION, 1)

    @staticmethod
    def check(given: Given) -> None:
        RunFlags.check(given)
        if given["seed"] + given["repeat"] - 1 > LARGEST_SEED:
            raise UserError(f"--repeat: got {given['repeat']} with --seed {given['seed']}, takes seeds of at most "
                            f"{LARGEST_SEED}")


def require(given: Given, name: str, takes: str, example: str) -> None:
    """Raise UserError where the flag ``name``, which has no default, was not given."""
    if not given[name]:
        raise UserError(f"--{name}: got nothing, takes {takes}, such as {example}")


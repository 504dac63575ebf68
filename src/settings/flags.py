"""The flags that several scripts share, each defined once; those of one script are in src/settings/scripts.py."""
import dataclasses
from typing import Optional

from src.common.errors import UserError
from src.settings.augmentation import PAPER_SMALL
from src.settings.given import Given, Group, Role, flag
from src.settings.network import STEMS
from src.settings.types import BOOLEAN, PATH, URL, choice, integer, number

NETWORK, LEARNING, CIRCUMSTANCE = Role
LARGEST_SEED = 2**32 - 1
MOST_DEVICES = 99_999  # as in a rank table
A_CHECKPOINT = ("checkpoint of train.py, convert.py or finetune.py, a run's checkpoint folder or its `latest`, or a "
                ".safetensors file of convert.py")

# The names in the registries of src/dataset.py, src/resnet.py and src/lr_generator.py; a test compares them.
DATA_SETS = ("cifar10", "cifar100", "stl10", "imagefolder", "shapes")
ENCODERS = ("resnet18", "resnet34", "resnet50", "resnet101")
OPTIMIZERS = ("Adam", "SGD", "LARS")
SCALINGS = ("sqrt", "linear")
SCHEDULES = ("linear", "cosine", "step", "polynomial")


@dataclasses.dataclass(frozen=True)
class Flags:
    """Flags of all scripts. Those of the network have no default here: most scripts take them from a checkpoint."""

    config: Optional[str] = flag(
        PATH, "recipe: a YAML file of flags; the command line wins", CIRCUMSTANCE, Group.RUN, usual=True)
    device_target: Optional[str] = flag(
        choice("Ascend", "GPU", "CPU"), "where to compute; by default Ascend where there is one, else CPU",
        CIRCUMSTANCE, Group.DEVICE, usual=True)
    device_id: int = flag(
        integer(0, MOST_DEVICES), "which of the machine's devices", CIRCUMSTANCE, Group.DEVICE, 0)
    dataset_name: str = flag(
        choice(*DATA_SETS), "data set; `imagefolder` is a folder of images per class, `shapes` is generated without "
        "files", LEARNING, Group.DATA, usual=True)
    image_size: int = flag(
        integer(8, 4096), "side in pixels that images of `imagefolder` are resized to; by default 224", NETWORK,
        Group.DATA)
    encoder: str = flag(choice(*ENCODERS), "base encoder", NETWORK, Group.NETWORK, usual=True)
    width_multiplier: float = flag(
        number(1 / 64, 16), "factor on every width of the encoder; 0.25 suits a laptop", NETWORK, Group.NETWORK,
        usual=True)
    stem: str = flag(
        choice(*STEMS), "first layers of the encoder; cifar: 3x3; strided: 3x3 with stride 2, a quarter of the "
        "multiplications; imagenet: 7x7 with stride 2, and pooling; by default, as in the paper, cifar for images of "
        "up to 32 pixels and imagenet for larger ones", NETWORK, Group.NETWORK)

    @classmethod
    def check(cls, given: Given) -> None:
        """Raise UserError where flags contradict each other."""


@dataclasses.dataclass(frozen=True)
class RunFlags(Flags):
    """Flags of the scripts that write a run's folder."""

    run_distribute: bool = flag(
        BOOLEAN, "this process is one of several, one per device; the launchers set it", CIRCUMSTANCE, Group.DEVICE,
        False)
    device_num: Optional[int] = flag(
        integer(1, MOST_DEVICES), "devices of the whole run, compared with the number that was started; by default "
        "any number", CIRCUMSTANCE, Group.DEVICE)
    run_cloudbrain: bool = flag(
        BOOLEAN, "take the data from data_url and copy the run to train_url", CIRCUMSTANCE, Group.CLOUD, False)
    data_url: Optional[str] = flag(
        URL, "cloud storage with the data, copied to train_dataset_path", CIRCUMSTANCE, Group.CLOUD)
    train_url: Optional[str] = flag(
        URL, "cloud storage for the run, copied from train_output_path", CIRCUMSTANCE, Group.CLOUD)
    train_dataset_path: Optional[str] = flag(
        PATH, "folder with the data files, or its parent; by default data/<dataset_name>", CIRCUMSTANCE, Group.DATA,
        usual=True)
    download: bool = flag(
        BOOLEAN, "download the data set into train_dataset_path if it is missing", CIRCUMSTANCE, Group.DATA, False)
    num_samples: Optional[int] = flag(
        integer(1), "train on the first N training images; by default on all", LEARNING, Group.DATA)
    train_output_path: str = flag(PATH, "folder of the run", CIRCUMSTANCE, Group.RUN, "./outputs", usual=True)
    batch_size: int = flag(integer(2), "images per step and device", LEARNING, Group.LEARNING, 128, usual=True)
    epoch_size: int = flag(integer(1, 100_000), "number of epochs", LEARNING, Group.LEARNING, 100, usual=True)
    seed: int = flag(
        integer(0, LARGEST_SEED), "seed of weights, order and augmentation", LEARNING, Group.LEARNING, 0, usual=True)
    jit_level: Optional[str] = flag(
        choice("O0", "O1", "O2"), "how far MindSpore fuses operators; by default O1 on Ascend, and MindSpore's own "
        "choice on its first generation (Ascend 910) and elsewhere", CIRCUMSTANCE, Group.DEVICE)
    cpu_layers: str = flag(
        choice("own", "mindspore"), "on a CPU: this project's layers, built at the first use, or MindSpore's, at half "
        "the speed", CIRCUMSTANCE, Group.DEVICE, "own")
    report: bool = flag(
        BOOLEAN, "keep the run's page, report.html in its folder, up to date; report.py writes it at any time",
        CIRCUMSTANCE, Group.RUN, True)
    quiet: bool = flag(
        BOOLEAN, "show only warnings and errors; the run's log has everything", CIRCUMSTANCE, Group.RUN, False)
    tensorboard: bool = flag(
        BOOLEAN, "write the run's numbers as events for TensorBoard too; needs the package tensorboardX", CIRCUMSTANCE,
        Group.RUN, False)
    save_graphs: bool = flag(
        BOOLEAN, "write MindSpore's compiled graphs into the run's folder", CIRCUMSTANCE, Group.RUN, False)

    @classmethod
    def check(cls, given: Given) -> None:
        super().check(given)
        if given["device_num"] not in (None, 1) and not given["run_distribute"]:
            raise UserError(f"--device_num: got {given['device_num']} without --run_distribute True; start a run on "
                            "several devices with scripts/run_distribution_train_msrun.sh or ..._ascend.sh")
        if given["run_distribute"] and "device_id" in given.chosen:
            raise UserError(f"--device_id: got {given['device_id']} with --run_distribute True, where every rank has "
                            "its own device; leave the flag out")
        for name in ("data_url", "train_url"):
            if given["run_cloudbrain"] and not given[name]:
                raise UserError(f"--{name}: got nothing with --run_cloudbrain True; give a URL of the cloud's storage")
            if given[name] and not given["run_cloudbrain"]:
                raise UserError(f"--{name}: got {given[name]} without --run_cloudbrain True; add it, or leave both out")


@dataclasses.dataclass(frozen=True)
class CheckpointFlags(RunFlags):
    """Flags of the scripts that save checkpoints during the training."""

    save_checkpoint_epochs: int = flag(
        integer(1), "epochs from one checkpoint to the next", CIRCUMSTANCE, Group.RUN, 1)
    keep_checkpoint_max: int = flag(
        integer(1), "how many of the newest checkpoints to keep", CIRCUMSTANCE, Group.RUN, 5)


@dataclasses.dataclass(frozen=True)
class TrainingFlags(RunFlags):
    """Flags of the scripts that train an encoder."""

    weight_decay: float = flag(
        number(0, 1), "L2 penalty on weights, but not on biases and batch norm; the paper takes 1e-6 with LARS",
        LEARNING, Group.LEARNING, 3e-4)
    amp_level: str = flag(
        choice("O0", "O2", "O3"), "mixed precision: O0 none; O2 float16 except for loss and batch norm; O3 float16 "
        "except for the loss; a CPU with bfloat16 takes it for both", LEARNING, Group.LEARNING, "O0")
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
    """Flags of the scripts that evaluate or fine-tune an encoder with labels."""

    encoder_checkpoint_path: str = flag(PATH, A_CHECKPOINT, CIRCUMSTANCE, Group.RUN, usual=True, required=True)
    eval_dataset_path: Optional[str] = flag(
        PATH, "folder with the test files, or its parent; by default train_dataset_path", CIRCUMSTANCE, Group.DATA)
    class_num: int = flag(
        integer(2, 100_000), "number of classes; by default the data set's, and at least as many", LEARNING,
        Group.DATA)
    repeat: int = flag(
        integer(1, 1000), "evaluate with N seeds, seed, seed + 1, ..., and give mean and deviation", CIRCUMSTANCE,
        Group.EVALUATION, 1)

    @classmethod
    def check(cls, given: Given) -> None:
        super().check(given)
        if given["seed"] + given["repeat"] - 1 > LARGEST_SEED:
            raise UserError(f"--repeat: got {given['repeat']} with --seed {given['seed']}, takes seeds of at most "
                            f"{LARGEST_SEED}")

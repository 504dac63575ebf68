"""The flags that several scripts share, each defined once; those of one script are in src/settings/scripts.py."""
import dataclasses
from typing import Optional, Sequence

from src.settings.augmentation import PAPER_SMALL
from src.settings.given import CIRCUMSTANCE, LEARNING, NETWORK, Given, Group, flag
from src.settings.network import STEMS
from src.settings.types import BOOLEAN, PATH, URL, choice, integer, number, or_auto

LARGEST_SEED = 2**32 - 1
MOST_DEVICES = 99_999  # as in a rank table
A_CHECKPOINT = ("checkpoint of train.py, convert.py or finetune.py, a run's checkpoint folder or its `latest`, or a "
                ".safetensors file of convert.py")

# The names in the registries of src/dataset.py and src/resnet.py; a test compares them.
DATA_SETS = ("cifar10", "cifar100", "stl10", "imagefolder", "shapes")
ENCODERS = ("resnet18", "resnet34", "resnet50", "resnet101")


@dataclasses.dataclass(frozen=True)
class Flags:
    """Flags of all scripts. Flags of the network have no default: most scripts take them from a checkpoint."""

    config: Optional[str] = flag(
        PATH, "recipe: a YAML file of flags; the command line wins", CIRCUMSTANCE, Group.RUN, usual=True)
    device_target: Optional[str] = flag(
        choice("Ascend", "GPU", "CPU"), "where to compute; by default Ascend where there is one, else CPU",
        CIRCUMSTANCE, Group.DEVICE, usual=True)
    device_id: int = flag(integer(0, MOST_DEVICES), "which of the machine's devices", CIRCUMSTANCE, Group.DEVICE, 0)
    dataset_name: str = flag(
        choice(*DATA_SETS), "data set; `imagefolder` is a folder of images per class, `shapes` is generated without "
        "files", LEARNING, Group.DATA, usual=True)
    image_size: int = flag(
        integer(8, 4096), "side in pixels of images from `imagefolder`; by default 224", NETWORK, Group.DATA)
    encoder: str = flag(choice(*ENCODERS), "base encoder", NETWORK, Group.NETWORK, usual=True)
    width_multiplier: float = flag(
        number(1 / 64, 16), "factor on the encoder's widths; 0.25 suits a laptop", NETWORK, Group.NETWORK, usual=True)
    stem: str = flag(
        choice(*STEMS), "first layers of the encoder; cifar: 3x3; strided: 3x3 with stride 2; imagenet: 7x7 with "
        "stride 2, and pooling; by default cifar for images of up to 32 pixels, else imagenet", NETWORK, Group.NETWORK)

    @classmethod
    def check(cls, given: Given) -> None:
        """Raise UserError where flags contradict each other."""


@dataclasses.dataclass(frozen=True)
class RunFlags(Flags):
    """Flags of the scripts that write a run's folder."""

    run_distribute: bool = flag(
        BOOLEAN, "whether this process is one of several; the launchers set it", CIRCUMSTANCE, Group.DEVICE, False)
    device_num: Optional[int] = flag(
        integer(1, MOST_DEVICES), "expected number of devices; by default any", CIRCUMSTANCE, Group.DEVICE)
    run_cloudbrain: bool = flag(
        BOOLEAN, "take the data from data_url and copy the run to train_url", CIRCUMSTANCE, Group.CLOUD, False)
    data_url: Optional[str] = flag(
        URL, "cloud storage with the data, copied to train_dataset_path", CIRCUMSTANCE, Group.CLOUD)
    train_url: Optional[str] = flag(
        URL, "cloud storage for the run, copied from train_output_path", CIRCUMSTANCE, Group.CLOUD)
    train_dataset_path: Optional[str] = flag(
        PATH, "data folder, or its parent; by default data/<dataset_name>", CIRCUMSTANCE, Group.DATA, usual=True)
    download: bool = flag(BOOLEAN, "download the data set if it is missing", CIRCUMSTANCE, Group.DATA, False)
    num_samples: Optional[int] = flag(integer(1), "train on the first N images only", LEARNING, Group.DATA)
    train_output_path: str = flag(PATH, "folder of the run", CIRCUMSTANCE, Group.RUN, "./outputs", usual=True)
    batch_size: int = flag(integer(2), "images per device in each step", LEARNING, Group.LEARNING, 128, usual=True)
    epoch_size: int = flag(integer(1, 100_000), "number of epochs", LEARNING, Group.LEARNING, 100, usual=True)
    seed: int = flag(
        integer(0, LARGEST_SEED), "seed of weights, order and augmentation", LEARNING, Group.LEARNING, 0, usual=True)
    jit_level: Optional[str] = flag(
        choice("O0", "O1", "O2"), "how far MindSpore fuses operators; by default O1 on Ascend after its first "
        "generation (Ascend 910), else MindSpore's choice", CIRCUMSTANCE, Group.DEVICE)
    cpu_layers: str = flag(
        choice("own", "mindspore"), "on a CPU: this project's layers, built at the first use, or MindSpore's, at half "
        "the speed", CIRCUMSTANCE, Group.DEVICE, "own")
    report: bool = flag(
        BOOLEAN, "keep the run's page, report.html in its folder, up to date", CIRCUMSTANCE, Group.RUN, True)
    quiet: bool = flag(
        BOOLEAN, "show only warnings and errors; the run's log has everything", CIRCUMSTANCE, Group.RUN, False)
    tensorboard: bool = flag(
        BOOLEAN, "write events for TensorBoard; needs the package tensorboardX", CIRCUMSTANCE, Group.RUN, False)
    save_graphs: bool = flag(
        BOOLEAN, "write MindSpore's compiled graphs into the run's folder", CIRCUMSTANCE, Group.RUN, False)

    @classmethod
    def check(cls, given: Given) -> None:
        super().check(given)
        if given["device_num"] not in (None, 1) and not given["run_distribute"]:
            raise given.refusal("device_num", "without --run_distribute True; start a run on several devices with "
                                "scripts/run_distribution_train_msrun.sh or ..._ascend.sh")
        if given["run_distribute"] and "device_id" in given.chosen:
            raise given.refusal("device_id", "with --run_distribute True, where every rank has its own; leave it out")
        for name in ("data_url", "train_url"):
            if bool(given[name]) != given["run_cloudbrain"]:
                raise given.refusal(name, f"with --run_cloudbrain {given['run_cloudbrain']}; give --run_cloudbrain "
                                    "True, --data_url and --train_url together, or none of them")


@dataclasses.dataclass(frozen=True)
class CheckpointFlags(RunFlags):
    """Flags of the scripts that save checkpoints during the training."""

    save_checkpoint_epochs: int = flag(integer(1), "epochs between checkpoints", CIRCUMSTANCE, Group.RUN, 1)
    keep_checkpoint_max: int = flag(integer(1), "number of checkpoints to keep", CIRCUMSTANCE, Group.RUN, 5)


@dataclasses.dataclass(frozen=True)
class TrainingFlags(RunFlags):
    """Flags of the scripts that train an encoder."""

    weight_decay: float = flag(
        number(0, 1), "L2 penalty on weights, but not on biases and batch norm; the paper takes 1e-6 with LARS",
        LEARNING, Group.LEARNING, 3e-4)
    amp_level: str = flag(
        or_auto(choice("O0", "O2", "O3")), "mixed precision: O0 none; O2 float16 except for loss and batch norm; O3 "
        "float16 except for the loss; on a CPU that has it, both use bfloat16; auto, the default, is O2 on such a CPU "
        "and O0 elsewhere", LEARNING, Group.LEARNING)
    sync_bn: bool = flag(
        BOOLEAN, "batch-norm statistics over all devices, as in the paper", LEARNING, Group.LEARNING, True)
    num_parallel_workers: int = flag(
        integer(1), "threads of the input pipeline, on which the random augmentations depend; by default 2, for image "
        "files one per core", LEARNING, Group.VIEWS)
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
    class_num: int = flag(integer(2, 100_000), "number of classes; by default the data set's", LEARNING, Group.DATA)
    repeat: int = flag(
        integer(1, 1000), "evaluate with N seeds from `seed` on: mean and deviation", CIRCUMSTANCE, Group.EVALUATION, 1)

    @property
    def seeds(self) -> Sequence[int]:
        """The seeds of the repetitions."""
        return range(self.seed, self.seed + self.repeat)

    @classmethod
    def check(cls, given: Given) -> None:
        super().check(given)
        if given["seed"] + given["repeat"] - 1 > LARGEST_SEED:
            raise given.refusal("repeat", f"with --seed {given['seed']}, takes seeds of at most {LARGEST_SEED}")

"""What linear_eval.py and finetune.py share: an encoder from its checkpoint, and images with labels."""
from typing import Optional, Tuple

from src import dataset
from src.common.errors import UserError
from src.data.images import Images
from src.distributed.process_group import Process
from src.layers.encoder_layers import Layers, encoder_layers
from src.resnet import ResNet, build_encoder
from src.run.checkpoint import Checkpoint
from src.run.folder import Run
from src.settings.given import Given
from src.weights import encoders


def read_encoder(given: Given, run: Run) -> Checkpoint:
    """Read the encoder's checkpoint, on rank 0; with --run_cloudbrain the run is fetched first.

    Raises a UserError where there is none.
    """
    run.fetch()
    return encoders.load(given["encoder_checkpoint_path"], "encoder_checkpoint_path")


def load_encoder(source: Checkpoint, process: Process, layers: Optional[Layers] = None) -> ResNet:
    """Build the encoder of a checkpoint and load its weights on rank 0, which has to broadcast them.

    Raises a UserError where the weights do not fit the network that the checkpoint describes.
    """
    encoder = build_encoder(source.network, layers or encoder_layers(process))
    if process.is_first:
        encoders.load_weights(encoder, source)
    return encoder


def fill_from_encoder(given: Given, source: Checkpoint) -> Given:
    """Fill in the settings that the encoder's checkpoint has.

    Raises a UserError where a flag contradicts it, or the data set has images of another size.
    """
    # Without a head there is no projection_dimension in the settings: None refuses the user's.
    given = given.adopt({"projection_dimension": None, **source.network.settings}, str(source.path))
    if given["dataset_name"] is None:
        given = given.fill(dataset_name=source.info["settings"]["dataset_name"])
    dataset.check_side(given["dataset_name"], source.network.image_size, f"{source.path} was trained on images of")
    return given


def load_train(given: Given) -> Images:
    """Return the labelled training images."""
    return dataset.load(given["dataset_name"], given["train_dataset_path"], "train", num_samples=given["num_samples"],
                        download=given["download"], side=given["image_size"])


def load_test(given: Given) -> Images:
    """Return the test images."""
    if given["eval_dataset_path"]:
        return dataset.load(given["dataset_name"], given["eval_dataset_path"], "test", "eval_dataset_path",
                            side=given["image_size"])
    return dataset.load(given["dataset_name"], given["train_dataset_path"], "test", download=given["download"],
                        side=given["image_size"])


def class_count(wanted: Optional[int], known: Tuple[str, ...], test: Images, dataset_name: str) -> int:
    """Return the number of classes: ``wanted``, or that of the ``known`` ones of the training images.

    Raises a UserError where there are more classes than ``wanted``, or the test images have others.
    """
    if test.classes != known:
        other = sorted(set(test.classes) ^ set(known))
        raise UserError(f"--eval_dataset_path: its {len(test.classes)} classes are not the {len(known)} of the "
                        f"classifier; only one of them has {', '.join(other[:3])}{' ...' * (len(other) > 3)}; give "
                        "both the same classes")
    if wanted is not None and wanted < len(known):
        raise UserError(f"--class_num: got {wanted}, takes at least the {len(known)} classes of {dataset_name}")
    return wanted or len(known)

"""Export an encoder, or an encoder with its classifier, as MINDIR, AIR or ONNX.

    python export.py --ckpt_simclr_encoder outputs/checkpoint/latest --ckpt_linear_classifier \\
        outputs/linear_classifier/latest --file_format MINDIR
"""
import sys

from src.common.logs import logger, status_of
from src.settings.parsing import parse
from src.settings.scripts import ExportSettings
from src.tasks.preparing import prepare


def main() -> None:
    given = parse(ExportSettings, description=__doc__)
    process = prepare(given)

    # MindSpore reads the environment while it is imported, so what imports it comes when that is prepared.
    from src.tasks import exporting

    file_format = given["file_format"]
    exporting.check_format(file_format, process.device_target)
    model, network = exporting.load_model(given)
    target = exporting.target_of(given["file_name"], file_format, model)
    images = exporting.random_images(given["batch_size"], network.image_size)
    with exporting.written(model, images, file_format) as file:
        exporting.compare(file, model, images, file_format)
        exporting.put(file, target)
    outputs = "class probabilities" if given["ckpt_linear_classifier"] else "features"
    logger.info("%s: uint8 images %s -> %s", target, images.shape, outputs)


if __name__ == "__main__":
    sys.exit(status_of(main))

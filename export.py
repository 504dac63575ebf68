"""Export an encoder, or an encoder with its classifier, as MINDIR, AIR or ONNX.

    python export.py --ckpt_simclr_encoder outputs/checkpoint/latest --ckpt_linear_classifier \\
        outputs/linear_classifier/latest --file_format MINDIR
"""
import sys

from src.common.logs import logger
from src.common.script import status_of
from src.run.preparing import prepare
from src.settings.parsing import parse
from src.settings.scripts import ExportSettings


def main() -> None:
    given = parse(ExportSettings, description=__doc__)
    process = prepare(given)

    # MindSpore reads the environment when it is imported, so this import comes after `prepare`.
    from src.deploy import exporting

    file_format = given["file_format"]
    exporting.check_format(file_format, process.device_target)
    model, signature = exporting.load_model(given)
    target = exporting.target_of(given["file_name"], file_format, model, given["overwrite"])
    with exporting.written(model, signature, file_format) as file:
        exporting.compare(file, model, signature, file_format)
        exporting.put(file, target, file_format)
    outputs = "features" if signature.classes is None else "class probabilities, and features"
    logger.info("%s: %s images (%d, 3, %d, %d) -> %s", target, signature.dtype, signature.batch_size, signature.side,
                signature.side, outputs)


if __name__ == "__main__":
    sys.exit(status_of(main))

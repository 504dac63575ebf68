"""Export an encoder, or an encoder with its classifier, as MINDIR, AIR or ONNX.

    python export.py --ckpt_simclr_encoder outputs/checkpoint/latest --ckpt_linear_classifier \\
        outputs/linear_classifier/latest --file_format MINDIR
"""
import sys

from src.common.logs import status_of


def main() -> None:
    from src.distributed import environment
    from src.settings.encoder_flags import ExportConfig
    from src.settings.parsing import parse
    config = parse(ExportConfig, description=__doc__)
    process = environment.prepare(config.device_target, config.device_id)

    from src.tasks.exporting import export  # imports MindSpore, so only when the environment is set
    export(config, process.device_target)


if __name__ == "__main__":
    sys.exit(status_of(main))

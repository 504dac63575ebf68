"""Convert weights of PyTorch's ResNets to a checkpoint of this project, or an encoder back.

    python convert.py --source_path resnet50.safetensors --target_path resnet50.ckpt
    python convert.py --source_path outputs/checkpoint/latest --target_path encoder.pth
"""
import sys

from src.common.logs import status_of


def main() -> None:
    from src.distributed import environment
    from src.settings.encoder_flags import ConvertConfig
    from src.settings.parsing import parse
    config = parse(ConvertConfig, description=__doc__)
    environment.prepare(config.device_target, config.device_id)

    from src.tasks.converting import convert  # imports MindSpore, so only when the environment is set
    convert(config)


if __name__ == "__main__":
    sys.exit(status_of(main))

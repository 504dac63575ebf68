"""Convert weights of PyTorch's ResNets to a checkpoint of this project, or an encoder back.

    python convert.py --source_path resnet50.safetensors --target_path resnet50.ckpt
    python convert.py --source_path outputs/checkpoint/latest --target_path encoder.pth
"""
import os
import sys
from pathlib import Path

from src.common.errors import UserError
from src.common.files import writing
from src.common.logs import logger
from src.common.script import status_of
from src.run.preparing import prepare
from src.settings.parsing import parse
from src.settings.scripts import ConvertSettings


def main() -> None:
    given = parse(ConvertSettings, description=__doc__)
    prepare(given)

    # MindSpore reads the environment when it is imported, so these imports come after `prepare`.
    from src.run import checkpoint
    from src.weights import converting, torch_files

    target = Path(given["target_path"])
    if os.path.lexists(target):
        raise UserError(f"--target_path: {target} exists already; name another file, or remove it first")
    if target.suffix == ".ckpt":
        converted = converting.from_torch(given)
        with writing("target_path", target, "a place that can be written"):
            target.parent.mkdir(parents=True, exist_ok=True)
            checkpoint.save(target, converted.parameters.values(), converted.info)
    else:
        weights, description = converting.to_torch(given)
        with writing("target_path", target, "a place that can be written"):
            torch_files.write(target, weights, description, "target_path")
    logger.info("written: %s", target)


if __name__ == "__main__":
    sys.exit(status_of(main))

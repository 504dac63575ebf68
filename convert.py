"""Convert weights of PyTorch's ResNets to a checkpoint of this project, or an encoder back.

    python convert.py --source_path resnet50.safetensors --target_path resnet50.ckpt
    python convert.py --source_path outputs/checkpoint/latest --target_path encoder.pth
"""
import sys
from pathlib import Path

from src.common.files import writing
from src.common.logs import logger
from src.common.script import status_of
from src.run.preparing import prepare
from src.settings.parsing import parse
from src.settings.scripts import ConvertSettings


def main() -> None:
    given = parse(ConvertSettings, description=__doc__)
    prepare(given)

    # MindSpore reads the environment while it is imported, so what imports it comes when that is prepared.
    from src.run import checkpoint
    from src.weights import converting, encoders, torch_weights

    source, target = given["source_path"], Path(given["target_path"])
    converting.check_paths(source, target)
    if target.suffix == ".ckpt":
        found = torch_weights.recognise(torch_weights.read(source, "source_path"), f"--source_path: {source}")
        given, network = converting.network_of(found, given)
        parameters = converting.from_torch(found, network, given)
        info = encoders.info_of(network, given["dataset_name"], given["pretrain_epoch_size"], Path(source).name)
        with writing("target_path", target, "a place that can be written"):
            target.parent.mkdir(parents=True, exist_ok=True)
            checkpoint.save(target, parameters, info)
    else:
        trained = checkpoint.load(source, checkpoint.ENCODER, "source_path")
        told = converting.told_of(trained, given)
        weights = converting.to_torch(trained)
        with writing("target_path", target, "a place that can be written"):
            torch_weights.write(target, weights, told, "target_path")
    logger.info("written: %s", target)


if __name__ == "__main__":
    sys.exit(status_of(main))

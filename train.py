"""Pretrain an encoder with SimCLR.

    python train.py --train_dataset_path /data/cifar10 --encoder resnet18 --width_multiplier 0.25
"""
import sys

from src.common.logs import status_of


def main() -> None:
    from src.distributed import environment
    from src.settings.flags import TrainConfig
    from src.settings.parsing import parse
    config = parse(TrainConfig, description=__doc__)
    process = environment.prepare(config.device_target, config.device_id, config.seed, config.graphs_folder,
                                  config.run_distribute, config.promised_devices)

    from src.tasks.pretraining import pretrain  # imports MindSpore, so only when the environment is set
    pretrain(config, process)


if __name__ == "__main__":
    sys.exit(status_of(main))

"""Pretrain an encoder with SimCLR.

    python train.py --train_dataset_path /data/cifar10 --encoder resnet18 --width_multiplier 0.25
"""
import os
import sys

from src import environment
from src.config import parse
from src.flags import TrainConfig
from src.logs import status_of


def main() -> None:
    config = parse(TrainConfig, description=__doc__)
    graphs = os.path.join(config.train_output_path, "graphs") if config.save_graphs else None
    device_target = environment.prepare(config.device_target, config.device_id, config.seed, graphs)
    from src.pretraining import pretrain  # imports MindSpore, so only now
    pretrain(config, device_target)


if __name__ == "__main__":
    sys.exit(status_of(main))

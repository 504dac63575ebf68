"""Evaluate an encoder with a linear classifier on its frozen representations.

    python linear_eval.py --encoder_checkpoint_path outputs/checkpoint/latest --train_dataset_path /data/cifar10
"""
import os
import sys

from src import environment
from src.config import parse
from src.flags import EvalConfig
from src.logs import status_of


def main() -> None:
    config = parse(EvalConfig, description=__doc__)
    graphs = os.path.join(config.train_output_path, "graphs") if config.save_graphs else None
    device_target = environment.prepare(config.device_target, config.device_id, config.seed, graphs)
    from src.linear_evaluation import evaluate  # imports MindSpore, so only now
    evaluate(config, device_target)


if __name__ == "__main__":
    sys.exit(status_of(main))

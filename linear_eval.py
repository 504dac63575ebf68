"""Evaluate an encoder with a linear classifier on its frozen representations.

    python linear_eval.py --encoder_checkpoint_path outputs/checkpoint/latest --train_dataset_path /data/cifar10
"""
import sys

from src.common.logs import status_of


def main() -> None:
    from src.distributed import environment
    from src.settings.encoder_flags import EvalConfig
    from src.settings.parsing import parse
    config = parse(EvalConfig, description=__doc__)
    process = environment.prepare(config.device_target, config.device_id, config.seed, config.graphs_folder,
                                  config.run_distribute, config.promised_devices)

    from src.tasks.evaluating import evaluate  # imports MindSpore, so only when the environment is set
    evaluate(config, process)


if __name__ == "__main__":
    sys.exit(status_of(main))

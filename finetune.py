"""Fine-tune a whole network with labels, all of them or few, or train it from random weights for comparison.

    python finetune.py --encoder_checkpoint_path outputs/checkpoint/latest --train_dataset_path /data/cifar10
"""
import sys

from src.common.logs import status_of


def main() -> None:
    from src.distributed import environment
    from src.settings.encoder_flags import FinetuneConfig
    from src.settings.parsing import parse
    config = parse(FinetuneConfig, description=__doc__)
    process = environment.prepare(config.device_target, config.device_id, config.seed, config.graphs_folder,
                                  config.run_distribute, config.promised_devices)

    from src.tasks.fine_tuning import fine_tune  # imports MindSpore, so only when the environment is set
    fine_tune(config, process)


if __name__ == "__main__":
    sys.exit(status_of(main))

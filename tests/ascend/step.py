"""Compile the train step of one device, or of one of several, by the lines of train.py, and go through it once.

    python tests/ascend/step.py --encoder resnet50      in a dry run; RANK_SIZE and RANK_ID for one of several devices
"""
import argparse
import os
import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent.parent.parent / "benchmarks"))
import common
from src.device import environment

SIDE = 32  # of the images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--head_batch_norm", default="True", choices=("True", "False"))
    parser.add_argument("--optimizer", default="Adam")
    parser.add_argument("--amp_level", default="O0")
    parser.add_argument("--batch_size", type=int, default=8, help="per device")
    parser.add_argument("--jit_level", help="by default what train.py takes")
    options = parser.parse_args()
    process = environment.prepare("Ascend", 0, distributed="RANK_SIZE" in os.environ, jit_level=options.jit_level)

    from mindspore import Tensor

    from src.settings.network import Network

    network = Network(options.encoder, image_size=SIDE, projection_dimension=common.DIMENSION,
                      head_batch_norm=options.head_batch_norm == "True")
    learner = common.learner(network, process, np.full(10, 1e-3, np.float32), options.optimizer, options.amp_level)
    learner.step(Tensor(np.zeros((2 * options.batch_size, 3, SIDE, SIDE), np.uint8)))
    print(f"{sum(parameter.size for parameter in learner.model.trainable_params())} parameters to train")


if __name__ == "__main__":
    main()

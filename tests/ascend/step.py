"""Compile the train step of one device, or of one of several, by the lines of train.py, and go through it once.

    python tests/ascend/step.py --encoder resnet50      in a dry run; RANK_SIZE and RANK_ID for one of several devices
"""
import argparse
import os

import numpy as np

from src.distributed import environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--width_multiplier", type=float, default=1.0)
    parser.add_argument("--stem", default="cifar")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--head_batch_norm", default="True", choices=("True", "False"))
    parser.add_argument("--optimizer", default="Adam")
    parser.add_argument("--amp_level", default="O0")
    parser.add_argument("--batch_size", type=int, default=8, help="per device")
    parser.add_argument("--jit_level", help="by default what train.py takes")
    options = parser.parse_args()
    process = environment.prepare("Ascend", 0, distributed="RANK_SIZE" in os.environ, jit_level=options.jit_level)

    from mindspore import Tensor

    from src.layers.batch_norm import batch_norm
    from src.nt_xent import NTXent
    from src.optimizer import build_optimizer
    from src.resnet import build_encoder
    from src.settings.network import Network
    from src.simclr_model import SimCLR, build_head
    from src.training.loop import learner_of

    network = Network(options.encoder, options.width_multiplier, options.stem, options.image_size,
                      projection_dimension=128, head_batch_norm=options.head_batch_norm == "True")
    norm = batch_norm(True, process)
    encoder = build_encoder(network, norm)
    model = SimCLR(encoder, build_head(encoder.features, network, norm))
    loss = NTXent(0.5, process.rank, process.world_size)
    rates = np.full(10, 1e-3, np.float32)
    optimizer = build_optimizer(options.optimizer, model.trainable_params(), rates, 1e-4)
    step = learner_of(model, loss, optimizer, rates, options.amp_level, process.world_size).step
    step.set_train()
    views = Tensor(np.zeros((2 * options.batch_size, 3, options.image_size, options.image_size), np.uint8))
    step(views)
    print(f"{sum(parameter.size for parameter in model.trainable_params())} parameters to train")


if __name__ == "__main__":
    main()

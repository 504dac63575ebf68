"""Settings from checkpoints that are older than the choice of a stem: their weights do not tell the stride."""
from pathlib import Path

import pytest

from src.common.errors import UserError
from src.evaluation import results
from src.run.checkpoint import Checkpoint
from src.settings.encoder_flags import EvalConfig, FinetuneConfig
from src.settings.flags import TrainConfig
from src.settings.parsing import parse
from src.tasks import beginning

SETTINGS = {"dataset_name": "cifar10", "encoder": "resnet18", "width_multiplier": 1.0, "projection_dimension": 128,
            "head_batch_norm": False, "normalize": False, "batch_size": 128}


def resumed(settings, *flags):
    source = Checkpoint(Path("a.ckpt"), {}, {"settings": settings})
    return beginning.resolve(parse(TrainConfig, ["--resume", "--encoder", "resnet18", *flags]), source, None, 1)


def pretrained(settings, *flags):
    source = Checkpoint(Path("a.ckpt"), {}, {"settings": settings})
    return beginning.resolve(parse(TrainConfig, ["--encoder", "resnet18", *flags]), None, source, 1)


def evaluated(config_class):
    def resolve(settings, *flags):
        config = parse(config_class, ["--encoder_checkpoint_path", "a.ckpt", *flags])
        return results.resolve(config, Checkpoint(Path("a.ckpt"), {}, {"settings": settings}))
    return resolve


@pytest.mark.parametrize("resolve", [resumed, pretrained, evaluated(EvalConfig), evaluated(FinetuneConfig)])
def test_the_stem_is_that_of_the_images_unless_the_checkpoint_says_otherwise(resolve):
    assert resolve(SETTINGS).stem == resolve(SETTINGS, "--stem", "cifar").stem == "cifar"
    with pytest.raises(UserError, match="--stem: got strided, but a.ckpt was made with cifar"):
        resolve(SETTINGS, "--stem", "strided")
    assert resolve({**SETTINGS, "stem": "strided"}).stem == "strided"
    with pytest.raises(UserError, match="--stem: got cifar, but a.ckpt was made with strided"):
        resolve({**SETTINGS, "stem": "strided"}, "--stem", "cifar")

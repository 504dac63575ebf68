"""The train step of one of several devices, compiled in a dry run for the first of them and for the last."""
import re

import pytest
from ascend import budgets

pytestmark = pytest.mark.long

# To be reached on eight devices, beside the budget: every collective is a wait for the slowest of them.
MOST_COLLECTIVES, MOST_OF_GRADIENTS = 120, 8
# Batch norm's kernel in the text of a graph: its inputs, and their types.
UPDATE = re.compile(r"= BNTrainingUpdate\((.*?)\) \{.*\n +: \((.*)\) -> ")
WIDTHS = [*5 * (64, 128, 256, 512), 512]  # of resnet18 and of the head
ON_SEVERAL = [name for name, (_, devices) in budgets.CONFIGURATIONS.items() if devices > 1]


@pytest.mark.parametrize("name", ON_SEVERAL)
def test_a_step(compiled, name):
    run = compiled(name)
    assert run.on_cpu == []
    budgets.check(name, run)
    count = budgets.cost(run)["collectives"]
    assert count["total"] <= MOST_COLLECTIVES
    assert count["gradients"] <= MOST_OF_GRADIENTS
    assert count.keys() == {"gradients", "batch norm", "negatives", "totals", "total"}
    # Every gradient is summed once, in float32.
    (parameters,) = re.findall(r"^(\d+) parameters to train$", run.said, re.M)
    assert sum(one.bytes for one in run.collectives if one.purpose == "gradients") == 4 * int(parameters)


def test_ranks_do_the_same(compiled):
    first, last = (compiled("resnet18 Adam O2, 8 devices", rank) for rank in (0, budgets.DEVICES - 1))
    assert first.kernels == last.kernels
    assert first.collectives == last.collectives
    assert last.on_cpu == []


@pytest.mark.parametrize("level, images", [("O0", 32), ("O3", 16)])
def test_statistics_are_of_all_ranks_in_float32_and_are_those_that_are_saved(stand_ins, level, images):
    """Sums go between the ranks in float32; the kernel takes images in whatever they are in, everything else in
    float32, and the running statistics as the parameters themselves, which it updates, not as copies."""
    run = budgets.step(stand_ins, f"--encoder resnet18 --batch_size 2 --amp_level {level}", budgets.DEVICES)
    assert run.status == 0, run.said
    found = UPDATE.findall(run.graph)
    assert len(found) == len(WIDTHS)
    for inputs, types in found:
        assert re.search(r", %para\d+_(\S+)\.moving_mean, %para\d+_\1\.moving_variance,", inputs), inputs
        assert re.findall(r"Tensor\[Float(\d+)\]", types) == [str(images)] + 6 * ["32"]
    sent = [found for found in run.collectives if found.purpose == "batch norm"]
    assert len(sent) == 2 * len(WIDTHS)  # forward and backward
    assert sorted(found.bytes for found in sent) == sorted(2 * [2 * 4 * width for width in WIDTHS])

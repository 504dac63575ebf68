"""The train step of one device, compiled in a dry run: no operator on the CPU, no more kernels than the budgets say.

ResNet-18 alone, in seconds. ResNet-50 is tested on eight devices; what it takes on one, write_budgets.py shows by hand.
"""
import pytest
from ascend import budgets

pytestmark = pytest.mark.long

ALONE = [name for name, (_, devices) in budgets.CONFIGURATIONS.items() if devices == 1 and "resnet18" in name]


@pytest.mark.parametrize("name", ALONE)
def test_a_step(compiled, name):
    run = compiled(name)
    assert run.on_cpu == []
    budgets.check(name, run)

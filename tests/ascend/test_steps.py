"""The train step of one device, compiled in a dry run: no operator on the CPU, no more kernels than the budgets say."""
import pytest
from ascend import budgets

pytestmark = pytest.mark.long

ALONE = [name for name, (_, devices) in budgets.CONFIGURATIONS.items() if devices == 1]


@pytest.mark.parametrize("name", ALONE)
def test_a_step(compiled, name):
    run = compiled(name)
    assert run.on_cpu == []
    budgets.check(name, run)

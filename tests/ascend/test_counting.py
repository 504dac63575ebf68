"""How what a dry run has compiled is counted, and told: without one."""
import pytest
from ascend import budgets, dry_run

LOG = """\
[INFO] DEVICE(1,7f,python):2026-01-01-00:00:00.000.000 [a.cc:175] GenerateKernelMod] kernel opname:Mul, kernel type:opapi_kernel
[INFO] DEVICE(1,7f,python):2026-01-01-00:00:00.000.000 [a.cc:175] GenerateKernelMod] kernel opname:Reshape, kernel type:rt_kernel
[INFO] DEVICE(1,7f,python):2026-01-01-00:00:00.000.000 [a.cc:175] GenerateKernelMod] kernel opname:Reshape, kernel type:rt_kernel
what the program says
[INFO] DEVICE(1,7f,python):2026-01-01-00:00:00.000.000 [b.cc:240] TryBackoffCpu] Try to use backoff CPU kernel, node:Default/net/Cholesky-op0
[INFO] RUNTIME_FRAMEWORK(1,7f,python):2026-01-01-00:00:00.000.000 [c.cc:184] OptimizeNopNode] The reference relation of nopnode \
Default/a/Reshape-op0, index: 0 to input Default/a/Mul-op0, index: 0
"""  # noqa: E501


def test_a_log_is_counted():
    """A Reshape that has the memory of its input is made and not launched; the other copies."""
    found = dry_run.counted(0, LOG)
    assert found.kernels == {"Mul": 1, "Reshape": 1} and found.views == {"Reshape": 1}
    assert found.on_cpu == ["Default/net/Cholesky-op0"]
    assert found.said == "what the program says\n"


GRAPH = """\
  %7(CNode_1) = AllReduce(%6, %5) primitive_attrs: {group: "hccl_world_group", fusion: I64(1), op: "sum"}
      : (<Tensor[Float32], (64, 3)>, <Tensor[Float16], ()>) -> (<Tensor[Float32], (64, 3)>, <Tensor[Float16], ()>)
      : (<Float32xDefaultFormat[const vector]{64}>) -> (<Float32xDefaultFormat[const vector]{64}>)
      # Fullname with scope: (Default/AllReduce-op0)
"""
COLLECTIVE_LOG = "GenerateKernelMod] kernel opname:AllReduce, kernel type:hccl_kernel\n"


def test_collectives_are_read_from_a_graph():
    assert dry_run.counted(0, COLLECTIVE_LOG, GRAPH).collectives == [("AllReduce", "gradients", 4 * 64 * 3 + 2, 2)]
    with pytest.raises(ValueError, match="of 2 collectives 1 could be read"):
        dry_run.counted(0, 2 * COLLECTIVE_LOG, GRAPH)


@pytest.mark.parametrize("scope, fused, purpose", [
    ("Default/model-SimCLR/encoder-ResNet/bn1-SyncBatchNorm/AllReduce-op0", False, "batch norm"),
    ("Gradients/Default/loss-NTXent/gather-Gather/AllReduce-op0", False, "negatives"),
    ("Default/optimizer-Adam/AllReduce-op3", True, "gradients"),
    ("Default/average-Mean/AllReduce-op0", False, "totals"), ("Default/AllReduce-op0", False, "other")])
def test_what_a_collective_is_for(scope, fused, purpose):
    assert dry_run.purpose_of(scope, fused, 1) == purpose


def test_a_difference_is_told_in_words():
    budget = {"kernels": {"total": 12, "Cast": 5, "Mul": 7}, "collectives": {"total": 2, "gradients": 2}}
    assert budgets.differences(budget, budget) == ([], [])
    swapped = {**budget, "kernels": {"total": 12, "Cast": 5, "Mul": 6, "Muls": 1}}
    assert budgets.differences(swapped, budget) == (
        ["12 kernels, as many as the budget of 12: -1 Mul (6 instead of 7), +1 Muls (1 instead of 0)"], [])
    found = {"kernels": {"total": 17, "Cast": 9, "Mul": 6, "Add": 2}, "collectives": {"total": 1, "gradients": 1}}
    assert budgets.differences(found, budget) == (
        ["17 kernels, 5 more than the budget of 12: +2 Add (2 instead of 0), +4 Cast (9 instead of 5), "
         "-1 Mul (6 instead of 7)"],
        ["1 collectives, 1 fewer than the budget of 2: -1 gradients (1 instead of 2)"])

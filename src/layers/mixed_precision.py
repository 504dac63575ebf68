"""Mixed precision (``--amp_level``): what is computed in float16, and the scale that keeps gradients within its range.

Parameters stay float32 under their own names at every level, so a checkpoint serves all of them, and the
contrastive loss computes in float32 whatever it is given.
"""
from mindspore import amp, get_context, nn
from mindspore import dtype as mstype

from src.layers.batch_norm import GlobalBatchNorm

FIRST_SCALE = 2**16
GROWTH_INTERVAL = 2000  # steps without overflow after which the scale is doubled


def in_float16(model: nn.Cell, level: str) -> nn.Cell:
    """Return ``model``, changed in place, for the level: its output is float32.

    Ascend's kernels of batch norm take float16 images, compute in float32 and update float32 statistics, so there it is
    left to them at both levels. Elsewhere O2 has every batch norm in float32 and O3 only the one over the global
    batch, whose sums overflow float16.

    Args:
        model: the network; its parameters keep names and types.
        level: O2 or O3.
    """
    on_ascend = get_context("device_target") == "Ascend"
    network = amp.auto_mixed_precision(model, "O3" if on_ascend else level)
    for _, cell in model.cells_and_names():
        if on_ascend and isinstance(cell, nn.BatchNorm2d):
            cell.add_flags_recursive(fp16=False)
        elif isinstance(cell, GlobalBatchNorm):
            cell.to_float(mstype.float32)
    return network


def loss_scaler() -> amp.DynamicLossScaler:
    """Return the loss scale: halved by every overflow, doubled after ``GROWTH_INTERVAL`` steps without one."""
    scaler = amp.DynamicLossScaler(FIRST_SCALE, scale_factor=2, scale_window=GROWTH_INTERVAL)
    scaler.scale_value.name = "loss_scale"  # their names in a checkpoint
    scaler.counter.name = "loss_scale_counter"
    return scaler

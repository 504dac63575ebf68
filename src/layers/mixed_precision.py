"""Mixed precision (``--amp_level``) in float16, and the loss scale that keeps gradients within its range.

Parameters stay float32 under their own names, so every level can load every checkpoint. The loss is always in float32.
"""
from mindspore import amp, get_context, nn
from mindspore import dtype as mstype

from src.layers.batch_norm import GlobalBatchNorm

FIRST_SCALE = 2**16
GROWTH_INTERVAL = 2000  # steps without overflow after which the scale is doubled


def in_float16(model: nn.Cell, level: str) -> nn.Cell:
    """Return ``model``, which is changed in place, for ``level``, O2 or O3. Its output is float32."""
    on_ascend = get_context("device_target") == "Ascend"
    network = amp.auto_mixed_precision(model, "O3" if on_ascend else level)
    for _, cell in model.cells_and_names():
        if on_ascend and isinstance(cell, nn.BatchNorm2d):
            # Ascend's kernels take float16 images, compute in float32 and update float32 statistics: no casts.
            cell.add_flags_recursive(fp16=False)
        elif isinstance(cell, GlobalBatchNorm):
            cell.to_float(mstype.float32)  # at O3 too, for its sums overflow float16
    return network


def loss_scaler() -> amp.DynamicLossScaler:
    """Return the loss scale: halved by every overflow, doubled after ``GROWTH_INTERVAL`` steps without one."""
    scaler = amp.DynamicLossScaler(FIRST_SCALE, scale_factor=2, scale_window=GROWTH_INTERVAL)
    scaler.scale_value.name = "loss_scale"  # their names in a checkpoint
    scaler.counter.name = "loss_scale_counter"
    return scaler

"""A ResNet in inference mode in NumPy float64, to compare encoders with."""
import numpy as np

from src.resnet import ENCODERS


def convolve(x, weight, stride):
    pad = weight.shape[2] // 2
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", windows, weight, optimize=True)


class Reference:
    """A ResNet in inference mode, float64, with the parameters of a MindSpore one."""

    def __init__(self, encoder, name, stem):
        self.parameters = {p.name: p.asnumpy().astype(np.float64) for p in encoder.get_parameters()}
        self.depths = ENCODERS[name][1]
        self.convolutions = 2 if name in ("resnet18", "resnet34") else 3
        self.stem = stem

    def norm(self, x, name):
        gamma, beta, mean, variance = (self.parameters[f"{name}.{part}"][:, None, None]
                                       for part in ("gamma", "beta", "moving_mean", "moving_variance"))
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    def block(self, x, name, stride):
        strided = 1 if self.convolutions == 2 else 2  # torchvision: the stride is at the first 3x3 convolution
        out = x
        for index in range(1, self.convolutions + 1):
            out = convolve(out, self.parameters[f"{name}.conv{index}.weight"], stride if index == strided else 1)
            out = self.norm(out, f"{name}.bn{index}")
            if index < self.convolutions:
                out = np.maximum(out, 0)
        if f"{name}.downsample.0.weight" in self.parameters:
            x = self.norm(convolve(x, self.parameters[f"{name}.downsample.0.weight"], stride), f"{name}.downsample.1")
        return np.maximum(out + x, 0)

    def __call__(self, images):
        x = convolve(images.astype(np.float64) / 255, self.parameters["conv1.weight"], 1 if self.stem == "cifar" else 2)
        x = np.maximum(self.norm(x, "bn1"), 0)
        if self.stem == "imagenet":
            x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
            x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))[:, :, ::2, ::2].max((4, 5))
        for stage, depth in enumerate(self.depths):
            for index in range(depth):
                x = self.block(x, f"layer{stage + 1}.{index}", 2 if stage and not index else 1)
        return x.mean((2, 3))

"""The augmentation of ``src/data/views.py`` in PyTorch, for whole batches on their device.

The random numbers are drawn on the CPU, a handful per image, so that a seed means the same on every device
and no step waits for the device to answer. Pixels are floats in [0, 1] in between and are rounded once at
the end; the pipeline of ``src/`` rounds after every operation.
"""
import math
from typing import Tuple

import torch
from torch import Tensor

import common  # noqa: F401 - first: it lets `src` be found from any folder
from src.settings.augmentation import PAPER_SMALL

ASPECT_RATIOS = (3 / 4, 4 / 3)
ATTEMPTS = 10  # at a crop that fits into the image; the whole image where none does
JITTER_PROBABILITY = 0.8
LUMINANCE = (0.299, 0.587, 0.114)


def augment(images: Tensor, generator: torch.Generator, crop_min_scale: float = PAPER_SMALL.crop_min_scale,
            flip_probability: float = PAPER_SMALL.flip_probability,
            jitter_strength: float = PAPER_SMALL.jitter_strength,
            grayscale_probability: float = PAPER_SMALL.grayscale_probability) -> Tensor:
    """Change every image at random: cropped and resized, flipped, its colours jittered, without colour.

    Args:
        images: uint8 (N, 3, side, side), on any device.
        generator: of the CPU.
        crop_min_scale: smallest share of the area that a crop keeps.
        flip_probability: of a horizontal flip.
        jitter_strength: s; brightness, contrast and saturation within 0.8 s, hue within 0.2 s.
        grayscale_probability: of an image without colour.

    Returns:
        uint8 (N, 3, side, side), on the device of ``images``.
    """
    count, side = len(images), images.shape[-1]
    left, top, width, height = crop_boxes(count, side, crop_min_scale, generator)
    flipped = torch.rand(count, generator=generator) < flip_probability
    x = resized_crops(images.float() / 255, left, top, width, height, flipped)
    if jitter_strength:
        jitter(x, jitter_strength, generator)
    rows = torch.nonzero(torch.rand(count, generator=generator) < grayscale_probability).flatten().to(x.device)
    x[rows] = luminance(x[rows]).expand(-1, 3, -1, -1)
    return (x * 255).round().to(torch.uint8)


def crop_boxes(count: int, side: int, min_scale: float, generator: torch.Generator) -> Tuple[Tensor, ...]:
    """Draw ``count`` crops of a square image: left, top, width, height in whole pixels, each (count,).

    The share of the area is uniform in [min_scale, 1], the logarithm of the aspect ratio is uniform, and
    what does not fit is drawn again.
    """
    area = side**2 * torch.empty(count, ATTEMPTS).uniform_(min_scale, 1, generator=generator)
    low, high = (math.log(ratio) for ratio in ASPECT_RATIOS)
    ratio = torch.empty(count, ATTEMPTS).uniform_(low, high, generator=generator).exp()
    widths, heights = (area * ratio).sqrt().round().clamp(min=1), (area / ratio).sqrt().round().clamp(min=1)
    fits = (widths <= side) & (heights <= side)
    first = fits.int().argmax(1, keepdim=True)
    width, height = (torch.where(fits.any(1), lengths.gather(1, first)[:, 0], float(side))
                     for lengths in (widths, heights))
    left, top = ((torch.rand(count, generator=generator) * (side - length + 1)).floor() for length in (width, height))
    return left, top, width, height


def resized_crops(x: Tensor, left: Tensor, top: Tensor, width: Tensor, height: Tensor, flipped: Tensor) -> Tensor:
    """Crop x (N, 3, side, side) and resize the crops back to ``side``, bilinear; mirror where ``flipped``."""
    rows, columns = bilinear(top, height, x), bilinear(left, width, x)
    columns = torch.where(flipped.to(x.device)[:, None, None], columns.flip(1), columns)
    return rows[:, None] @ x @ columns[:, None].transpose(2, 3)


def bilinear(start: Tensor, length: Tensor, x: Tensor) -> Tensor:
    """Return (N, side, side): what each pixel inside the crop, along one axis, gives to each new pixel."""
    start, length = start.to(x.device)[:, None], length.to(x.device)[:, None]
    pixels = torch.arange(x.shape[-1], device=x.device)
    position = (pixels + 0.5) * length / len(pixels) - 0.5
    position = start + torch.minimum(position.clamp(min=0), length - 1)
    return (1 - (position[:, :, None] - pixels).abs()).clamp(min=0)


def jitter(x: Tensor, strength: float, generator: torch.Generator) -> None:
    """Change the colours of x (N, 3, side, side) in place, of most images and in an order of their own."""
    count, s = len(x), 0.8 * strength
    jittered = torch.rand(count, generator=generator) < JITTER_PROBABILITY
    order = torch.rand(count, len(ADJUSTMENTS), generator=generator).argsort(1)
    factors = torch.empty(count, len(ADJUSTMENTS)).uniform_(-1, 1, generator=generator)
    factors = 1 + s * factors[:, :3], 0.2 * strength * factors[:, 3:]
    factors = torch.cat([factors[0].clamp(min=0), factors[1]], 1)
    for turn in range(len(ADJUSTMENTS)):
        for number, adjust in enumerate(ADJUSTMENTS):
            rows = torch.nonzero(jittered & (order[:, turn] == number)).flatten()
            factor = factors[rows, number].to(x.device)[:, None, None, None]
            rows = rows.to(x.device)
            x[rows] = adjust(x[rows], factor)


def luminance(x: Tensor) -> Tensor:
    """x (N, 3, side, side) -> gray (N, 1, side, side)."""
    return (x * x.new_tensor(LUMINANCE).view(1, 3, 1, 1)).sum(1, keepdim=True)


def blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (other + factor * (x - other)).clamp(0, 1)


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    return (x * factor).clamp(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    return blend(x, luminance(x).mean((2, 3), keepdim=True), factor)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    return blend(x, luminance(x), factor)


def hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by ``shift`` of a full circle; saturation and value in the sense of HSV stay."""
    value, low = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    chroma = value - low
    red, green, blue = x.split(1, 1)
    scale = chroma.clamp(min=1e-12)
    angle = torch.where(value == red, (green - blue) / scale,
                        torch.where(value == green, 2 + (blue - red) / scale, 4 + (red - green) / scale))
    # each channel falls linearly with the distance of its own corner of the colour circle
    k = (x.new_tensor((5, 3, 1)).view(1, 3, 1, 1) + angle + 6 * shift) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


ADJUSTMENTS = (brightness, contrast, saturation, hue)

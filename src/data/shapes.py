"""`shapes`: a generated data set of ten classes, for machines with no data and no network.

A class is a shape or a texture. Colour, position, size, angle, brightness and noise do not depend on it. There are few
colours, so that a network cannot tell images apart by colour alone and has to learn the shapes.
"""
from pathlib import Path
from typing import Callable, Dict

import numpy as np

from src.common.files import write_text
from src.data.cifar import CIFAR10_FILES, NAMES, SIDE, write_file
from src.data.formats import DataSet
from src.data.images import Images

Mask = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Each takes coordinates, centred, rotated and in units of the shape's size, and tells which are inside.
CLASSES: Dict[str, Mask] = {
    "disc": lambda x, y: np.hypot(x, y) < 0.9,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.8,
    "triangle": lambda x, y: (y > -0.6) & (y < 1 - 1.8 * abs(x)),
    "ring": lambda x, y: abs(np.hypot(x, y) - 0.7) < 0.25,
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.28) & (np.maximum(abs(x), abs(y)) < 1),
    "star": lambda x, y: np.hypot(x, y) < 0.65 + 0.35 * np.cos(5 * np.arctan2(y, x)),
    "bar": lambda x, y: (abs(y) < 0.3) & (abs(x) < 1.2),
    "stripes": lambda x, y: np.sin(4.5 * x) > 0,
    "checkers": lambda x, y: np.sin(4.5 * x) * np.sin(4.5 * y) > 0,
    "dots": lambda x, y: np.cos(5 * x) + np.cos(5 * y) > 1,
}
COLOURS = np.array([(190, 40, 40), (30, 120, 60), (40, 60, 180), (70, 70, 70)], np.float32)
PAPER = np.array((240, 238, 225), np.float32)
IMAGES = {"train": 10_000, "test": 2_000}


def draw(count: int, seed: int) -> Images:
    """Draw ``count`` images, the classes in turn."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int32) % len(CLASSES)
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    size = rng.uniform(8, 12, (count, 1, 1))
    centre = rng.uniform(12, SIDE - 12, (2, count, 1, 1))
    angle = rng.uniform(-0.4, 0.4, (count, 1, 1))
    dx, dy = (columns - centre[0]) / size, (rows - centre[1]) / size
    x = np.cos(angle) * dx + np.sin(angle) * dy
    y = np.cos(angle) * dy - np.sin(angle) * dx
    inside = np.empty((count, SIDE, SIDE), bool)
    for label, mask in enumerate(CLASSES.values()):
        inside[labels == label] = mask(x[labels == label], y[labels == label])
    colour = COLOURS[rng.integers(0, len(COLOURS), (count, 1, 1))]
    paper = PAPER * rng.uniform(0.75, 1, (count, 1, 1, 1))
    pixels = np.where(inside[..., None], colour, paper) + rng.normal(0, 12, (count, SIDE, SIDE, 3))
    return Images(pixels.clip(0, 255).astype(np.uint8), labels)


def write(folder: Path) -> None:
    """Generate the data set into ``folder``. Every call writes the same files, each of them whole."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / NAMES, "\n".join(CLASSES) + "\n")
    for seed, (split, name) in enumerate({"train": "data_batch_1.bin", "test": "test_batch.bin"}.items()):
        write_file(folder / name, draw(IMAGES[split], seed))


SHAPES = DataSet(CIFAR10_FILES._replace(train_files=1), tuple(CLASSES), SIDE, (0.5, 0.5, 0.5), (0.29, 0.29, 0.29),
                 generate=write)

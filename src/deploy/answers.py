"""What predict.py makes of a model's answers: lines of a table or of JSON, a file with features, a picture."""
import csv
import json
import os
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from src.common.errors import UserError, printable
from src.common.files import writing, written_whole
from src.data.any_image import read_image
from src.deploy.predicting import Answer, ImageFile
from src.deploy.signature import Signature
from src.evaluation.knn import unit_rows

TOP = 3      # most likely classes that are shown
NEAREST = 5  # most similar images that are shown
TILE, GAP, TEXT = 96, 8, 12  # of a picture, in pixels: an image, the space between two, letters
ROWS = 50    # of a picture
NO_IMAGES = "IMAGE: none of the images can be read; name others"


class Interpretation(NamedTuple):
    """The most likely classes with their probabilities, and the most similar images with their cosines."""

    classes: List[Tuple[str, float]]
    neighbours: List[Tuple[ImageFile, float]]


class Neighbours:
    """The images of a folder with their features, among which neighbours are searched."""

    def __init__(self, answers: Iterable[Answer]):
        self.images, features = _collected(answers)
        if not self.images:
            raise UserError("--neighbours: none of the images in the folder can be read; name another folder")
        self.paths = [os.path.realpath(image.file) for image in self.images]
        self.rows = unit_rows(features)

    def of(self, answer: Answer) -> List[Tuple[ImageFile, float]]:
        """Return the images with the most similar features and their cosines, without the image itself."""
        cosines = self.rows @ unit_rows(answer.features[None])[0]
        own = os.path.realpath(answer.image.file)
        count = min(NEAREST + 1, len(cosines))
        largest = np.argpartition(-cosines, count - 1)[:count]
        nearest = (number for number in largest[np.argsort(-cosines[largest])] if self.paths[number] != own)
        return [(self.images[number], float(cosines[number])) for number in nearest][:NEAREST]


def interpret(answer: Answer, about: Signature, neighbours: Optional[Neighbours]) -> Interpretation:
    """Return the names of the most likely classes, and the neighbours, of an image."""
    classes = []
    if answer.probabilities is not None:
        unnamed = range(len(about.classes), len(answer.probabilities))
        names = [*about.classes, *(f"class {number}" for number in unnamed)]
        likely = np.argsort(-answer.probabilities, kind="stable")[:TOP]
        classes = [(names[number], float(answer.probabilities[number])) for number in likely]
    return Interpretation(classes, neighbours.of(answer) if neighbours else [])


def as_text(answer: Answer, meaning: Interpretation, file_width: int, class_width: int) -> str:
    """Return the lines of a table: the image with its classes, and below it its neighbours."""
    classes = "".join(f"  {printable(name):<{class_width}} {100 * share:5.1f} %" for name, share in meaning.classes)
    lines = [f"{printable(str(answer.image.file)):<{file_width}}{classes}".rstrip()]
    lines += [f"    {cosine:6.3f}  {printable(str(image.file))}" for image, cosine in meaning.neighbours]
    return "\n".join(lines) + "\n"


def as_json(answer: Answer, meaning: Interpretation) -> str:
    """Return a line with a JSON object."""
    result: Dict[str, Any] = {"file": str(answer.image.file)}
    if meaning.classes:
        result["classes"] = [{"class": name, "probability": round(share, 6)} for name, share in meaning.classes]
    if meaning.neighbours:
        result["neighbours"] = [{"file": str(image.file), "cosine": round(cosine, 6)}
                                for image, cosine in meaning.neighbours]
    return json.dumps(result) + "\n"


def _collected(answers: Iterable[Answer]) -> Tuple[List[ImageFile], np.ndarray]:
    """Return the images and their features (images, features)."""
    # Without the pixels, which would fill the memory.
    images_with_features = [(answer.image, answer.features) for answer in answers]
    return ([image for image, _ in images_with_features],
            np.array([features for _, features in images_with_features], np.float32))


def check_place(path: Optional[Path], flag: str) -> None:
    """Raise UserError if a file cannot be written, before the work for it begins."""
    if path is not None and (os.path.isdir(path) or not os.access(path.parent, os.W_OK)):
        raise UserError(f"--{flag}: cannot write to {path}; name a file in an existing folder that can be written")


def write_features(path: Path, answers: Iterable[Answer]) -> Tuple[int, ...]:
    """Write features with file names, and with labels if folders are classes, as .npz or .csv, whole or not at all.

    Returns the shape of the features, (images, features). Raises a UserError where no image can be read.
    """
    images, features = _collected(answers)
    if not images:
        raise UserError(NO_IMAGES)
    files = [str(image.file) for image in images]
    labels = {"labels": [image.label for image in images]} if any(image.label for image in images) else {}
    with writing("features", path, "a file that can be written"), written_whole(path) as temporary:
        if path.suffix == ".npz":
            with temporary.open("wb") as stream:  # given a name, NumPy would add its suffix
                np.savez(stream, features=features, files=files, **labels)
        else:
            with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as text:
                table = csv.writer(text, lineterminator="\n")
                table.writerow(["file", *(["label"] if labels else []), *(f"f{i}" for i in range(features.shape[1]))])
                for file, *label, row in zip(files, *labels.values(), features):
                    table.writerow([file, *label, *(f"{value:.9g}" for value in row)])
    return features.shape


def write_picture(path: Path, shown: Sequence[Tuple[Answer, Interpretation]], about: Signature) -> None:
    """Draw images as the network has seen them, with their classes and their neighbours, as a PNG file."""
    font = ImageFont.load_default(TEXT)
    columns = 1 + max(len(meaning.neighbours) for _, meaning in shown)
    class_width = 2 * TILE if any(meaning.classes for _, meaning in shown) else 0
    picture = Image.new("RGB", ((TILE + GAP) * columns + class_width + GAP, (TILE + 2 * TEXT) * len(shown) + GAP),
                        "white")
    pen = ImageDraw.Draw(picture)

    def draw_tile(pixels: np.ndarray, left: int, top: int, text: str) -> None:
        picture.paste(Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.LANCZOS), (left, top))
        pen.text((left, top + TILE + 1), _fitted(text, font, TILE), "black", font)

    for row, (answer, meaning) in enumerate(shown):
        top = GAP + row * (TILE + 2 * TEXT)
        draw_tile(answer.pixels, GAP, top, answer.image.file.name)
        for line, (name, share) in enumerate(meaning.classes):
            text = _fitted(f"{100 * share:.1f} %  {name}", font, class_width - GAP)
            pen.text((GAP + TILE + GAP, top + TILE // 4 + line * (TEXT + 6)), text,
                     "black" if line == 0 else "dimgray", font)
        for column, (image, cosine) in enumerate(meaning.neighbours, 1):
            draw_tile(read_image(image.file, about.shorter_edge, about.side),
                      GAP + class_width + column * (TILE + GAP), top, f"{cosine:.2f}  {image.label or image.file.name}")
    with writing("picture", path, "a file that can be written"), written_whole(path) as temporary:
        picture.save(temporary, "PNG", optimize=True)


def _fitted(text: str, font: Any, width: int) -> str:
    """Return the beginning of a text that is no wider than ``width`` pixels."""
    text = printable(text)
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text

"""What predict.py makes of a model's answers: lines of a table or of JSON, a file of features, a picture."""
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
from src.deploy.predicting import Answer, Found
from src.deploy.signature import Signature
from src.evaluation.knn import unit_rows

TOP = 3      # classes that are told
NEAREST = 5  # images that are told
TILE, GAP, TEXT = 96, 8, 12  # pixels, on a picture: an image, what is between two, letters
ROWS = 50    # of a picture
NONE = "IMAGE: none of the images can be read; name others"


class Told(NamedTuple):
    """An answer in words: the likely classes with their probabilities, and the nearest images with their cosines."""

    classes: List[Tuple[str, float]]
    nearest: List[Tuple[Found, float]]


class Neighbours:
    """The images of a folder with their features, to find those that lie next to others.

    Args:
        answers: of a model, for the images of the folder, at ``most`` so many, with features of that ``width``.
    """

    def __init__(self, answers: Iterable[Answer], most: int, width: int):
        self.images, rows = _collected(answers, most, width)
        if not self.images:
            raise UserError("--neighbours: none of the images there can be read; name another folder")
        self.places = [os.path.realpath(found.file) for found in self.images]
        self.rows = unit_rows(rows)

    def of(self, answer: Answer) -> List[Tuple[Found, float]]:
        """Return the nearest, by the cosine of the features; the image itself does not count."""
        cosines = self.rows @ unit_rows(answer.features[None])[0]
        own = os.path.realpath(answer.found.file)
        count = min(NEAREST + 1, len(cosines))
        likely = np.argpartition(-cosines, count - 1)[:count]
        nearest = (number for number in likely[np.argsort(-cosines[likely])] if self.places[number] != own)
        return [(self.images[number], float(cosines[number])) for number in nearest][:NEAREST]


def told(answer: Answer, about: Signature, neighbours: Optional[Neighbours]) -> Told:
    """Put an answer into words."""
    classes = []
    if answer.probabilities is not None:
        names = [*about.classes, *(f"class {number}" for number in range(len(about.classes),
                                                                         len(answer.probabilities)))]
        likely = np.argsort(-answer.probabilities, kind="stable")[:TOP]
        classes = [(names[number], float(answer.probabilities[number])) for number in likely]
    return Told(classes, neighbours.of(answer) if neighbours else [])


def as_text(answer: Answer, words: Told, file_width: int, class_width: int) -> str:
    """Return the lines of a table: the image with its classes, and below it its neighbours."""
    classes = "".join(f"  {printable(name):<{class_width}} {100 * share:5.1f} %" for name, share in words.classes)
    lines = [f"{printable(str(answer.found.file)):<{file_width}}{classes}".rstrip()]
    lines += [f"    {cosine:6.3f}  {printable(str(image.file))}" for image, cosine in words.nearest]
    return "\n".join(lines) + "\n"


def as_json(answer: Answer, words: Told) -> str:
    """Return an object on a line."""
    found: Dict[str, Any] = {"file": str(answer.found.file)}
    if words.classes:
        found["classes"] = [{"class": name, "probability": round(share, 6)} for name, share in words.classes]
    if words.nearest:
        found["neighbours"] = [{"file": str(image.file), "cosine": round(cosine, 6)} for image, cosine in words.nearest]
    return json.dumps(found) + "\n"


def _collected(answers: Iterable[Answer], most: int, width: int) -> Tuple[List[Found], np.ndarray]:
    """Return the images and their features (images, width), without the pixels, in memory once."""
    images, rows = [], np.empty((most, width), np.float32)
    for answer in answers:
        rows[len(images)] = answer.features
        images.append(answer.found)
    return images, rows[:len(images)]


def check_place(path: Optional[Path], flag: str) -> None:
    """Raise UserError where a file cannot be written, before it is worked for."""
    if path is not None and (os.path.isdir(path) or not os.access(path.parent, os.W_OK)):
        raise UserError(f"--{flag}: cannot write to {path}; name a file in a folder that is there and can be written")


def write_features(path: Path, answers: Iterable[Answer], most: int, width: int) -> Tuple[int, ...]:
    """Write the features with file names, and with labels where folders are classes, as .npz or .csv, whole.

    Args:
        path: of the file.
        answers: of a model, at ``most`` so many, with features of that ``width``.

    Returns:
        their shape, (images, features).

    Raises:
        UserError: the file cannot be written, or there is nothing to write.
    """
    images, features = _collected(answers, most, width)
    if not images:
        raise UserError(NONE)
    files, labels = [str(image.file) for image in images], [image.label for image in images]
    with writing("features", path, "a file that can be written"), written_whole(path) as temporary:
        if path.suffix == ".npz":
            with temporary.open("wb") as stream:
                np.savez(stream, features=features, files=np.array(files),
                         **({"labels": np.array(labels)} if any(labels) else {}))
        else:
            with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as text:
                rows, has_labels = csv.writer(text, lineterminator="\n"), any(labels)
                rows.writerow(["file", *["label"] * has_labels, *(f"f{place}" for place in range(features.shape[1]))])
                rows.writerows([file, *[label] * has_labels, *(f"{value:.9g}" for value in row)]
                               for file, label, row in zip(files, labels, features))
    return features.shape


def write_picture(path: Path, answers: Sequence[Tuple[Answer, Told]], about: Signature) -> None:
    """Draw images as the network has seen them with what it says of them, and their neighbours, as a PNG file.

    Raises:
        UserError: the file cannot be written.
    """
    font = ImageFont.load_default(TEXT)
    across = 1 + max(len(words.nearest) for _, words in answers)
    has_classes = any(words.classes for _, words in answers)
    width = (TILE + GAP) * across + 2 * TILE * has_classes + GAP
    whole = Image.new("RGB", (width, (TILE + 2 * TEXT) * len(answers) + GAP), "white")
    pen = ImageDraw.Draw(whole)

    def place(pixels: np.ndarray, left: int, top: int, text: str) -> None:
        tile = Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.LANCZOS)
        whole.paste(tile, (left, top))
        pen.text((left, top + TILE + 1), _fitted(text, font, TILE), "black", font)

    for row, (answer, words) in enumerate(answers):
        left, top = GAP, GAP + row * (TILE + 2 * TEXT)
        place(answer.pixels, left, top, answer.found.file.name)
        left += TILE + GAP
        for line, (name, share) in enumerate(words.classes):
            text = _fitted(f"{100 * share:.1f} %  {name}", font, 2 * TILE - GAP)
            pen.text((left, top + TILE // 4 + line * (TEXT + 6)), text, "black" if line == 0 else "dimgray", font)
        left += 2 * TILE * has_classes
        for image, cosine in words.nearest:
            seen = read_image(image.file, about.shorter_edge, about.side)
            place(seen, left, top, f"{cosine:.2f}  {image.label or image.file.name}")
            left += TILE + GAP
    with writing("picture", path, "a file that can be written"), written_whole(path) as temporary:
        whole.save(temporary, "PNG", optimize=True)


def _fitted(text: str, font: Any, width: int) -> str:
    """Return as much of a text as has room, in characters that can be drawn."""
    text = printable(text)
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text

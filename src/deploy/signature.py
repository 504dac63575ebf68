"""The signature of an exported model: what it takes and what it gives. Whoever has the file needs nothing else."""
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional, Tuple

import numpy as np

from src.common.errors import UserError
from src.common.files import reading, reason_of, sha256_of, write_text

KEY = "simclr"  # where the metadata of an ONNX file has the signature, as JSON
UINT8, FLOAT32 = "uint8", "float32"  # pixels are red, green, blue, from 0 to 255, or from 0 to 1
AGAIN = "export it again with export.py"


@dataclass(frozen=True)
class Signature:
    """A model takes images (batch_size, 3, side, side) and gives class probabilities, if it has classes, and features.

    Before the middle of an image is cut out, its shorter edge is resized to ``shorter_edge`` by linear interpolation
    between neighbouring pixels.
    """

    dtype: str                         # of the images, UINT8 or FLOAT32
    side: int                          # of the images, in pixels
    shorter_edge: int                  # in pixels
    batch_size: int                    # images in a call
    features: int                      # width of the representations h (batch_size, features)
    classes: Optional[Tuple[str, ...]]  # of the first probabilities (batch_size, classes); None without a classifier
    dataset_name: str                  # of the classifier, or else of the encoder

    def text(self) -> str:
        """Return the signature as JSON in ASCII: names of folders, and so of classes, may be no UTF-8."""
        return json.dumps(asdict(self))

    def prepared(self, pixels: np.ndarray) -> np.ndarray:
        """Return uint8 pixels in the type and range that the model takes."""
        return pixels if self.dtype == UINT8 else pixels.astype(np.float32) / 255

    @classmethod
    def of(cls, text: str, source: str) -> "Signature":
        """Return the signature in ``text``; where it is damaged, raise a UserError that names the model ``source``."""
        try:
            values = json.loads(text)
            classes = values["classes"]
            result = cls(**{**{name: values[name] for name in cls.__annotations__},
                            "classes": None if classes is None else tuple(classes)})
            numbers = (result.side, result.shorter_edge, result.batch_size, result.features)
            if not (result.dtype in (UINT8, FLOAT32) and all(type(number) is int and number > 0 for number in numbers)
                    and all(isinstance(name, str) for name in (result.dataset_name, *(result.classes or ())))):
                raise ValueError("a value makes no sense")
            return result
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{source}: its signature is damaged ({reason_of(error)}); {AGAIN}") from None


def beside(model: Path) -> Path:
    """Return the file with the signature of a MINDIR or AIR file, whose format has no place for it."""
    return model.with_name(f"{model.name}.json")


def write_beside(model: Path, signature: Signature) -> None:
    """Write the signature of the file ``model`` beside it, with the digest of the file."""
    write_text(beside(model), json.dumps({"sha256": sha256_of(model), **asdict(signature)}, indent=2) + "\n")


def read_beside(model: Path, source: str) -> Signature:
    """Return the signature beside the file ``model``.

    Where there is none, or that of another file, or a damaged one, raise a UserError that names the model ``source``.
    """
    file = beside(model)
    if not file.is_file():
        raise UserError(f"{source} has no signature {file.name} beside it; copy that file too, or {AGAIN}")
    with reading(source):
        text, digest = file.read_text(encoding="utf-8", errors="replace"), sha256_of(model)
    result = Signature.of(text, source)
    if json.loads(text).get("sha256") != digest:
        raise UserError(f"{source}: {file.name} beside it is the signature of another file, or one of the two is "
                        f"damaged; copy both again, or {AGAIN}")
    return result

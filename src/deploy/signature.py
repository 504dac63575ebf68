"""What travels with an exported model, so that who has it needs nothing else: what it takes, and what it gives."""
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Optional, Tuple

import numpy as np

from src.common.errors import UserError
from src.common.files import reading, reason_of, sha256_of, write_text

KEY = "simclr"          # of an ONNX file's metadata, which holds it as JSON
UINT8, FLOAT32 = "uint8", "float32"  # red, green, blue: 0 to 255, or 0 to 1
AGAIN = "export it again with export.py"
MOST_BYTES = 2**30  # of the images in a call


@dataclass(frozen=True)
class Signature:
    """What a model takes, images (batch_size, 3, side, side), and gives: features, and before them probabilities.

    Args:
        dtype: of the images, ``UINT8`` or ``FLOAT32``.
        side: of the images in pixels, and ``shorter_edge``: what that of an image is brought to, by linear
            interpolation between neighbouring pixels, before its middle is cut out.
        batch_size: images in a call.
        features: width of the representations h (batch_size, features).
        classes: names of the classes, in the order of the probabilities (batch_size, classes); None where the model is
            an encoder alone, which gives features and nothing else. They may be fewer than the probabilities.
        dataset_name: what the classifier was trained on, or the encoder alone.
    """

    dtype: str
    side: int
    shorter_edge: int
    batch_size: int
    features: int
    classes: Optional[Tuple[str, ...]]
    dataset_name: str

    @property
    def nbytes(self) -> int:
        """How many bytes the images in a call have."""
        return 3 * self.batch_size * self.side ** 2 * (4 if self.dtype == FLOAT32 else 1)

    def text(self) -> str:
        """Return it as JSON, of which names that are no UTF-8 are a part as escapes."""
        return json.dumps(asdict(self))

    def taken(self, pixels: np.ndarray) -> np.ndarray:
        """Return pixels, uint8, as the model takes them."""
        return pixels if self.dtype == UINT8 else pixels.astype(np.float32) / 255

    @classmethod
    def of(cls, text: str, source: str) -> "Signature":
        """Return what ``text`` holds as JSON; ``source`` names the model in errors.

        Raises:
            UserError: that is no signature, or one that makes no sense.
        """
        try:
            values = json.loads(text)
            if isinstance(values["classes"], list):  # as JSON has them
                values["classes"] = tuple(values["classes"])
            found = cls(**{field.name: values[field.name] for field in fields(cls)})
            _check(found)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{source}: what it says of its images is damaged ({reason_of(error)}); {AGAIN}") from None
        return found


def _check(found: Signature) -> None:
    if found.dtype not in (UINT8, FLOAT32):
        raise ValueError(f"dtype {found.dtype!r}")
    for name in ("side", "shorter_edge", "batch_size", "features"):
        value = getattr(found, name)
        if type(value) is not int or not 0 < value < 2**20:
            raise ValueError(f"{name} {value!r}")
    if found.nbytes > MOST_BYTES:
        raise ValueError(f"batches of {found.batch_size} images of {found.side} x {found.side} pixels")
    if found.shorter_edge < found.side:
        raise ValueError(f"shorter_edge {found.shorter_edge} below side {found.side}")
    if not isinstance(found.dataset_name, str):
        raise ValueError(f"dataset_name {found.dataset_name!r}")
    if found.classes is not None and not (isinstance(found.classes, tuple)
                                          and all(isinstance(name, str) for name in found.classes)):
        raise ValueError("classes that are no names")


def beside(model: Path) -> Path:
    """Return the file that has the signature of a model whose own format has no place for it."""
    return model.with_name(f"{model.name}.json")


def write_beside(model: Path, signature: Signature) -> None:
    """Write the signature of the file ``model`` beside it, with the file's digest."""
    write_text(beside(model), json.dumps({"sha256": sha256_of(model), **json.loads(signature.text())}, indent=2) + "\n")


def read_beside(model: Path) -> Signature:
    """Read the signature of the file ``model``.

    Raises:
        UserError: there is none, it is damaged, or it is another file's.
    """
    file = beside(model)
    if not model.is_file():
        raise UserError(f"{model}: is no file; name one of export.py")
    if not file.is_file():
        raise UserError(f"{model}: has no {file.name} beside it, which says how it takes images; copy it too, or "
                        f"{AGAIN}")
    with reading(file):
        text = file.read_text(encoding="utf-8", errors="replace")
    found = Signature.of(text, str(model))
    with reading(model):
        if json.loads(text).get("sha256") != sha256_of(model):
            raise UserError(f"{model}: {file.name} beside it is another file's, or one of the two is damaged; copy "
                            f"both, or {AGAIN}")
    return found

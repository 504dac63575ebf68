"""The description of a network, which a checkpoint keeps and a network is built from."""
import dataclasses
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

SMALL_SIDE = 32  # pixels; for larger images the paper has other first layers and other views
Colour = Tuple[float, float, float]


class Stem(NamedTuple):
    """The first layers of an encoder: a convolution, and perhaps max-pooling."""

    kernel: int
    stride: int
    pooling: bool
    title: str


STEMS: Dict[str, Stem] = {
    "cifar": Stem(3, 1, False, "CIFAR stem (3x3)"),
    "strided": Stem(3, 2, False, "strided stem (3x3, stride 2)"),
    "imagenet": Stem(7, 2, True, "ImageNet stem (7x7)")}


def default_stem(side: int) -> str:
    """Return the stem for images of ``side`` pixels: up to 32 the paper's for CIFAR-10 (B.9), above ImageNet's."""
    return "cifar" if side <= SMALL_SIDE else "imagenet"


@dataclasses.dataclass(frozen=True)
class Network:
    """An encoder, with its projection head where it has one."""

    encoder: str                    # a key of ``resnet.ENCODERS``
    width_multiplier: float = 1.0   # factor on every width of the encoder
    stem: str = "cifar"             # a key of ``STEMS``
    image_size: int = 32            # side in pixels
    mean: Optional[Colour] = None   # of the colour channels, to normalise pixels in [0, 1]; None without normalisation
    std: Optional[Colour] = None
    projection_dimension: Optional[int] = None  # width of the embedding z; None without a projection head
    head_batch_norm: bool = False

    @property
    def without_head(self) -> "Network":
        """The same encoder without its projection head."""
        return dataclasses.replace(self, projection_dimension=None, head_batch_norm=False)

    @property
    def settings(self) -> Dict[str, Any]:
        """The values of the flags whose role is the network, without flags of a head that does not exist."""
        values = {**dataclasses.asdict(self), "normalize": self.mean is not None}
        absent = {"mean", "std", *(() if self.projection_dimension else ("projection_dimension", "head_batch_norm"))}
        return {name: value for name, value in values.items() if name not in absent}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Network":
        """Return the network with ``values`` by the names of the fields; other names are ignored."""
        names = {field.name for field in dataclasses.fields(cls)}
        # JSON has lists for tuples.
        return cls(**{name: tuple(value) if isinstance(value, list) else value
                      for name, value in values.items() if name in names})

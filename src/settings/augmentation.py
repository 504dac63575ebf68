"""The random transformations of a view, and their strengths in the paper."""
from typing import NamedTuple


class Augmentation(NamedTuple):
    """Strengths of the random transformations of a view (paper, appendix A); 0 switches one off."""

    crop_min_scale: float  # smallest share of the area that a crop keeps; 1 switches it off
    flip_probability: float
    jitter_strength: float
    grayscale_probability: float
    blur_probability: float


# The paper's for CIFAR-10 (B.9), and for larger images (A).
PAPER_SMALL = Augmentation(crop_min_scale=0.08, flip_probability=0.5, jitter_strength=0.5, grayscale_probability=0.2,
                           blur_probability=0.0)
PAPER_LARGE = PAPER_SMALL._replace(jitter_strength=1.0, blur_probability=0.5)

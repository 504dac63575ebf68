"""A sheet of some images with views of them: what a training is going to see."""
import numpy as np
from PIL import Image

from src.data.views import Views

IMAGES, VIEWS = 8, 8  # so many images, a row each, with so many views
LARGEST_SIDE = 64     # pixels of a view on the sheet
GAP = 4               # pixels between an image and its views


def sheet(views: Views) -> Image.Image:
    """Return a sheet of images of ``views``, drawn by its seed: in each row one as it is, then views of it."""
    few = Views(views.pixels, min(IMAGES, len(views.rows)), views.augmentation, views.seed, views.workers,
                rows=np.random.default_rng(views.seed).permutation(views.rows)[:IMAGES], views=VIEWS)
    ((seen,),) = few.of_epoch(0)
    seen = seen.reshape(VIEWS, -1, *seen.shape[1:]).transpose(1, 0, 3, 4, 2)  # image, view, height, width, colour
    images = few.pixels[few.order_of(0)]
    side = min(LARGEST_SIDE, images.shape[1])
    whole = Image.new("RGB", ((1 + VIEWS) * side + GAP, len(images) * side), "white")
    for row, (image, of_image) in enumerate(zip(images, seen)):
        for column, tile in enumerate((image, *of_image)):
            small = Image.fromarray(tile).resize((side, side), Image.Resampling.LANCZOS)
            whole.paste(small, (column * side + GAP * bool(column), row * side))
    return whole

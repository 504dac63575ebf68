"""Small images as a part of a page: many in one picture, of which CSS shows one at a time."""
import base64
import io
from typing import List

import numpy as np
from PIL import Image

QUALITY = 85  # of JPEG


class Sheet:
    """Images uint8 (N, side, side, 3) in rows of ``across``.

    ``uri`` is the picture of all of them; ``place(number)`` says in CSS, in units of an image's side, where one is.
    """

    def __init__(self, images: np.ndarray):
        self.count, self.side = images.shape[:2]
        self.across = max(1, int(np.ceil(np.sqrt(self.count))))
        self.down = max(1, -(-self.count // self.across))
        whole = np.zeros((self.down * self.across, *images.shape[1:]), np.uint8)
        whole[:self.count] = images
        whole = whole.reshape(self.down, self.across, self.side, self.side, 3).transpose(0, 2, 1, 3, 4)
        stream = io.BytesIO()
        Image.fromarray(whole.reshape(self.down * self.side, self.across * self.side, 3)).save(
            stream, "JPEG", quality=QUALITY, optimize=True)
        self.uri = f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"

    def place(self, number: int) -> str:
        """Return the background-position of an image, in percent: what lies left of it and above it."""
        row, column = divmod(number, self.across)
        return f"{_percent(column, self.across)} {_percent(row, self.down)}"

    @property
    def size(self) -> str:
        """The background-size that gives each image the whole of its element."""
        return f"{100 * self.across}% {100 * self.down}%"

    def places(self) -> List[str]:
        return [self.place(number) for number in range(self.count)]


def _percent(number: int, count: int) -> str:
    return f"{100 * number / max(1, count - 1):.6g}%"

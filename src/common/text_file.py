"""The small text files that a user names, such as a recipe or a rank table: read whole, but never without end."""
from pathlib import Path

from src.common.errors import UserError
from src.common.files import to_read


def read(path: str, source: str, remedy: str, largest: int = 2**20) -> str:
    """Return the text of a file.

    Args:
        path: of the file.
        source: what named it, and how it is named in messages.
        remedy: what to do where it is no such file.
        largest: bytes that it may have.

    Raises:
        UserError: it cannot be read, is a folder, a pipe or a device, is too large, or is not text in UTF-8.
    """
    with to_read(Path(path), source, remedy) as stream:
        content = stream.read(largest + 1)
    if len(content) > largest:
        raise UserError(f"{source}: has more than {largest} bytes; {remedy}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: is not text in UTF-8 (byte {error.start}); {remedy}") from None

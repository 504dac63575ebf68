"""Whether the bytes of a checkpoint are those that were written: looked at before MindSpore's parser, which damaged
files may crash.
"""
import os
import zlib
from pathlib import Path
from typing import BinaryIO

from src.common.errors import DamagedError
from src.common.files import BLOCK

TAKE = "take one of train.py, linear_eval.py, finetune.py or convert.py"
_SUM, _SUM_BYTES = b"crc_num", 10  # what MindSpore writes at the end of a file: this, and its CRC-32 in so many bytes
_ENTRY = 0x0A  # begins every entry of a file, and its length follows: Protocol Buffers' field 1


def check(file: Path, source: str) -> bool:
    """Compare the checksum that MindSpore has written behind all bytes of a checkpoint; return whether there is one.

    Raises:
        DamagedError: it does not fit, or there is none, and no whole entries either.
    """
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        left = max(0, size - len(_SUM) - _SUM_BYTES)
        stream.seek(left)
        end = stream.read()
        if not end.startswith(_SUM):
            if not _has_whole_entries(stream, size):
                raise DamagedError(f"{source} is not a checkpoint that MindSpore can read (it does not end where an "
                                   f"entry of it ends); {TAKE}")
            return False
        stream.seek(0)
        found = 0
        while left:
            block = stream.read(min(left, BLOCK))
            found, left = zlib.crc32(block, found), left - len(block)
    if found != int.from_bytes(end[len(_SUM):], "big"):
        raise DamagedError(f"{source} is damaged: its bytes do not have the checksum that was written with them; copy "
                           "it again, or take an earlier one")
    return True


def _has_whole_entries(stream: BinaryIO, size: int) -> bool:
    """Return whether a file of ``size`` bytes is entries one after the other, each with its length before it."""
    place = 0
    while place < size:
        stream.seek(place)
        start = stream.read(11)
        length = 0
        for count, byte in enumerate(start[1:], 1):  # seven bits a byte, the last ones first
            length |= (byte & 0x7F) << 7 * (count - 1)
            if byte < 0x80:
                break
        else:
            return False
        if start[0] != _ENTRY:
            return False
        place += 1 + count + length
    return 0 < place == size

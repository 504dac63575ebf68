"""What the header of an image says: looked at before anything is decoded, and ten times as fast as by Pillow.

MindSpore's decoder has no limit of size, and a JPEG header that libjpeg refuses ends its whole process.
"""
import struct
from typing import BinaryIO, Dict, Iterator, NamedTuple, Set, Tuple

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"  # how the files begin, whatever their names say
# Markers of JPEG (ITU-T T.81, B.1): of the three kinds of images that there are, which tell the size, and others.
BASELINE, EXTENDED, PROGRESSIVE, HUFFMAN, QUANTISATION, SCAN, FILLING = 0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDA, 0xFF
MOST_SEGMENTS = 10_000  # of a header; a photograph has some ten
MOST_BLOCKS = 10  # that the components have together in a unit


class Header(NamedTuple):
    """Width and height of an image, both above 0, and whether more of its header comes later."""

    width: int
    height: int
    goes_on: bool


def header(stream: BinaryIO) -> Header:
    """Return the header of the JPEG or PNG image that ``stream`` has.

    Raises:
        ValueError: it has no whole one.
    """
    start = stream.read(24)
    try:
        found = Header(*struct.unpack(">II", start[16:]), False) if start.startswith(PNG) else _of_jpeg(stream)
    except (struct.error, IndexError):
        raise ValueError("it ends in its header") from None
    _require(found.width > 0 and found.height > 0)
    return found


def _of_jpeg(stream: BinaryIO) -> Header:
    """Return the header after all of it, up to the first scan: a progressive image has others, each with its own."""
    width = height = 0
    frame: Dict[int, Tuple[int, int, int]] = {}  # by component: samples across and down, quantisation table
    quantisation: Set[int] = set()
    huffman = {0, 1, 16, 17}  # the usual ones, which libjpeg has itself
    for marker, body in _segments(stream):
        if marker in (BASELINE, EXTENDED, PROGRESSIVE):
            bits, height, width, count = struct.unpack(">BHHB", body[:6])
            _require(not frame and bits == 8 and len(body) == 6 + 3 * count)
            frame = {body[place]: (*divmod(body[place + 1], 16), body[place + 2]) for place in range(6, len(body), 3)}
            _require(len(frame) == count in (1, 3, 4) and all(_fit(edges) for edges in list(zip(*frame.values()))[:2]))
            if marker == PROGRESSIVE:
                return Header(width, height, True)
        elif marker == QUANTISATION:
            quantisation.update(_quantisation(body))
        elif marker == HUFFMAN:
            huffman.update(_huffman(body))
        elif marker == SCAN:
            count = body[0]
            scanned = dict(zip(body[1:1 + 2 * count:2], body[2:2 + 2 * count:2]))
            _require(len(body) == 4 + 2 * count and 1 <= len(scanned) == count and scanned.keys() <= frame.keys())
            of_scan = [frame[component] for component in scanned]
            _require({table for _, _, table in of_scan} <= quantisation
                     and {table >> 4 for table in scanned.values()} <= huffman
                     and {16 + table % 16 for table in scanned.values()} <= huffman
                     and (count == 1 or sum(across * down for across, down, _ in of_scan) <= MOST_BLOCKS))
    return Header(width, height, len(scanned) < len(frame))


def _segments(stream: BinaryIO) -> Iterator[Tuple[int, bytes]]:
    """Yield the markers of a JPEG header that matter, and what follows them, up to the first scan."""
    place = 2
    for _ in range(MOST_SEGMENTS):
        stream.seek(place)
        filling, marker, length = struct.unpack(">BBH", stream.read(4))
        _require(filling == FILLING and length >= 2)
        if marker in (BASELINE, EXTENDED, PROGRESSIVE, HUFFMAN, QUANTISATION, SCAN):
            body = stream.read(length - 2)
            _require(len(body) == length - 2)
            yield marker, body
        if marker == SCAN:
            return
        place += 1 if marker == FILLING else 2 + length
    _require(False)


def _fit(edges: Tuple[int, ...]) -> bool:
    """Return whether samples along one edge have whole ratios."""
    return all(1 <= edge <= 4 and max(edges) % edge == 0 for edge in edges)


def _quantisation(body: bytes) -> Iterator[int]:
    while body:
        precision, number = divmod(body[0], 16)
        size = 1 + 64 * (1 + precision)
        _require(precision < 2 and number < 4 and size <= len(body))
        yield number
        body = body[size:]


def _huffman(body: bytes) -> Iterator[int]:
    """Yield the tables' numbers, those for AC coefficients from 16 on."""
    while body:
        number, counts = body[0], body[1:17]
        room = 1  # codes of a length that shorter ones leave
        for count in counts:
            room = 2 * room - count
            _require(room >= 0)
        size = 17 + sum(counts)
        _require(number in (0, 1, 2, 3, 16, 17, 18, 19) and sum(counts) <= 256 and size <= len(body))
        yield number
        body = body[size:]


def _require(is_right: bool) -> None:
    if not is_right:
        raise ValueError("its header is damaged")

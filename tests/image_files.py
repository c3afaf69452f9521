"""The bytes of small image files from their header fields, so that no writer of Pillow's is between."""

import struct
import zlib
from collections.abc import Sequence


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: Sequence[bytes], *extra: tuple[bytes, bytes]) -> bytes:
    """extra: (kind, content) of chunks before the packed rows."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), *extra, (b"IDAT", packed), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in chunks)


def tiff(
    order: str, size: tuple[int, int], bits: Sequence[int], photometric: int, data: bytes, **tags: object
) -> bytes:
    """Without compression. order: < or >. tags: TIFF's numbers as tNUMBER, a value or several, over the usual ones."""
    fields: dict[int, object] = {
        256: size[0], 257: size[1], 258: bits, 259: 1, 262: photometric,
        273: 8, 277: len(bits), 278: size[1], 279: len(data),
    }  # fmt: skip
    fields |= {int(name[1:]): value for name, value in tags.items()}
    data += bytes(len(data) % 2)
    entries, behind = b"", b""
    for tag, value in sorted(fields.items()):
        values = value if isinstance(value, list | tuple) else [value]
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            at = 8 + len(data) + 2 + 12 * len(fields) + 4 + len(behind)
            behind, packed = behind + packed, struct.pack(order + "I", at)
        entries += struct.pack(order + "HHI", tag, 4, len(values)) + packed
    magic = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(order + "H", len(fields)) + entries + bytes(4)
    return magic + struct.pack(order + "I", 8 + len(data)) + data + directory + behind


def bmp(size: tuple[int, int], bits: int, rows: bytes, palette: Sequence[tuple] = (), masks: bytes = b"") -> bytes:
    """With a header of version 4 where there are masks (red, green, blue, alpha), else of version 3."""
    version, compression = (108, 3) if masks else (40, 0)
    fields = (version, *size, 1, bits, compression, 0, 0, 0, len(palette), 0)
    header = struct.pack("<IiiHHIIiiII", *fields) + (masks + bytes(52) if masks else b"")
    colours = b"".join(bytes([blue, green, red, 0]) for red, green, blue in palette)
    start = 14 + len(header) + len(colours)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + colours + rows

"""Finds damage in image files that Pillow's decoders ignore: wrong checksums, sizes and ends.

PNG: the CRC of every chunk, and missing rows. TIFF: the zlib checksums of deflated strips and tiles. GIF: every block
up to the trailer. WebP, AVIF, JP2: the sizes in their headers. Pillow itself refuses truncated JPEG, BMP, Netpbm and
TIFF files. Pixels in JPEG, GIF, WebP, AVIF, JPEG 2000, LZW and uncompressed files have no checksum, so damage there
cannot be found.
"""

import io
import mmap
import os
import re
import struct
import zlib
from typing import BinaryIO, cast

from PIL import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

MAX_SCANS = 64  # of a JPEG; progressive ones have about 10
HEAD_BOXES, PIXEL_BOXES = {b"meta", b"moov", b"jp2h"}, {b"mdat", b"jp2c"}
BLOCK = 2**17  # bytes decompressed at once
_SCAN = re.compile(rb"\xff\xda\x00[\x08\x0a\x0c\x0e][\x01-\x04]")  # the header of a JPEG's scan
DEFLATE = (8, 32946)  # TIFF compression codes


def check_file(file: BinaryIO, image: ImageFile.ImageFile) -> None:
    """Checks an image that Pillow has opened but not decoded. Raises ValueError, OSError or zlib.error if the file is
    truncated or damaged."""
    position = file.tell()
    match image.format:
        case "PNG":
            _check_png(file)
        case "GIF":
            _check_gif(file)
        case "JPEG" | "MPO" if "progressive" in image.info:
            _check_scans(file)
        case "TIFF":
            _check_tiff(file, cast(TiffImageFile, image))
        case "WEBP":
            file.seek(int.from_bytes(_at(file, 4, 4), "little") + 7)
            _exactly(file, 1)
        case "AVIF" | "JPEG2000":
            _check_boxes(file)
    file.seek(position)


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return _exactly(file, size)


def _exactly(file: BinaryIO, size: int) -> bytes:
    content = file.read(min(size, os.fstat(file.fileno()).st_size))
    if len(content) < size:
        raise ValueError("the file ends early")
    return content


def _check_png(file: BinaryIO) -> None:
    width, height, depth, colour, _, _, is_interlaced = struct.unpack(">IIBBBBB", _at(file, 16, 13))
    bits = depth * {2: 3, 4: 2, 6: 4}.get(colour, 1)
    remaining = height * ((width * bits + 7) // 8 + 1 - is_interlaced)  # interlaced: as many bytes or a few more
    inflater, kind = zlib.decompressobj(), b""
    file.seek(8)
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", _exactly(file, 8))
        content = _exactly(file, length)
        if zlib.crc32(content, zlib.crc32(kind)) != int.from_bytes(_exactly(file, 4), "big"):
            raise ValueError(f"its chunk {kind!r} has a wrong checksum")
        while kind == b"IDAT" and content and remaining > 0 and not inflater.eof:
            remaining -= len(inflater.decompress(content, BLOCK))
            content = inflater.unconsumed_tail
    if remaining - len(inflater.decompress(b"", BLOCK)) > 0:
        raise ValueError("it holds fewer pixels than its header says")


def _check_gif(file: BinaryIO) -> None:
    """Reads all blocks. The trailer may be missing after a complete image, as other readers allow."""
    is_empty = True

    def skip_palette(flags: int) -> None:
        file.seek(3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0, io.SEEK_CUR)

    skip_palette(_at(file, 0, 13)[10])
    while (mark := file.read(1)) != b";":
        if not mark and is_empty:
            raise ValueError("the file ends early")
        if not mark:
            return
        if mark == b",":
            skip_palette(_exactly(file, 9)[8])
            is_empty = False
        if mark in b",!":
            _exactly(file, 1)
            while size := _exactly(file, 1)[0]:
                _exactly(file, size)


def _check_scans(file: BinaryIO) -> None:
    """Limits the scans of a progressive JPEG: each one decodes all pixels, however few bytes it has."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if len(_SCAN.findall(content)) > MAX_SCANS:
            raise ValueError(f"it has more than {MAX_SCANS} scans")


def _check_tiff(file: BinaryIO, image: TiffImageFile) -> None:
    tags, key = image.tag_v2, 324 if 324 in image.tag_v2 else 273  # the offsets of tiles or strips
    offsets, counts = tags.get(key, ()), tags.get(key + 1 if key == 324 else 279)
    width, height = image._tile_size
    rows, columns = (tags[323], tags[322]) if key == 324 else (min(tags.get(278, height), height), width)
    planes = tags.get(277, 1) if tags.get(284, 1) == 2 else 1
    if min(rows, columns) < 1 or len(offsets) < -(-height // rows) * -(-width // columns) * planes:
        raise ValueError("it lacks strips or tiles")
    if counts is None or 0 in counts or tags.get(259) not in DEFLATE:
        return
    for offset, count in zip(offsets, counts, strict=True):
        inflater = zlib.decompressobj()
        inflater.decompress(_at(file, offset, count), strip_bytes(image) + BLOCK)
        if not inflater.eof:
            raise ValueError("its compressed pixels do not have the size that its header states")


def strip_bytes(image: TiffImageFile) -> int:
    """The bytes of a decompressed TIFF strip or tile."""
    tags, (width, height) = image.tag_v2, image._tile_size
    columns, rows = (tags[322], tags[323]) if 324 in tags else (width, min(tags.get(278, height), height))
    bits = sum(tags.get(258, (1,))) if len(tags.get(258, (1,))) > 1 else tags.get(258, (1,))[0] * tags.get(277, 1)
    return rows * ((columns * bits + 7) // 8)


def _check_boxes(file: BinaryIO) -> None:
    """Checks the sizes of ISO base media boxes; a bare JPEG 2000 codestream has none. Other bytes may follow the
    image."""
    if _at(file, 0, 4) == b"\xff\x4f\xff\x51":
        return
    end, position = file.seek(0, io.SEEK_END), 0
    kinds: set[bytes] = set()
    while position < end:
        head = _at(file, position, min(16, end - position))
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        if size == 0:  # up to the end
            return
        if size < 8 or position + size > end:
            if kinds & HEAD_BOXES and kinds & PIXEL_BOXES and kind not in HEAD_BOXES | PIXEL_BOXES:
                return
            raise ValueError("its boxes do not end where the file does")
        position += size
        kinds.add(kind)

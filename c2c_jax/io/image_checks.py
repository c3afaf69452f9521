"""Checks of image files before they are decoded: checksums, ends and sizes, which Pillow's decoders pass over.

PNG: the CRC of every chunk and the zlib checksum of the pixels. TIFF: that every strip or tile is there, and the zlib
checksums of deflated ones. GIF: every block to the trailer. JPEG: the number and order of restart markers, that no scan
is missing, and that the pixels do not end early. WebP, AVIF, JP2, BMP, Netpbm: the sizes in their headers. The
compressed pixels of JPEG, GIF, WebP, AVIF, JPEG 2000 and LZW have no checksum, and uncompressed ones (BMP, Netpbm,
TIFF) have none either: changed bytes there are other pixels, which no reader can find.
"""

import io
import mmap
import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

MAX_CHUNK = 2**24  # bytes of a PNG chunk that is not pixels
MAX_SCANS = 64  # of a JPEG: progressive ones have about 10
SEQUENTIAL, PROGRESSIVE = (0xC0, 0xC1, 0xC9), (0xC2, 0xCA)  # kinds of JPEG
BLOCK = 2**17  # bytes that are read or inflated at once
SLACK = 3  # bytes behind the end, with which some writers fill up to a multiple of four
HEAD_BOXES, PIXEL_BOXES = {b"meta", b"moov", b"jp2h"}, {b"mdat", b"jp2c"}
BOXES = HEAD_BOXES | PIXEL_BOXES | {b"ftyp", b"free", b"skip", b"uuid", b"moof", b"sidx", b"asoc", b"xml ", b"uinf"}
DEFLATE = (8, 32946)  # TIFF's codes
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # of JPEG, that ends a scan
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_NETPBM = re.compile(rb"P[1-6](?:(?:\s|#[^\r\n]*[\r\n])+\d+){2}")
# The passes of an interlaced PNG: first column and row, and their steps (PNG specification, section 8.2).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_FILLER = bytes(range(1, 128))  # compressed pixels of some kind


def check_header(file: BinaryIO) -> None:
    """Checks what Pillow reads of a file when it opens it, so that this is little. Raises ValueError."""
    head = file.read(2**16)
    if head.startswith(b"\x89PNG"):
        file.seek(8)
        for length, kind in iter(lambda: struct.unpack(">I4s", _exactly(file, 8)), None):
            if kind == b"IEND":
                break
            if length > MAX_CHUNK and kind not in (b"IDAT", b"fdAT"):
                raise ValueError(f"its chunk {kind!r} has {length:,} bytes, more than {MAX_CHUNK:,}")
            file.seek(length + 4, io.SEEK_CUR)
    elif re.match(rb"P[1-6][\s#]", head) and not _NETPBM.match(head):
        raise ValueError("its header does not give its size")
    file.seek(0)


def check_file(file: BinaryIO, image: ImageFile.ImageFile) -> list[str]:
    """Checks an opened image of Pillow's by its format; gives what is to be reported of one that is read all the same.
    Raises ValueError, struct.error or zlib.error for a file that is cut or damaged."""
    position, end, notes = file.tell(), None, []
    match image.format:
        case "PNG":
            end = _check_png(file)
        case "GIF":
            if (end := _check_gif(file)) is None:
                notes.append("lacks the mark of its end; it is read to where it ends")
        case "JPEG" | "MPO":
            _check_jpeg(file)
        case "TIFF":
            _check_tiff(file, cast(TiffImageFile, image))
        case "WEBP":
            end = 8 + int.from_bytes(_at(file, 4, 4), "little")
        case "BMP":
            end = _bmp_end(file, image)
        case "PPM":
            end = _netpbm_end(file, image)
        case "AVIF" | "JPEG2000":
            end = _check_boxes(file)
    length = _length(file)
    if end is not None and length < end:
        raise ValueError(f"the file has {length:,} bytes, its header says {end:,}")
    if end is not None and length > end + SLACK:
        notes.append(f"has {length - end:,} bytes after its end; they are ignored")
    file.seek(position)
    return notes


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return _exactly(file, size)


def _exactly(file: BinaryIO, size: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise ValueError("the file ends early")
    return content


def _blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    for start in range(0, size, BLOCK):
        yield _exactly(file, min(BLOCK, size - start))


def _length(file: BinaryIO) -> int:
    return file.seek(0, io.SEEK_END)


class _Inflater:
    """Inflates a zlib stream piece by piece, to no more than `limit` bytes, and keeps nothing of it."""

    def __init__(self, limit: int) -> None:
        self._zlib, self._limit, self._size = zlib.decompressobj(), limit, 0

    def feed(self, content: bytes) -> None:
        while content and not self._zlib.eof:
            self._size += len(self._zlib.decompress(content, BLOCK))
            content = self._zlib.unconsumed_tail
            if self._size > self._limit:
                raise ValueError("it holds more pixels than its header says")

    def finish(self, expected: int = 0) -> None:
        """Raises ValueError where the end of the stream, and with it its checksum, was not reached, or where it held
        fewer bytes than `expected`."""
        while not self._zlib.eof and (inflated := self._zlib.decompress(self._zlib.unconsumed_tail, BLOCK)):
            self._size += len(inflated)
        if not self._zlib.eof:
            raise ValueError("its compressed pixels end early")
        if self._size < expected:
            raise ValueError("it holds fewer pixels than its header says")


def _check_png(file: BinaryIO) -> int:
    """Gives where it ends."""
    width, height, depth, colour, _, _, is_interlaced = struct.unpack(">IIBBBBB", _at(file, 16, 13))
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 4)
    passes = _ADAM7 if is_interlaced else ((0, 0, 1, 1),)
    size = sum(
        _row_bytes(width, x, dx, bits) * -(-(height - y) // dy) for x, y, dx, dy in passes if width > x and height > y
    )
    pixels = _Inflater(size + BLOCK)
    file.seek(8)
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", _exactly(file, 8))
        checksum = zlib.crc32(kind)
        for block in _blocks(file, length):
            checksum = zlib.crc32(block, checksum)
            if kind == b"IDAT":
                pixels.feed(block)
        if checksum != int.from_bytes(_exactly(file, 4), "big"):
            raise ValueError(f"its chunk {kind!r} does not have the checksum that it should have")
    pixels.finish(size)
    return file.tell()


def _row_bytes(width: int, x: int, dx: int, bits: int) -> int:
    """Bytes of a row of a pass: every dx-th pixel from x on, and the byte that names its filter."""
    return (-(-(width - x) // dx) * bits + 7) // 8 + 1


def _check_gif(file: BinaryIO) -> int | None:
    """Gives where it ends, None where the trailer is missing behind whole pictures, as in files that programs show."""
    is_empty = True

    def skip_palette(flags: int) -> None:
        file.seek(3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0, io.SEEK_CUR)

    def skip_blocks() -> None:
        while size := _exactly(file, 1)[0]:
            file.seek(size, io.SEEK_CUR)

    skip_palette(_at(file, 0, 13)[10])
    while (mark := file.read(1)) != b";":
        if not mark and is_empty:
            raise ValueError("the file ends early")
        if not mark:
            return None
        if mark == b"!":
            file.seek(1, io.SEEK_CUR)
            skip_blocks()
        elif mark == b",":
            skip_palette(_exactly(file, 9)[8])
            file.seek(1, io.SEEK_CUR)
            skip_blocks()
            is_empty = False
    return file.tell()


def _bmp_end(file: BinaryIO, image: ImageFile.ImageFile) -> int | None:
    """Many writers leave the file's size out or wrong: it is checked where it can be the right one."""
    declared = int.from_bytes(_at(file, 2, 4), "little")
    decoder, _, offset, arguments = image.tile[0]
    needed = offset + arguments[1] * image.height if decoder == "raw" else offset  # type: ignore[index, operator]
    return min(declared, _length(file)) if declared >= needed and decoder == "raw" else None


def _netpbm_end(file: BinaryIO, image: ImageFile.ImageFile) -> int | None:
    """Behind the pixels may be another picture of the kind."""
    decoder, _, offset, arguments = image.tile[0]
    mode = arguments[0] if isinstance(arguments, tuple) else arguments
    bits = {"1;I": 1, "L": 8, "I;16B": 16, "RGB": 24}.get(str(mode))
    if decoder != "raw" or bits is None:
        return None
    end = file.seek(offset + (image.width * bits + 7) // 8 * image.height)
    rest = file.read(BLOCK).lstrip()
    return None if re.match(rb"P[1-7]", rest) else end


def _check_boxes(file: BinaryIO) -> int | None:
    """ISO base media boxes, one after the other; a JPEG 2000 codestream alone has none. Gives where they end: behind
    the picture may be bytes that are not a box."""
    if _at(file, 0, 4) == b"\xff\x4f\xff\x51":
        return None
    end, position, codestream_end = _length(file), 0, 0
    kinds: set[bytes] = set()
    while position < end:
        is_whole = not kinds.isdisjoint(PIXEL_BOXES) and not kinds.isdisjoint(HEAD_BOXES)
        head = _at(file, position, min(16, end - position))
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        if size == 0 and kind in BOXES:  # up to the end
            return None
        if size < 8 or len(head) < 8 or position + size > end:
            is_ended = not codestream_end or _at(file, codestream_end - 2, 2) == b"\xff\xd9"
            if is_whole and is_ended and kind not in BOXES:
                return position
            raise ValueError("its boxes do not end where the file does")
        position += size
        kinds.add(kind)
        if kind == b"jp2c":
            codestream_end = position
    return None


def _check_tiff(file: BinaryIO, image: TiffImageFile) -> None:
    tags, end = image.tag_v2, _length(file)
    width, height = image._tile_size
    if 324 in tags:
        offsets, counts = tags[324], tags.get(325)
        rows, columns = tags[323], tags[322]
    else:
        offsets, counts = tags.get(273, ()), tags.get(279)
        rows, columns = min(tags.get(278, height), height), width
    if min(rows, columns) < 1:
        raise ValueError("its strips or tiles are empty")
    planes = tags.get(277, 1) if tags.get(284, 1) == 2 else 1
    expected = -(-height // rows) * -(-width // columns) * planes
    if len(offsets) < expected:
        raise ValueError(f"it has {len(offsets):,} strips or tiles, its size asks for {expected:,}")
    if counts is None or 0 in counts or tags.get(259) not in DEFLATE:
        return
    if sum(counts) > end:
        raise ValueError("its strips or tiles take more bytes than the file has")
    for offset, count in zip(offsets, counts, strict=True):
        strip = _Inflater(strip_bytes(image) + BLOCK)
        file.seek(offset)
        for block in _blocks(file, count):
            strip.feed(block)
        strip.finish()


def strip_bytes(image: TiffImageFile) -> int:
    """The bytes of a TIFF's strip or tile once it is decompressed."""
    tags, (width, height) = image.tag_v2, image._tile_size
    columns, rows = (tags[322], tags[323]) if 324 in tags else (width, min(tags.get(278, height), height))
    bits = sum(tags.get(258, (1,))) if len(tags.get(258, (1,))) > 1 else tags.get(258, (1,))[0] * tags.get(277, 1)
    return rows * ((columns * bits + 7) // 8)


def _check_jpeg(file: BinaryIO) -> None:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        interval, frame, kind, scans = 0, b"", 0, 0
        unsent: dict[int, set[int]] = {}  # component → coefficients whose last bits were not sent
        for marker, start, end in _segments(content):
            if marker == 0xDD:
                interval = int.from_bytes(content[start : start + 2], "big")
            elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                frame, kind = content[start:end], marker
                unsent = {component: set(range(64)) for component in frame[6::3]}
            elif marker == 0xDA:
                count = content[start]
                if kind in SEQUENTIAL and count == frame[5]:  # all components in one scan, which is the only one
                    if interval:
                        _check_restarts(content, end, frame, interval)
                    return
                if (scans := scans + 1) > MAX_SCANS:
                    raise ValueError(f"it has more than {MAX_SCANS} scans")
                first, last, bits = content[start + 1 + 2 * count : end]
                for component in content[start + 1 : start + 1 + 2 * count : 2]:
                    if not bits & 15:
                        unsent[component] -= set(range(first, last + 1))
        if kind in (*SEQUENTIAL, *PROGRESSIVE) and any(unsent.values()):
            raise ValueError("some of its scans are not there")


def _segments(content: mmap.mmap) -> Iterator[tuple[int, int, int]]:
    """(marker, start of its content, end of it) of a JPEG, of a scan's header that of the header, to the end of the
    first picture."""
    position = 2
    while found := _MARKER.search(content, position):
        marker, start = found[1][0], found.end()
        if marker == 0xD9:
            yield marker, found.start(), start
            return
        if marker in (0x01, 0xD8):
            position = start
            continue
        position = start + int.from_bytes(content[start : start + 2], "big")
        yield marker, start + 2, position


def _check_restarts(content: mmap.mmap, start: int, frame: bytes, interval: int) -> None:
    height, width, components = struct.unpack(">HHB", frame[1:6])
    sampling = [frame[at] for at in range(7, 6 + 3 * components, 3)] if components > 1 else [0x11]
    across, down = (8 * max(value >> 4 for value in sampling), 8 * max(value & 15 for value in sampling))
    expected = -(-(-(-width // across) * -(-height // down)) // interval) - 1
    end = _MARKER.search(content, start)
    found = b"".join(_RESTART.findall(content, start, end.start() if end else len(content)))
    in_order = bytes(0xD0 + number % 8 for number in range(len(found)))
    if height and (found != in_order or not expected <= len(found) <= expected + 1):
        order = "" if found == in_order else ", not in order"
        raise ValueError(f"expected {expected:,} restart markers in order, found {len(found):,}{order}")


def ends_early(file: BinaryIO, image: Image.Image) -> bool:
    """Whether the pixels of a decoded JPEG end before its picture does: libjpeg fills up with grey.

    Only a picture that ends in that grey is looked at: if it is whole, more bytes behind its pixels change nothing.
    """
    grey = {"RGB": (128, 128, 128), "L": 128}.get(image.mode)
    if image.getpixel((image.width - 1, image.height - 1)) != grey:
        return False
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        ends = [start for marker, start, _ in _segments(content) if marker == 0xD9]
        if not ends:
            return True
        longer = content[: ends[0]] + _FILLER + b"\xff\xd9"
    with Image.open(io.BytesIO(longer), formats=["JPEG"]) as other:
        other.draft(None, image.size)
        return other.tobytes() != image.tobytes()

"""Checks every page of Ogg files (RFC 3533) and splits chained streams."""

import dataclasses
import zlib
from typing import BinaryIO

from c2c_jax.io.codecs.containers import BrokenAudioError, Layout, Piece, Stream, is_padding, read_at

CODECS = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC")  # first bytes of the streams that libsndfile decodes
HEAD = 27  # bytes of a page's header before its segment sizes
MAX_PAGES = 1_000_000  # five hours with a page per packet; usual files put dozens of packets on a page
MAX_TRAILER = 1 << 20  # bytes after the end that are searched for more pages
NO_END = (1 << 64) - 1  # granule position of a page on which no packet ends
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclasses.dataclass
class _LogicalStream:
    """A logical stream in one link of the chain. number: of its last page. pages: their positions. granule: the last
    granule position. last: the last page on which a packet ends. complete: the number of pages up to it."""

    is_known: bool
    number: int
    pages: list[Piece]
    granule: int = 0
    complete: int = 0
    last: bytes = b""
    has_end: bool = False

    def pieces(self) -> list[Piece]:
        """The pages up to the last on which a packet ends. That one is marked as the end of the stream, without which
        libsndfile refuses Opus."""
        if self.has_end or not self.complete:
            return self.pages
        marked = self.last[:5] + bytes([self.last[5] | 4]) + self.last[6:]
        return [*self.pages[: self.complete - 1], marked[:22] + checksum(marked).to_bytes(4, "little") + marked[26:]]


def read_ogg(file: BinaryIO, start: int, end: int, layout: Layout) -> None:
    """Adds a stream to the layout for each link of an Ogg file's chain."""
    link: dict[int, _LogicalStream] = {}
    is_open, position, count = False, start, 0  # is_open: another first page belongs to the same link
    while position < end:
        if (count := count + 1) > MAX_PAGES:
            raise BrokenAudioError(f"has more than {MAX_PAGES:,} Ogg pages: split it")
        page = _page(file, position, end)
        if page is None:
            has_more = b"OggS" in read_at(file, position, min(end - position, MAX_TRAILER))
            if not is_padding(file, position, end):
                if has_more or not all(stream.has_end for stream in link.values()):
                    raise BrokenAudioError(f"is damaged: there is no Ogg page at byte {position:,}")
                layout.notes.append(f"has {end - position:,} bytes after its end; they are ignored")
            break
        if checksum(page) != int.from_bytes(page[22:26], "little"):
            raise BrokenAudioError(f"is damaged: the Ogg page at byte {position:,} has a wrong checksum")
        flags, granule = page[5], int.from_bytes(page[6:14], "little")
        serial, number = (int.from_bytes(page[offset : offset + 4], "little") for offset in (14, 18))
        span = position, position + len(page)
        if flags & 2:
            if not is_open:
                _close(link, layout)
                link, is_open = {}, True
            link[serial] = _LogicalStream(page.startswith(CODECS, HEAD + page[26]), number, [span])
        elif not (stream := link.get(serial)) or stream.has_end or number != stream.number + 1:
            raise BrokenAudioError(f"is damaged: a page is missing before byte {position:,}")
        else:
            is_open = False
            stream.number = number
            stream.pages.append(span)
            if granule != NO_END:
                if granule < stream.granule:
                    raise BrokenAudioError(f"is damaged: its time goes backwards at byte {position:,}")
                stream.granule, stream.complete, stream.last = granule, len(stream.pages), page
        link[serial].has_end = bool(flags & 4)
        position += len(page)
    _close(link, layout)


def _page(file: BinaryIO, position: int, end: int) -> bytes | None:
    """Reads the page at a position; None if there is none."""
    head = read_at(file, position, min(end - position, HEAD + 255))
    if head[:4] != b"OggS"[: len(head)]:
        return None
    size = HEAD + head[26] + sum(head[HEAD : HEAD + head[26]]) if len(head) >= HEAD else HEAD
    if position + size > end:
        raise BrokenAudioError("is truncated: its last Ogg page is incomplete")
    return read_at(file, position, size)


def _close(link: dict[int, _LogicalStream], layout: Layout) -> None:
    """Adds the stream of a link to a layout."""
    if not link:
        return
    known = [stream for stream in link.values() if stream.is_known]
    if not known:
        raise BrokenAudioError("has no Vorbis, Opus or FLAC stream, the supported Ogg codecs: convert it")
    if len(known) > 1:
        layout.notes.append(f"contains {len(known)} parallel sounds; only the first is read")
    if not known[0].has_end:
        layout.notes.append("has no end-of-stream page, like an interrupted recording; all of it is read")
    layout.streams.append(Stream(pieces=known[0].pieces()))


def checksum(page: bytes) -> int:
    """Computes an Ogg page's CRC: zlib's CRC with reversed bits in each byte and in the result, starting at 0 and not
    inverted. The checksum field counts as 0."""
    state = zlib.crc32((page[:22] + bytes(4) + page[26:]).translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(state.to_bytes(4, "little").translate(REVERSED), "big")

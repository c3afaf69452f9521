"""Checks MPEG audio (MP3, MP2, MP1) frame by frame, and against the number of frames that a Xing frame states.

ISO/IEC 11172-3 and 13818-3; the Xing frame as LAME writes it (gabriel.mp3-tech.org/mp3infotag.html).
"""

import dataclasses
from typing import BinaryIO

from c2c_jax.io.codecs.containers import BrokenAudioError, Layout, Stream, id3_size, is_padding, read_at

# kbit/s by (is MPEG-1, layer); sample rates in Hz by version: 2.5, reserved, 2, 1.
BITRATES = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES = ((11025, 12000, 8000), (), (22050, 24000, 16000), (44100, 48000, 32000))
MAX_JUNK = 1 << 18  # bytes that are searched for the next frame
MIN_RUN = 3  # consecutive frames; fewer may be chance
BUFFER = 1 << 16
LAME = 120  # bytes from a Xing frame's mark to LAME's name if all optional fields are there
MAX_GAP = 2 * 4095  # samples of encoder delay and padding that a Xing frame may state
# A tag of padding. Without a tag, libsndfile looks for a resource fork first, such as the file `._NAME` that Macs leave
# on other disks, and if there is one it decodes the sound as SD2.
EMPTY_ID3 = b"ID3\x04" + bytes(5) + b"\x14" + bytes(20)


@dataclasses.dataclass(frozen=True)
class FrameHeader:
    """A frame's header. length: bytes of the frame. side: bytes of side information after the header (layer 3)."""

    version: int
    layer: int
    rate: int
    is_mono: bool
    length: int
    samples: int
    side: int

    @property
    def kind(self) -> tuple[int, int, int, bool]:
        """The fields that all frames of a stream share."""
        return self.version, self.layer, self.rate, self.is_mono


def parse_header(header: bytes) -> FrameHeader | None:
    """Parses the header in a frame's first four bytes; None if they are not a header with a known bitrate."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer, bitrate, rate = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3), header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or not 1 <= bitrate <= 14 or rate == 3:
        return None
    hertz, padding, is_mono = RATES[version][rate], header[2] >> 1 & 1, header[3] >> 6 == 3
    bits = 1000 * BITRATES[version == 3, layer][bitrate - 1]
    samples = {1: 384, 2: 1152, 3: 1152 if version == 3 else 576}[layer]
    length = (12 * bits // hertz + padding) * 4 if layer == 1 else samples // 8 * bits // hertz + padding
    side = (17 if is_mono else 32) if version == 3 else (9 if is_mono else 17)
    return FrameHeader(version, layer, hertz, is_mono, length, samples, side)


@dataclasses.dataclass
class _Run:
    """Consecutive frames of one kind. first: the bytes of the first header. tag: the Xing frame before them, or empty.
    pieces: the parts of the file that contain them."""

    head: FrameHeader
    first: bytes
    tag: bytes
    pieces: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    count: int = 0

    def add(self, start: int, end: int) -> None:
        """Adds one frame."""
        if self.pieces and self.pieces[-1][1] == start:
            start = self.pieces.pop()[0]
        self.pieces.append((start, end))
        self.count += 1


class _Frames:
    """Buffered access to the bytes of a file by position."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self.file, self.end, self.start, self.buffer = file, end, 0, b""

    def at(self, position: int, count: int) -> bytes:
        """Returns up to `count` bytes at a position, none after the end."""
        inside = position - self.start
        if not 0 <= inside <= len(self.buffer) - count:
            self.start, inside = position, 0
            self.buffer = read_at(self.file, position, min(BUFFER, max(self.end - position, 0)))
        return self.buffer[inside : inside + count]

    def is_run(self, position: int) -> bool:
        """Whether MIN_RUN frames of one kind start at a position, or fewer up to the end."""
        kind = None
        for _ in range(MIN_RUN):
            head = parse_header(self.at(position, 4))
            if not head or head.kind != (kind or head.kind):
                return False
            kind, position = head.kind, position + head.length
            if position == self.end:
                return True
        return True

    def next_run(self, position: int) -> int | None:
        """Finds the position of the next run of frames; None if there is none."""
        for start in range(position, min(self.end, position + MAX_JUNK)):
            if self.at(start, 1) == b"\xff" and self.is_run(start):
                return start
        return None


def read_mpeg(file: BinaryIO, start: int, end: int, layout: Layout) -> None:
    """Adds a stream to the layout for each of the MPEG files that were joined into this one."""
    frames, runs = _Frames(file, end), list[_Run]()
    position = frames.next_run(start)
    if position is None:
        raise BrokenAudioError("contains no MPEG audio frames: download or record the file again, or convert it")
    if not is_padding(file, start, position):
        layout.notes.append(f"begins with {position - start:,} non-audio bytes; they are ignored")
    while position < end:
        head = parse_header(frames.at(position, 4))
        if head and not (runs and head.kind == runs[-1].head.kind) and not frames.is_run(position):
            head = None
        if head and position + head.length <= end:
            frame = frames.at(position, head.length)
            tag = frame if _is_tag(head, frame) else b""
            if tag or not runs or head.kind != runs[-1].head.kind:
                runs.append(_Run(head, frame[:4], tag))
            if not tag:
                runs[-1].add(position, position + head.length)
            position += head.length
        elif size := _tag_size(frames.at(position, 32)):
            position += size
        elif is_padding(file, position, end):
            break
        elif head:
            layout.notes.append("ends in the middle of a frame, which is ignored")
            break
        elif (after := frames.next_run(position + 1)) is not None:
            raise BrokenAudioError(f"is damaged: bytes {position:,} to {after:,} are not MPEG frames")
        else:
            layout.notes.append(f"ends in {end - position:,} non-audio bytes; they are ignored")
            break
    for run in runs:
        layout.streams.append(_stream(run, layout))


def _is_tag(head: FrameHeader, frame: bytes) -> bool:
    """Whether a frame is a Xing frame, which describes the stream. A frame with LAME's name
    but no side information counts as one whose magic bytes are corrupt."""
    position = 4 + head.side
    has_name = frame[position + LAME : position + LAME + 4] == b"LAME" and not any(frame[4:position])
    return head.layer == 3 and (frame[position : position + 4] in (b"Xing", b"Info") or has_name)


def _tag_size(head: bytes) -> int:
    """Returns the size of a tag between joined files: ID3v2, ID3v1 or APEv2; 0 if there is none."""
    if head[:3] == b"TAG":
        return 128
    if head[:8] == b"APETAGEX":
        return int.from_bytes(head[12:16], "little") + 32
    return id3_size(head[:10])


def _stream(run: _Run, layout: Layout) -> Stream:
    """Makes a stream of a run, with a Xing frame that states the number of frames, so that libsndfile reads all."""
    head, tag, position = run.head, run.tag, 4 + run.head.side
    min_frames = run.count * head.samples - MAX_GAP
    if head.layer != 3:
        return Stream(pieces=[EMPTY_ID3, *run.pieces], min_frames=min_frames)
    stated = int.from_bytes(tag[position + 8 : position + 12], "big") if tag and tag[position + 7] & 1 else 0
    if stated > run.count + 1:  # some count the Xing frame too
        raise BrokenAudioError(f"is truncated: its header states {stated:,} MPEG frames, but {run.count:,} are there")
    if tag and _is_damaged(tag, position):
        layout.notes.append("has a damaged Xing frame: its beginning and end may be a few hundredths of a second off")
    if tag[position : position + 4] in (b"Xing", b"Info") and stated:
        tag = tag[: position + 8] + run.count.to_bytes(4, "big") + tag[position + 12 :]
        if tag[position + 7] & 2:  # it states the bytes too
            size = len(tag) + sum(end - start for start, end in run.pieces)
            tag = tag[: position + 12] + min(size, 0xFFFFFFFF).to_bytes(4, "big") + tag[position + 16 :]
    else:
        tag = _info_frame(run.first, run.count)
    return Stream(pieces=[EMPTY_ID3 + tag, *run.pieces], min_frames=min_frames)


def _is_damaged(tag: bytes, position: int) -> bool:
    """Whether LAME's checksum is wrong: a CRC-16 of 190 bytes, or 0 if none was written."""
    if tag[position : position + 4] not in (b"Xing", b"Info") or tag[position + 7] & 15 != 15:
        return tag[position + LAME : position + LAME + 4] == b"LAME"
    end, state = position + LAME + 34, 0
    for byte in tag[:end]:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0xA001 if state & 1 else 0)
    return int.from_bytes(tag[end : end + 2], "big") not in (0, state)


def _info_frame(first: bytes, frames: int) -> bytes:
    """Makes a silent frame, with a header like `first`, that states how many frames follow."""
    for bitrate in range(1, 15):
        header = bytes([0xFF, first[1] | 1, bitrate << 4 | first[2] & 0x0C, first[3]])
        head = parse_header(header)
        if head and head.length >= 4 + head.side + 120:
            tag = bytes(head.side) + b"Info" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big")
            return (header + tag).ljust(head.length, b"\0")
    raise AssertionError("the largest frame has room for an Info tag at every rate")

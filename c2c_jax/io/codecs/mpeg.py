"""MPEG audio (MP3, MP2, MP1): checked frame by frame, and against the number of frames that a Xing frame states.

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
SEARCHED = 1 << 18  # bytes, at most, without a frame in them
IN_ROW = 3  # frames that follow one another: fewer may be chance
BUFFER = 1 << 16
LAME = 120  # bytes from a Xing frame's mark to LAME's name, where the frame states all that it may
MAX_GAP = 2 * 4095  # samples that a Xing frame may say are the encoder's silence, at the beginning and the end
# A tag of padding. Without one libsndfile looks for a resource fork first, which is a file `._NAME` too, as Macs leave
# them on other disks, and takes the sound for SD2 if it is there.
EMPTY_ID3 = b"ID3\x04" + bytes(5) + b"\x14" + bytes(20)


@dataclasses.dataclass(frozen=True)
class Head:
    """A frame's head. length: of the frame in bytes; side: bytes of side information behind the head (layer 3)."""

    version: int
    layer: int
    rate: int
    is_mono: bool
    length: int
    samples: int
    side: int

    @property
    def kind(self) -> tuple[int, int, int, bool]:
        """What all frames of a stream have in common."""
        return self.version, self.layer, self.rate, self.is_mono


def head_of(four: bytes) -> Head | None:
    """The head of a frame in its first four bytes; None where they are not one of a known bitrate."""
    if len(four) < 4 or four[0] != 0xFF or four[1] & 0xE0 != 0xE0:
        return None
    version, layer, bitrate, rate = four[1] >> 3 & 3, 4 - (four[1] >> 1 & 3), four[2] >> 4, four[2] >> 2 & 3
    if version == 1 or layer == 4 or not 1 <= bitrate <= 14 or rate == 3:
        return None
    hertz, padding, is_mono = RATES[version][rate], four[2] >> 1 & 1, four[3] >> 6 == 3
    bits = 1000 * BITRATES[version == 3, layer][bitrate - 1]
    samples = {1: 384, 2: 1152, 3: 1152 if version == 3 else 576}[layer]
    length = (12 * bits // hertz + padding) * 4 if layer == 1 else samples // 8 * bits // hertz + padding
    side = (17 if is_mono else 32) if version == 3 else (9 if is_mono else 17)
    return Head(version, layer, hertz, is_mono, length, samples, side)


@dataclasses.dataclass
class _Run:
    """Frames of one kind in a row. first: the head of the first one. tag: the Xing frame before them, or empty. pieces:
    the parts of the file that hold them."""

    head: Head
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
    """The bytes of a file by their places, read a buffer at a time."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self.file, self.end, self.start, self.buffer = file, end, 0, b""

    def at(self, place: int, count: int) -> bytes:
        """Up to `count` bytes from a place on, none of them behind the end."""
        inside = place - self.start
        if not 0 <= inside <= len(self.buffer) - count:
            self.start, inside = place, 0
            self.buffer = read_at(self.file, place, min(BUFFER, max(self.end - place, 0)))
        return self.buffer[inside : inside + count]

    def is_row(self, place: int) -> bool:
        """Whether IN_ROW frames of one kind follow one another here, or fewer up to the end."""
        kind = None
        for _ in range(IN_ROW):
            head = head_of(self.at(place, 4))
            if not head or head.kind != (kind or head.kind):
                return False
            kind, place = head.kind, place + head.length
            if place == self.end:
                return True
        return True

    def next_row(self, place: int) -> int | None:
        """Where the next frames in a row start."""
        for one in range(place, min(self.end, place + SEARCHED)):
            if self.at(one, 1) == b"\xff" and self.is_row(one):
                return one
        return None


def read_mpeg(file: BinaryIO, start: int, end: int, layout: Layout) -> None:
    """Adds a stream to a layout for each of the MPEG files that were joined to one."""
    frames, runs = _Frames(file, end), list[_Run]()
    position = frames.next_row(start)
    if position is None:
        raise BrokenAudioError("holds no MPEG audio frames: get the sound again, or convert it")
    if not is_padding(file, start, position):
        layout.notes.append(f"begins with {position - start:,} non-audio bytes; they are ignored")
    while position < end:
        head = head_of(frames.at(position, 4))
        if head and not (runs and head.kind == runs[-1].head.kind) and not frames.is_row(position):
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
        elif (after := frames.next_row(position + 1)) is not None:
            raise BrokenAudioError(f"is damaged: bytes {position:,} to {after:,} are no MPEG frames")
        else:
            layout.notes.append(f"ends in {end - position:,} non-audio bytes; they are ignored")
            break
    for run in runs:
        layout.streams.append(_stream(run, layout))


def _is_tag(head: Head, frame: bytes) -> bool:
    """Whether a frame holds no sound but what there is. LAME's name behind no side information: its mark is damaged."""
    place = 4 + head.side
    has_name = frame[place + LAME : place + LAME + 4] == b"LAME" and not any(frame[4:place])
    return head.layer == 3 and (frame[place : place + 4] in (b"Xing", b"Info") or has_name)


def _tag_size(head: bytes) -> int:
    """The bytes of a tag between joined files: ID3v2, ID3v1 or APEv2; 0: there is none."""
    if head[:3] == b"TAG":
        return 128
    if head[:8] == b"APETAGEX":
        return int.from_bytes(head[12:16], "little") + 32
    return id3_size(head[:10])


def _stream(run: _Run, layout: Layout) -> Stream:
    """A run as libsndfile reads it whole: behind a Xing frame that states how many frames there are."""
    head, tag, place = run.head, run.tag, 4 + run.head.side
    least = run.count * head.samples - MAX_GAP
    if head.layer != 3:
        return Stream(pieces=[EMPTY_ID3, *run.pieces], min_frames=least)
    stated = int.from_bytes(tag[place + 8 : place + 12], "big") if tag and tag[place + 7] & 1 else 0
    if stated > run.count + 1:  # some count the Xing frame too
        raise BrokenAudioError(f"is truncated: its header promises {stated:,} MPEG frames, {run.count:,} are there")
    if tag and _is_damaged(tag, place):
        layout.notes.append("has a damaged Xing frame: its beginning and end may be a few hundredths of a second off")
    if tag[place : place + 4] in (b"Xing", b"Info") and stated:
        tag = tag[: place + 8] + run.count.to_bytes(4, "big") + tag[place + 12 :]
        if tag[place + 7] & 2:  # it states the bytes too
            size = len(tag) + sum(end - start for start, end in run.pieces)
            tag = tag[: place + 12] + min(size, 0xFFFFFFFF).to_bytes(4, "big") + tag[place + 16 :]
    else:
        tag = _info_frame(run.first, run.count)
    return Stream(pieces=[EMPTY_ID3 + tag, *run.pieces], min_frames=least)


def _is_damaged(tag: bytes, place: int) -> bool:
    """Whether the checksum of what LAME wrote is wrong, CRC-16 of 190 bytes; 0: none was written."""
    if tag[place : place + 4] not in (b"Xing", b"Info") or tag[place + 7] & 15 != 15:
        return tag[place + LAME : place + LAME + 4] == b"LAME"
    end, state = place + LAME + 34, 0
    for byte in tag[:end]:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0xA001 if state & 1 else 0)
    return int.from_bytes(tag[end : end + 2], "big") not in (0, state)


def _info_frame(first: bytes, frames: int) -> bytes:
    """A frame without sound, with the head of another one, that states how many frames follow."""
    for bitrate in range(1, 15):
        four = bytes([0xFF, first[1] | 1, bitrate << 4 | first[2] & 0x0C, first[3]])
        head = head_of(four)
        if head and head.length >= 4 + head.side + 120:
            tag = bytes(head.side) + b"Info" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big")
            return (four + tag).ljust(head.length, b"\0")
    raise AssertionError("the largest frame holds an Info tag at every rate")

"""Decodes sound files by libsndfile, block by block, and checks that they hold what their headers promise."""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile
from jaxtyping import Float

from c2c_jax.errors import one_line
from c2c_jax.io.codecs.containers import BrokenAudioError, Layout, Stream, View, read_at, without_tags
from c2c_jax.io.codecs.mpeg import head_of, read_mpeg
from c2c_jax.io.codecs.ogg import read_ogg
from c2c_jax.io.codecs.sized import FAMILIES, read_chunks, read_stated

RATES = (1000, 1_000_000)  # Hz; a damaged header may say anything
BLOCK_SAMPLES = 2**20  # of all channels, decoded at once
NEVER = 2**62  # frames: what libsndfile says of a length that it does not know
STREAMINFO = 42  # bytes to its end in a FLAC file


class _Decoder(soundfile.SoundFile):
    """soundfile seeks after each read of a file that can seek, at which MP3, Opus and FLAC lose time and samples."""

    def seekable(self) -> bool:
        return False


def layout_of(file: BinaryIO, size: int) -> Layout:
    """The streams of a sound file, by its headers. Raises BrokenSoundError for a file that is truncated or damaged."""
    layout = Layout()
    start, end = without_tags(file, size)
    if start == end:
        raise BrokenAudioError("is empty: there are only tags")
    head = read_at(file, start, 4)
    if head in FAMILIES:
        read_chunks(file, start, end, layout)
    elif head == b"fLaC":
        _read_flac(file, start, end, layout)
    elif head == b"OggS":
        read_ogg(file, start, end, layout)
    elif head_of(head) or (start and head[:3] == bytes(3)):  # an ID3 tag with padding behind it
        read_mpeg(file, start, end, layout)
    elif not read_stated(file, start, end, layout):
        layout.streams.append(Stream(pieces=[(start, end)]))
    return layout


def _read_flac(file: BinaryIO, start: int, end: int, layout: Layout) -> None:
    """Adds the stream of a FLAC file (RFC 9639). libsndfile checks every frame, and stops at the number of frames that
    the header states, which may be 0 or too small: in what it is given the number is unknown."""
    head = read_at(file, start, STREAMINFO)
    if len(head) < STREAMINFO or head[4] & 0x7F or int.from_bytes(head[5:8], "big") != STREAMINFO - 8:
        raise BrokenAudioError("is truncated or damaged: it has no STREAMINFO")
    frames = int.from_bytes(head[21:26], "big") & ((1 << 36) - 1)
    unknown = head[:21] + bytes([head[21] & 0xF0]) + bytes(4) + head[26:]
    layout.streams.append(Stream(pieces=[unknown, (start + STREAMINFO, end)], min_frames=frames))


def blocks_of(
    file: BinaryIO, layout: Layout, max_seconds: float = np.inf
) -> Iterator[tuple[int, Float[np.ndarray, "frames channels"]]]:
    """Sample rate (Hz) and samples of a sound, block by block.

    max_seconds: of a block, which takes a few MiB at most. Raises BrokenSoundError for streams that end before what
    they promise, that are damaged, or that differ in rate or channels.
    """
    kind = None
    for stream in layout.streams:
        view = View(file, stream.pieces)
        try:
            with _Decoder(view) as decoder:
                rate, channels = decoder.samplerate, decoder.channels
                if not RATES[0] <= rate <= RATES[1]:
                    raise BrokenAudioError(f"says {rate:,} samples a second: expected {RATES[0]:,} to {RATES[1]:,}")
                if kind not in (None, (rate, channels)):
                    raise BrokenAudioError("joins sounds of different rates or channels: split or convert it")
                kind = rate, channels
                size = max(int(min(BLOCK_SAMPLES // channels, max_seconds * rate)), 1)
                for block in _blocks(decoder, stream, size):
                    yield rate, block
        except (soundfile.SoundFileError, TypeError) as error:  # TypeError: raw samples without a header
            reason = one_line(error).rpartition(">: ")[2]  # without the name of our object
            raise BrokenAudioError(f"cannot be read as a sound ({reason})") from None
        finally:
            if view.error:
                raise BrokenAudioError(f"cannot be read ({view.error.strerror})") from None


def _blocks(decoder: _Decoder, stream: Stream, size: int) -> Iterator[Float[np.ndarray, "F C"]]:
    done = 0
    while len(block := decoder.read(size, dtype="float32", always_2d=True)):
        done += len(block)
        yield block
    promised = decoder.frames if stream.min_frames is None else stream.min_frames
    if done < promised < NEVER:
        raise BrokenAudioError(f"is truncated or damaged: {done:,} of {promised:,} frames could be decoded")
    if stream.min_frames is None and done > promised:
        raise BrokenAudioError(f"is damaged: it promises {promised:,} frames and gives {done:,}")

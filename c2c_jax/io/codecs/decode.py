"""Decodes sound files block by block with libsndfile, and checks that they are as long as their headers state."""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile
from jaxtyping import Float

from c2c_jax.errors import one_line
from c2c_jax.io.codecs.containers import BrokenAudioError, Layout, SplicedFile, Stream, read_at, without_tags
from c2c_jax.io.codecs.mpeg import parse_header, read_mpeg
from c2c_jax.io.codecs.ogg import read_ogg
from c2c_jax.io.codecs.sized import FAMILIES, read_chunks, read_fixed_header

RATES = (1000, 1_000_000)  # allowed sample rates in Hz; a damaged header may state any
BLOCK_SAMPLES = 2**20  # of all channels, decoded at once
UNKNOWN_FRAMES = 2**62  # libsndfile states this many frames or more if it does not know the length
STREAMINFO_END = 42  # bytes of a FLAC file up to the end of its STREAMINFO block


class _Decoder(soundfile.SoundFile):
    """Prevents soundfile from seeking after each read, which is slow and loses samples in MP3, Opus and FLAC."""

    def seekable(self) -> bool:
        return False


def read_layout(file: BinaryIO, size: int) -> Layout:
    """Reads the streams of a sound file from its headers. Raises BrokenAudioError if it is truncated or damaged."""
    layout = Layout()
    start, end = without_tags(file, size)
    if start == end:
        raise BrokenAudioError("is empty: it has only tags")
    head = read_at(file, start, 4)
    if head in FAMILIES:
        read_chunks(file, start, end, layout)
    elif head == b"fLaC":
        _read_flac(file, start, end, layout)
    elif head == b"OggS":
        read_ogg(file, start, end, layout)
    elif parse_header(head) or (start and head[:3] == bytes(3)):  # an ID3 tag followed by padding
        read_mpeg(file, start, end, layout)
    elif not read_fixed_header(file, start, end, layout):
        layout.streams.append(Stream(pieces=[(start, end)]))
    return layout


def _read_flac(file: BinaryIO, start: int, end: int, layout: Layout) -> None:
    """Adds the stream of a FLAC file (RFC 9639). libsndfile checks every frame, but stops at the number of frames that
    the header states, which may be 0 or too small, so that number is replaced by "unknown"."""
    head = read_at(file, start, STREAMINFO_END)
    if len(head) < STREAMINFO_END or head[4] & 0x7F or int.from_bytes(head[5:8], "big") != STREAMINFO_END - 8:
        raise BrokenAudioError("is truncated or damaged: it has no STREAMINFO")
    frames = int.from_bytes(head[21:26], "big") & ((1 << 36) - 1)
    unknown = head[:21] + bytes([head[21] & 0xF0]) + bytes(4) + head[26:]
    layout.streams.append(Stream(pieces=[unknown, (start + STREAMINFO_END, end)], min_frames=frames))


def decode_blocks(
    file: BinaryIO, layout: Layout, max_seconds: float = np.inf
) -> Iterator[tuple[int, Float[np.ndarray, "frames channels"]]]:
    """Yields the sample rate (Hz) and samples of a sound block by block.

    max_seconds: of a block, which takes a few MiB at most. Raises BrokenAudioError for streams that are truncated or
    damaged, or that differ in rate or channels.
    """
    kind = None
    for stream in layout.streams:
        view = SplicedFile(file, stream.pieces)
        try:
            with _Decoder(view) as decoder:
                rate, channels = decoder.samplerate, decoder.channels
                if not RATES[0] <= rate <= RATES[1]:
                    raise BrokenAudioError(f"states a rate of {rate:,} Hz: expected {RATES[0]:,} to {RATES[1]:,}")
                if kind not in (None, (rate, channels)):
                    raise BrokenAudioError("joins sounds with different rates or channels: split or convert it")
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
    expected = decoder.frames if stream.min_frames is None else stream.min_frames
    if done < expected < UNKNOWN_FRAMES:
        raise BrokenAudioError(f"is truncated or damaged: {done:,} of {expected:,} frames could be decoded")
    if stream.min_frames is None and done > expected:
        raise BrokenAudioError(f"is damaged: its header states {expected:,} frames, but {done:,} were decoded")

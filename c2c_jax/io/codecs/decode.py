"""Sound files to blocks of samples by libsndfile, checked against what the files promise."""

import hashlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile
from jaxtyping import Float, Int

from c2c_jax.errors import one_line
from c2c_jax.io.codecs.chunks import FAMILIES, read_chunks
from c2c_jax.io.codecs.containers import BrokenSoundError, Layout, Stream, View, read_at, without_tags
from c2c_jax.io.codecs.flac import read_flac
from c2c_jax.io.codecs.headers import header_reader
from c2c_jax.io.codecs.mpeg import head_of, read_mpeg
from c2c_jax.io.codecs.ogg import read_ogg

RATES = (1000, 1_000_000)  # Hz; what a damaged header says beyond would be resampled without end
BLOCK_SAMPLES = 2**20  # of all channels, decoded at once
NEVER = 2**62  # frames: libsndfile's word for a length that it does not know
MAX_STREAMS = 1000


class _Decoder(soundfile.SoundFile):
    """soundfile seeks after each read of a file that can seek, at which MP3, Opus and FLAC lose time and samples."""

    def seekable(self) -> bool:
        return False


def layout_of(file: BinaryIO, size: int) -> Layout:
    """The streams of a sound file, by its headers alone. Raises BrokenSoundError for what is cut or damaged."""
    layout = Layout()
    start, end = without_tags(file, size)
    if start == end:
        raise BrokenSoundError("is empty: there are only tags")
    while start < end:
        if len(layout.streams) >= MAX_STREAMS:
            raise BrokenSoundError(f"joins more than {MAX_STREAMS:,} sounds: split it")
        head = read_at(file, start, 24)
        if head[:4] in FAMILIES:
            start = read_chunks(file, start, end, layout)
        elif read := header_reader(head):
            start = read(file, start, end, layout)
        elif head[:4] == b"fLaC":
            start = read_flac(file, start, end, layout)
        elif head[:4] == b"OggS":
            start = read_ogg(file, start, end, layout)
        elif head_of(head[:4]) or (start and head[:3] == bytes(3)):
            start = read_mpeg(file, start, end, layout)
        else:
            layout.streams.append(Stream(pieces=[(start, end)]))
            start = end
    return layout


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
                found = decoder.samplerate, decoder.channels
                if not RATES[0] <= decoder.samplerate <= RATES[1]:
                    raise BrokenSoundError(
                        f"says {decoder.samplerate:,} samples a second: expected {RATES[0]:,} to {RATES[1]:,}"
                    )
                if found != (kind or found):
                    raise BrokenSoundError("joins sounds of different rates or channels: split or convert it")
                kind = found
                size = max(int(min(BLOCK_SAMPLES // decoder.channels, max_seconds * decoder.samplerate)), 1)
                for block in (_flac_blocks if stream.is_flac else _blocks)(decoder, stream, layout, size):
                    yield decoder.samplerate, block
        except (soundfile.SoundFileError, TypeError) as error:  # TypeError: raw samples without a header
            raise BrokenSoundError(f"cannot be read as a sound ({_reason(error)})") from None
        finally:
            if view.error:
                raise BrokenSoundError(f"cannot be read ({view.error.strerror})") from None


def _reason(error: Exception) -> str:
    """libsndfile's message, without the name of our object in it."""
    return one_line(error).rpartition(">: ")[2]


def _blocks(decoder: _Decoder, stream: Stream, layout: Layout, size: int) -> Iterator[Float[np.ndarray, "F C"]]:
    done = 0
    while len(block := decoder.read(size, dtype="float32", always_2d=True)):
        done += len(block)
        yield block
    promised = decoder.frames if stream.frames is None else stream.frames - stream.slack
    _require_whole(done, promised)
    if not stream.slack and promised < done:
        raise BrokenSoundError(f"is damaged: it promises {promised:,} frames and gives {done:,}")


def _require_whole(done: int, promised: int) -> None:
    if done < promised < NEVER:
        raise BrokenSoundError(f"is truncated or damaged: {done:,} of {promised:,} frames could be decoded")


def _flac_blocks(decoder: _Decoder, stream: Stream, layout: Layout, size: int) -> Iterator[Float[np.ndarray, "F C"]]:
    """Reads what is stated, then what is behind it: a stated number may be too small. The MD5 decides where there is
    one."""
    width = {"PCM_S8": 1, "PCM_16": 2, "PCM_24": 3}[decoder.subtype]
    digest, done, stated = hashlib.md5(usedforsecurity=False), 0, stream.frames or 0
    while True:
        count = min(size, stated - done) if done < stated else size
        try:
            block_FC = decoder.read(count, dtype="int32", always_2d=True)
        except soundfile.LibsndfileError:
            if not 0 < stated <= done:
                raise
            if stream.md5 is None:
                layout.notes.append("has non-audio bytes after the end that its header states; they are ignored")
            break
        if not len(block_FC):
            break
        done += len(block_FC)
        digest.update(_bytes_of(block_FC, width))
        yield block_FC.astype(np.float32) * np.float32(2**-31)
        if done == stated and digest.digest() == stream.md5:
            return
    if stream.md5 is None:
        _require_whole(done, stated)
    elif digest.digest() != stream.md5:
        _require_whole(done, stated)
        raise BrokenSoundError("is damaged: its samples do not have the MD5 checksum that it states")


def _bytes_of(block_FC: Int[np.ndarray, "F C"], width: int) -> bytes:
    """Samples that lie in the upper bytes of 32 bits, as FLAC's checksum counts them: of `width` bytes each."""
    if width == 3:
        return block_FC.astype("<i4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
    return (block_FC >> (32 - 8 * width)).astype(f"<i{width}").tobytes()

"""Image and sound files to their vectors in a space."""

import collections
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Float

from c2c_jax.errors import AudioError, ImageError
from c2c_jax.io.audio import read_audio, report
from c2c_jax.io.images import read_image
from c2c_jax.spaces.models.clap_audio import Mels
from c2c_jax.spaces.space import Space, batch_size_for

READERS = min(os.cpu_count() or 1, 16)  # threads
BATCH = 16  # sounds that are encoded at once
ENCODED_AT_ONCE = 64  # images


def encode_audio_files(
    paths: Sequence[Path],
    space: Space,
    *,
    on_audio: Callable[[], None] = lambda: None,
    on_note: Callable[[str], None] = report,
) -> tuple[dict[Path, Float[np.ndarray, "E"]], list[AudioError]]:
    """The raw projections of the sounds that can be read, and the errors of the others, both in order.

    Threads decode files ahead of the tower, at most as many as it takes in two batches. on_sound: called after each
    file. on_note: called, in order, with the notes of `read_audio`. Raises CheckpointError for a space that has no
    audio tower.
    """
    preprocessor = space.require_mels()
    vectors: dict[Path, np.ndarray] = {}
    errors: list[AudioError] = []
    batch: dict[Path, Mels] = {}
    size = batch_size_for(len(paths), BATCH)

    def read(path: Path) -> tuple[Mels, list[str]]:
        notes: list[str] = []
        sound = read_audio(path, preprocessor.sample_rate, preprocessor.max_seconds, notes.append)
        return preprocessor([sound]), notes

    def encode() -> None:
        mels = Mels(*map(np.concatenate, zip(*batch.values(), strict=True)))
        vectors.update(zip(batch, space.encode_mels(mels, batch_size=size), strict=True))
        batch.clear()

    with ThreadPoolExecutor(READERS) as readers:
        unread = iter(paths)
        ahead: collections.deque[tuple[Path, Future[tuple[Mels, list[str]]]]] = collections.deque()

        def read_ahead(count: int) -> None:
            ahead.extend((path, readers.submit(read, path)) for path in itertools.islice(unread, count))

        read_ahead(BATCH + READERS)
        while ahead:
            path, reading = ahead.popleft()
            try:
                batch[path], notes = reading.result()
                for note in notes:
                    on_note(note)
            except AudioError as error:
                errors.append(error)
            read_ahead(1)
            on_audio()
            if len(batch) == size:
                encode()
    if batch:
        encode()
    return vectors, errors


def encode_image_files(
    paths: Sequence[Path], space: Space, on_image: Callable[[], None] = lambda: None
) -> tuple[dict[Path, Float[np.ndarray, "S"]], list[ImageError]]:
    """The raw projections of the images that can be read, and the errors of the others, both in order. Only an image's
    pixels are kept until they are encoded. on_image: called after each file."""
    vectors: dict[Path, np.ndarray] = {}
    errors: list[ImageError] = []
    for start in range(0, len(paths), ENCODED_AT_ONCE):
        pixels: dict[Path, np.ndarray] = {}
        for path in paths[start : start + ENCODED_AT_ONCE]:
            try:
                pixels[path] = space.pixels_of(read_image(path))
            except ImageError as error:
                errors.append(error)
            on_image()
        if pixels:
            vectors.update(zip(pixels, space.encode_pixels(np.stack(list(pixels.values()))), strict=True))
    return vectors, errors

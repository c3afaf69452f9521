"""Encodes image and sound files to vectors in a space."""

import collections
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Float

from c2c_jax.errors import AudioError, ImageError
from c2c_jax.io.audio import log_note, read_audio
from c2c_jax.io.images import read_image
from c2c_jax.spaces.models.clap_audio import Mels
from c2c_jax.spaces.space import Space, batch_size_for

READER_THREADS = min(os.cpu_count() or 1, 16)  # threads
AUDIO_BATCH, IMAGE_BATCH = 16, 64  # files encoded at once


def encode_audio_files(
    paths: Sequence[Path],
    space: Space,
    *,
    on_audio: Callable[[], None] = lambda: None,
) -> tuple[dict[Path, Float[np.ndarray, "E"]], list[AudioError]]:
    """Returns the raw projections of the readable sound files, and the errors of the others, both in input order.

    Threads decode files while the tower encodes earlier ones. on_audio: called after each file. Notes of
    `read_audio` are logged in input order. Raises CheckpointError for a space without an audio tower.
    """
    preprocessor = space.require_audio_preprocessor()
    vectors: dict[Path, np.ndarray] = {}
    errors: list[AudioError] = []
    batch: dict[Path, Mels] = {}
    size = batch_size_for(len(paths), AUDIO_BATCH)

    def read(path: Path) -> tuple[Mels, list[str]]:
        notes: list[str] = []
        waveform = read_audio(path, preprocessor.sample_rate, preprocessor.max_seconds, notes.append)
        return preprocessor([waveform]), notes

    def encode() -> None:
        mels = Mels(*map(np.concatenate, zip(*batch.values(), strict=True)))
        vectors.update(zip(batch, space.encode_mels(mels, batch_size=size), strict=True))
        batch.clear()

    with ThreadPoolExecutor(READER_THREADS) as readers:
        remaining = iter(paths)
        pending: collections.deque[tuple[Path, Future[tuple[Mels, list[str]]]]] = collections.deque()

        def read_ahead(count: int) -> None:
            pending.extend((path, readers.submit(read, path)) for path in itertools.islice(remaining, count))

        read_ahead(AUDIO_BATCH + READER_THREADS)
        while pending:
            path, future = pending.popleft()
            try:
                batch[path], notes = future.result()
                for note in notes:
                    log_note(note)
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
    """Returns the raw projections of the readable image files, and the errors of the others, both in input order.
    on_image: called after each file."""
    vectors: dict[Path, np.ndarray] = {}
    errors: list[ImageError] = []
    for start in range(0, len(paths), IMAGE_BATCH):
        pixels: dict[Path, np.ndarray] = {}
        for path in paths[start : start + IMAGE_BATCH]:
            try:
                pixels[path] = space.preprocess_image(read_image(path))
            except ImageError as error:
                errors.append(error)
            on_image()
        if pixels:
            vectors.update(zip(pixels, space.encode_pixels(np.stack(list(pixels.values()))), strict=True))
    return vectors, errors

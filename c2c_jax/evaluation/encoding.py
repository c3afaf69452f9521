"""Pictures, sounds and texts through the two spaces' towers, with progress on stderr."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from c2c_jax.evaluation.rows import LeftOut
from c2c_jax.io.progress import Progress
from c2c_jax.io.scratch import empty_vectors
from c2c_jax.spaces.encoding import sound_vectors, source_vectors_of
from c2c_jax.spaces.space import Space

TEXTS_AT_ONCE = 1024

Vectors = dict[Path, Float[np.ndarray, "E"]]
TextVectors = dict[str, Float[np.ndarray, "E"]]


def text_vectors(texts: Iterable[str], space: Space, bar: Progress, told: str) -> TextVectors:
    """Raw projections of the different ones among some texts."""
    different = list(dict.fromkeys(texts))
    return dict(zip(different, text_rows(different, space, bar, told), strict=True))


def text_rows(texts: Sequence[str], space: Space, bar: Progress, told: str) -> Float[np.ndarray, "N E"]:
    """Raw projections of texts, row by row; many of them lie in a file, see `scratch.empty_vectors`."""
    task = bar.add_task(told, total=len(texts), visible=bool(texts))
    vectors_NE = empty_vectors(len(texts), space.dim)
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        block = texts[start : start + TEXTS_AT_ONCE]
        vectors_NE[start : start + len(block)] = space.encode_text(block)
        bar.advance(task, len(block))
    return vectors_NE


def picture_vectors(paths: Sequence[Path], space: Space, bar: Progress) -> tuple[Vectors, list[LeftOut]]:
    """Raw projections of the pictures that can be read, and the others."""
    return _read(paths, bar, "seeing", lambda on_file: source_vectors_of(paths, space, on_file))


def heard_vectors(paths: Sequence[Path], space: Space, bar: Progress) -> tuple[Vectors, list[LeftOut]]:
    """Raw projections of the sounds that can be read, and the others."""
    return _read(paths, bar, "hearing", lambda on_file: sound_vectors(paths, space, on_sound=on_file))


def _read(
    paths: Sequence[Path], bar: Progress, told: str, read: Callable[[Callable[[], None]], tuple[Vectors, Sequence]]
) -> tuple[Vectors, list[LeftOut]]:
    task = bar.add_task(told, total=len(paths), visible=bool(paths))
    vectors, errors = read(lambda: bar.advance(task))
    unread = [path for path in paths if path not in vectors]
    whys = [str(error).removeprefix(f"{path} ") for path, error in zip(unread, errors, strict=True)]
    return vectors, [LeftOut(file=str(path), why=why) for path, why in zip(unread, whys, strict=True)]

"""A folder of sounds with their CLAP vectors: each sound is encoded once and kept in an index, which is searched.

The index is laid out like an embedding store of one side (`data/store.py`): a chunked array `sounds` [N, E] of raw
projections, `captions/CHUNK.txt` with a line of JSON for each of its rows (the file's name, size, time and SHA-256),
and `manifest.json` with the space and a checksum for every chunk. It is replaced as a whole folder.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from jaxtyping import Float, Shaped

from c2c_jax import __version__
from c2c_jax.data.chunks import (
    MAX_CHUNK_ROWS,
    ChunkedArray,
    ChunkedTexts,
    Dtype,
    cast_problem,
    cast_vectors,
    write_texts,
)
from c2c_jax.data.store import Count, Sha256, read_record, write_json
from c2c_jax.errors import AudioError, StoreError
from c2c_jax.io.atomic import atomic_write, exclusive_lock, sweep
from c2c_jax.io.audio import AUDIO_SUFFIXES, INDEX, find_audio
from c2c_jax.io.console import printable
from c2c_jax.io.files import is_regular, path_exists, path_to_text, sha256_of, text_to_path
from c2c_jax.io.json import parse_json
from c2c_jax.retrieval.nearest import top_k_of_blocks
from c2c_jax.retrieval.scoring import Scoring
from c2c_jax.spaces.encoding import encode_audio_files
from c2c_jax.spaces.space import Space, SpaceId

FORMAT = 1
DTYPES = ("float16", "float32")  # of the vectors: the first that holds them all
CHUNK_ROWS = 4096
ADVICE = "delete the index to encode the sounds again"
PART = 256  # sounds encoded between looks at the clock
WRITING = 0.05  # fraction of the time that may go into writing the index before its end
BLOCK = 2**15  # sounds scored together


@dataclasses.dataclass(frozen=True)
class IndexedFile:
    """A sound file as it was when it was encoded. name: its path in the library. modified: in nanoseconds."""

    name: str
    size: int
    modified: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """A file that could not be read, as it was then. changed: when its content or its permissions last changed, in
    nanoseconds. why: the error message."""

    name: str
    size: int
    changed: int
    why: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Checksums:
    sounds: list[Sha256]
    captions: list[Sha256]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Manifest:
    """The content of an index's manifest.json."""

    format: int
    space: SpaceId
    rows: Count
    dtype: Dtype
    chunk_rows: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHUNK_ROWS)]
    checksums: _Checksums
    unreadable: list[Unreadable] = dataclasses.field(default_factory=list)
    version: str = ""  # of c2c_jax, which could not read the files in `unreadable`


@dataclasses.dataclass(kw_only=True)
class Library:
    """The sounds of a folder and the vectors of those that have been encoded; made by `open_library`.

    place: the folder of the index. files: the file that row i of `vectors_NE` is the vector of, which may have changed
    or be gone. rows: row of each unchanged file, by its name. pending: new and changed files. unreadable: files that
    could not be read and have not changed since. is_written: whether the index on disk is up to date.
    """

    folder: Path
    place: Path
    space: SpaceId
    files: list[IndexedFile]
    vectors_NE: Float[np.ndarray, "N E"]
    rows: dict[str, int] = dataclasses.field(default_factory=dict)
    pending: list[Path] = dataclasses.field(default_factory=list)
    unreadable: list[Unreadable] = dataclasses.field(default_factory=list)
    is_written: bool = True

    def update(self, load: Callable[[], Space], on_audio: Callable[[], None] = lambda: None) -> list[AudioError]:
        """Encodes the pending sounds and writes the index, now and then during long work; changed and deleted files
        leave it. Returns an error for each sound that cannot be read; these are remembered as `unreadable`.

        A file with known content is not encoded again under another name or time. load: returns the space, called once
        a sound is to be encoded. on_audio: called after each sound. Raises StoreError if another process writes the
        index or if it cannot be written, and whatever `load` raises.
        """
        if self.is_written and not self.pending:
            return []
        failures: list[AudioError] = []
        row_of = {file.sha256: row for row, file in enumerate(self.files)}
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(exclusive_lock(self.place.parent))
            except BlockingIOError:
                raise StoreError(
                    f"another process is writing the index in {self.place.parent}: wait until it is done"
                ) from None
            ended, spent = time.monotonic(), 0.0
            for start in range(0, len(self.pending), PART):
                failures += self._add(self.pending[start : start + PART], row_of, load, on_audio)
                if time.monotonic() - ended > spent / WRITING:
                    since = time.monotonic()
                    self._write()
                    ended, spent = time.monotonic(), time.monotonic() - since
            if not self.is_written:
                self._write()
        self.pending = []
        return failures

    def blocks(self) -> Iterator[Shaped[np.ndarray, "B E"]]:
        """Yields the raw vectors of the unchanged sounds, in the order of their names, up to BLOCK at a time."""
        rows = [row for _, row in sorted(self.rows.items())]
        for rows_B in np.array_split(rows, -(-len(rows) // BLOCK)):
            yield self.vectors_NE[rows_B]

    def nearest(
        self,
        query_QE: Float[np.ndarray, "Q E"],
        k: int,
        scoring: Scoring = Scoring(),  # noqa: B008
    ) -> list[list[tuple[float, Path]]]:
        """Score and file of the k sounds that score highest for each query, best first; all of them if there are fewer.
        scoring: how to score; plain cosines by default. Sounds are centred and compared block by block, so that only
        one block is in memory besides the index."""
        names = sorted(self.rows)
        sounds = map(scoring.candidates, self.blocks())
        scored = ((sound_BE, scoring.penalty(sound_BE)) for sound_BE in sounds)
        score_Qk, index_Qk = top_k_of_blocks(scoring.queries(query_QE), scored, min(k, len(names)))
        if not np.isfinite(score_Qk).all():
            raise StoreError(f"the index {self.place} holds zero or non-finite vectors; {ADVICE}")
        return [
            [(float(score), self.folder / text_to_path(names[index])) for score, index in zip(*of_query, strict=True)]
            for of_query in zip(score_Qk, index_Qk, strict=True)
        ]

    def _add(
        self,
        paths: Sequence[Path],
        row_of: dict[str, int],
        load: Callable[[], Space],
        on_audio: Callable[[], None],
    ) -> list[AudioError]:
        """Adds the vectors of some files: those of `row_of`, by their SHA-256, else newly encoded ones."""
        files: dict[Path, IndexedFile] = {}
        vectors: dict[Path, np.ndarray] = {}
        failures: dict[Path, AudioError] = {}
        for path in paths:
            try:
                files[path] = file = _indexed(path, self.folder)
                if file.sha256 in row_of:
                    vectors[path] = self.vectors_NE[row_of[file.sha256]]
            except OSError as error:
                failures[path] = AudioError(f"{path} cannot be read ({error.strerror})")
        new = [path for path in files if path not in vectors]
        for _ in range(len(paths) - len(new)):
            on_audio()
        if new:
            encoded, errors = encode_audio_files(new, load(), on_audio=on_audio)
            failures |= zip((path for path in new if path not in encoded), errors, strict=True)
            for path, vector_E in encoded.items():
                try:
                    vectors[path] = _storable(path, vector_E)
                except AudioError as error:
                    failures[path] = error
        for path, failure in failures.items():
            size, _, changed = _state(path)
            self.unreadable.append(Unreadable(_name(path, self.folder), size, changed, printable(failure)))
        if vectors:
            self.rows |= {files[path].name: len(self.files) + place for place, path in enumerate(vectors)}
            self.files += [files[path] for path in vectors]
            self.vectors_NE = np.concatenate([self.vectors_NE, np.stack(list(vectors.values()))])
        self.is_written = False
        return list(failures.values())

    def _write(self) -> None:
        rows = [row for _, row in sorted(self.rows.items())]
        lines = (json.dumps(dataclasses.astuple(self.files[row])) for row in rows)
        vectors_NE = self.vectors_NE[rows]
        dtype = vectors_NE.dtype.name
        try:
            with atomic_write(self.place) as temporary:
                temporary.mkdir()
                _, texts = write_texts(temporary / "captions", lines, CHUNK_ROWS)
                array = ChunkedArray(len(rows), CHUNK_ROWS, temporary / "sounds", self.space.dim, dtype, ADVICE)
                array.describe()
                manifest = _Manifest(
                    format=FORMAT,
                    space=self.space,
                    rows=len(rows),
                    dtype=dtype,
                    chunk_rows=CHUNK_ROWS,
                    checksums=_Checksums(
                        sounds=[array.write(chunk, vectors_NE[array.rows_of(chunk)]) for chunk in range(array.chunks)],
                        captions=texts,
                    ),
                    unreadable=self.unreadable,
                    version=__version__,
                )
                write_json(temporary / "manifest.json", dataclasses.asdict(manifest))
        except OSError as error:
            raise StoreError(
                f"{self.place} could not be written: {error.strerror}; free disk space or pass another --index"
            ) from error
        self.is_written = True


def open_library(folder: Path, space: SpaceId, index: Path | None = None) -> Library:
    """The sounds in a folder and the folders inside it, with what their index holds; encodes nothing yet.

    space: of the vectors; each space has its own index. index: the folder of the indexes; None: `.c2c-index` in the
    library, or a folder in the user's cache if the library is read-only.
    Raises AudioError for a folder that is missing or holds no sound, StoreError for a damaged index.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no folder"
        raise AudioError(f"expected a folder of sounds at {folder}, found {found}: pass an existing folder")
    paths = find_audio(folder)
    if not paths:
        raise AudioError(f"folder {folder} contains no sound: expected files ending in {', '.join(AUDIO_SUFFIXES)}")
    own, place = folder / INDEX, space.fingerprint[:16]
    holder = index or (own if os.access(folder, os.W_OK) else _cache_of(folder))
    sweep(holder, own)
    files, vectors_NE, failed = next(
        (_read(one / place, space) for one in (holder, own) if path_exists(one / place / "manifest.json")),
        ([], np.zeros((0, space.dim), DTYPES[0]), []),
    )
    library = Library(folder=folder, place=holder / place, space=space, files=files, vectors_NE=vectors_NE)
    row_of = {(file.name, file.size, file.modified): row for row, file in enumerate(files)}
    failure_of = {(file.name, file.size, file.changed): file for file in failed}
    for path in paths:
        name, (size, modified, changed) = _name(path, folder), _state(path)
        if (name, size, modified) in row_of:
            library.rows[name] = row_of[name, size, modified]
        elif (name, size, changed) in failure_of:
            library.unreadable.append(failure_of[name, size, changed])
        else:
            library.pending.append(path)
    library.is_written = len(library.rows) == len(files) and len(library.unreadable) == len(failed)
    return library


def _read(place: Path, space: SpaceId) -> tuple[list[IndexedFile], Float[np.ndarray, "N E"], list[Unreadable]]:
    """The content of an index, checked, without the files that another version could not read. Raises StoreError if it
    is damaged, or of another format or space."""
    manifest = read_record(_Manifest, place / "manifest.json", FORMAT, ADVICE)
    if manifest.space.fingerprint != space.fingerprint or manifest.space.dim != space.dim:
        raise StoreError(f"the index {place} is of another space, {manifest.space.name}; {ADVICE}")
    count, chunk_rows, checksums = manifest.rows, manifest.chunk_rows, manifest.checksums
    array = ChunkedArray(count, chunk_rows, place / "sounds", space.dim, manifest.dtype, ADVICE)
    texts = ChunkedTexts(count, chunk_rows, place / "captions", ADVICE)
    if not len(checksums.sounds) == len(checksums.captions) == array.chunks:
        raise StoreError(f"{place / 'manifest.json'} is damaged (expected one checksum per chunk); {ADVICE}")
    array.check_files()
    vectors_NE, files = np.empty((count, space.dim), array.dtype), []
    for chunk, (of_audio, of_texts) in enumerate(zip(checksums.sounds, checksums.captions, strict=True)):
        rows = array.rows_of(chunk)
        vectors_NE[rows] = array.read(chunk, of_audio)
        for line in texts.read(chunk, of_texts):
            try:
                files.append(IndexedFile(*msgspec.convert(parse_json(line), tuple[str, int, int, str])))
            except (ValueError, msgspec.ValidationError) as cause:
                raise StoreError(f"the index {place} is damaged ({cause}); {ADVICE}") from None
    return files, vectors_NE, manifest.unreadable if manifest.version == __version__ else []


def _cache_of(folder: Path) -> Path:
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        raise StoreError(f"{folder} is not writable, and the home folder is unknown: pass --index") from None
    return cache / "c2c_jax" / "index" / hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]


def _name(path: Path, folder: Path) -> str:
    return path_to_text(path.relative_to(folder))


def _state(path: Path) -> tuple[int, int, int]:
    """Size of a file, and when its content, and its content or permissions, last changed; −1 each for a broken link."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1, -1
    return status.st_size, status.st_mtime_ns, max(status.st_mtime_ns, status.st_ctime_ns)


def _indexed(path: Path, folder: Path) -> IndexedFile:
    """Raises OSError for a file that cannot be read."""
    size, modified, _ = _state(path)
    if not is_regular(path):
        raise OSError(errno.EINVAL, "not a regular file")
    return IndexedFile(_name(path, folder), size, modified, sha256_of(path))


def _storable(path: Path, vector_E: Float[np.ndarray, "E"]) -> Float[np.ndarray, "E"]:
    """A vector in the first dtype that holds it. Raises AudioError if none does."""
    for dtype in DTYPES:
        (stored_E,), (is_held,) = cast_vectors(vector_E[None], dtype)
        if is_held:
            return stored_E
    raise AudioError(f"{path} has a CLAP vector that {cast_problem(vector_E, DTYPES[-1])}: leave the file out")

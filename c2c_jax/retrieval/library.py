"""Caches the CLAP vectors of a folder of sounds in an index on disk, and searches it.

The index has the layout of one side of an embedding store (`data/store.py`): a chunked array `sounds` [N, E] of raw
projections, `captions/CHUNK.txt` with one line of JSON per row (the file's name, size, time and SHA-256), and
`manifest.json` with the space and a checksum for every chunk. Each write replaces the whole folder atomically.
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

from c2c_jax.data.chunks import (
    MAX_CHUNK_ROWS,
    ChunkedArray,
    ChunkedTexts,
    Dtype,
    cast_vectors,
    why_not_castable,
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
from c2c_jax.spaces.space import Space
from c2c_jax.spaces.space_id import SpaceId
from c2c_jax.version import __version__

FORMAT = 1
DTYPES = ("float16", "float32")  # of the stored vectors; the first that represents them all is used
CHUNK_ROWS = 4096
ADVICE = "delete the index to encode the sounds again"
FILES_PER_PART = 256  # files encoded between two checks of the clock
MAX_WRITE_FRACTION = 0.05  # of the time, spent on writing the index while files are still being encoded
BLOCK = 2**15  # vectors scored at once


@dataclasses.dataclass(frozen=True)
class IndexedFile:
    """The state of a sound file when it was encoded. name: path relative to the library. modified: in nanoseconds."""

    name: str
    size: int
    modified: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class UnreadableFile:
    """The state of a file when it could not be read. changed: last change of content or permissions, in nanoseconds.
    why: the error message."""

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
    unreadable: list[UnreadableFile] = dataclasses.field(default_factory=list)
    version: str = ""  # the c2c_jax version that failed to read the files in `unreadable`


@dataclasses.dataclass(kw_only=True)
class Library:
    """A folder of sounds with the vectors of the encoded ones. Create it with `open_library`.

    index_folder: where the index is stored. files: file i has the vector `vectors_NE[i]`; it may have changed or been
    deleted since. rows: maps the name of each unchanged file to its row. pending: new and changed files. unreadable:
    files that could not be read and have not changed since. is_written: whether the index on disk is up to date.
    """

    folder: Path
    index_folder: Path
    space: SpaceId
    files: list[IndexedFile]
    vectors_NE: Float[np.ndarray, "N E"]
    rows: dict[str, int] = dataclasses.field(default_factory=dict)
    pending: list[Path] = dataclasses.field(default_factory=list)
    unreadable: list[UnreadableFile] = dataclasses.field(default_factory=list)
    is_written: bool = True

    def update(self, load: Callable[[], Space], on_audio: Callable[[], None] = lambda: None) -> list[AudioError]:
        """Encodes the pending sounds, drops changed and deleted files, and writes the index at intervals.

        Returns an error for each file that cannot be read and adds it to `unreadable`. Files are identified by their
        content: a renamed file is not encoded again. load: returns the space; called only if a sound must be encoded.
        on_audio: called after each sound. Raises StoreError if another process is writing the index or if writing
        fails, and whatever `load` raises.
        """
        if self.is_written and not self.pending:
            return []
        failures: list[AudioError] = []
        row_of = {file.sha256: row for row, file in enumerate(self.files)}
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(exclusive_lock(self.index_folder.parent))
            except BlockingIOError:
                raise StoreError(
                    f"another process is writing the index in {self.index_folder.parent}: wait until it is done"
                ) from None
            written_at, write_seconds = time.monotonic(), 0.0
            for start in range(0, len(self.pending), FILES_PER_PART):
                failures += self._add(self.pending[start : start + FILES_PER_PART], row_of, load, on_audio)
                if time.monotonic() - written_at > write_seconds / MAX_WRITE_FRACTION:
                    start_time = time.monotonic()
                    self._write()
                    written_at = time.monotonic()
                    write_seconds = written_at - start_time
            if not self.is_written:
                self._write()
        self.pending = []
        return failures

    def blocks(self) -> Iterator[Shaped[np.ndarray, "B E"]]:
        """Yields the raw vectors of the unchanged files, sorted by name, at most BLOCK at a time."""
        rows = [row for _, row in sorted(self.rows.items())]
        for rows_B in np.array_split(rows, -(-len(rows) // BLOCK)):
            yield self.vectors_NE[rows_B]

    def nearest(
        self,
        query_QE: Float[np.ndarray, "Q E"],
        k: int,
        scoring: Scoring = Scoring(),  # noqa: B008
    ) -> list[list[tuple[float, Path]]]:
        """Finds the k best sounds for each query: (score, file) pairs, best first; fewer if the library is smaller.

        scoring: plain cosines by default. Sounds are centred and scored block by block to save memory. Raises
        StoreError for an index with zero or non-finite vectors.
        """
        names = sorted(self.rows)
        candidates = map(scoring.candidates, self.blocks())
        blocks = ((audio_BE, scoring.penalty(audio_BE)) for audio_BE in candidates)
        score_Qk, index_Qk = top_k_of_blocks(scoring.queries(query_QE), blocks, min(k, len(names)))
        if not np.isfinite(score_Qk).all():
            raise StoreError(f"the index {self.index_folder} holds zero or non-finite vectors; {ADVICE}")
        return [
            [
                (float(score), self.folder / text_to_path(names[index]))
                for score, index in zip(*scored_rows, strict=True)
            ]
            for scored_rows in zip(score_Qk, index_Qk, strict=True)
        ]

    def _add(
        self,
        paths: Sequence[Path],
        row_of: dict[str, int],
        load: Callable[[], Space],
        on_audio: Callable[[], None],
    ) -> list[AudioError]:
        """Adds files to the index, with the vectors of `row_of` (row by SHA-256) or newly encoded ones."""
        files: dict[Path, IndexedFile] = {}
        vectors: dict[Path, np.ndarray] = {}
        failures: dict[Path, AudioError] = {}
        for path in paths:
            try:
                files[path] = file = _index_entry(path, self.folder)
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
                    vectors[path] = _in_storage_dtype(path, vector_E)
                except AudioError as error:
                    failures[path] = error
        for path, failure in failures.items():
            size, _, changed = _state(path)
            self.unreadable.append(UnreadableFile(_name(path, self.folder), size, changed, printable(failure)))
        if vectors:
            self.rows |= {files[path].name: row for row, path in enumerate(vectors, start=len(self.files))}
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
            with atomic_write(self.index_folder) as temp:
                temp.mkdir()
                _, captions = write_texts(temp / "captions", lines, CHUNK_ROWS)
                array = ChunkedArray(len(rows), CHUNK_ROWS, temp / "sounds", self.space.dim, dtype, ADVICE)
                array.describe()
                manifest = _Manifest(
                    format=FORMAT,
                    space=self.space,
                    rows=len(rows),
                    dtype=dtype,
                    chunk_rows=CHUNK_ROWS,
                    checksums=_Checksums(
                        sounds=[array.write(chunk, vectors_NE[array.rows_of(chunk)]) for chunk in range(array.chunks)],
                        captions=captions,
                    ),
                    unreadable=self.unreadable,
                    version=__version__,
                )
                write_json(temp / "manifest.json", dataclasses.asdict(manifest))
        except OSError as error:
            raise StoreError(
                f"{self.index_folder} could not be written: {error.strerror}; free disk space or pass another --index"
            ) from error
        self.is_written = True


def open_library(folder: Path, space: SpaceId, index: Path | None = None) -> Library:
    """Lists the sounds of a folder, subfolders included, and reads their index; encodes nothing yet.

    space: the CLAP space; each has its own index. index: parent folder of the indexes; None: `.c2c-index` in the
    library, or a folder in the user's cache if the library is read-only.
    Raises AudioError for a folder that is missing or contains no sound, StoreError for a damaged index.
    """
    if not folder.is_dir():
        actual = "a file" if folder.exists() else "no folder"
        raise AudioError(f"expected a folder of sounds at {folder}, found {actual}: pass an existing folder")
    paths = find_audio(folder)
    if not paths:
        raise AudioError(f"folder {folder} contains no sound: expected files ending in {', '.join(AUDIO_SUFFIXES)}")
    default_root, name = folder / INDEX, space.fingerprint[:16]
    root = index or (default_root if os.access(folder, os.W_OK) else _cache_of(folder))
    sweep(root, default_root)
    files, vectors_NE, unreadable = next(
        (_read(path / name, space) for path in (root, default_root) if path_exists(path / name / "manifest.json")),
        ([], np.zeros((0, space.dim), DTYPES[0]), []),
    )
    library = Library(folder=folder, index_folder=root / name, space=space, files=files, vectors_NE=vectors_NE)
    row_of = {(file.name, file.size, file.modified): row for row, file in enumerate(files)}
    failure_of = {(file.name, file.size, file.changed): file for file in unreadable}
    for path in paths:
        name, (size, modified, changed) = _name(path, folder), _state(path)
        if (name, size, modified) in row_of:
            library.rows[name] = row_of[name, size, modified]
        elif (name, size, changed) in failure_of:
            library.unreadable.append(failure_of[name, size, changed])
        else:
            library.pending.append(path)
    library.is_written = len(library.rows) == len(files) and len(library.unreadable) == len(unreadable)
    return library


def _read(
    index_folder: Path, space: SpaceId
) -> tuple[list[IndexedFile], Float[np.ndarray, "N E"], list[UnreadableFile]]:
    """Reads and checks an index: files, vectors and unreadable files; the latter only if this version recorded them.

    Raises StoreError if the index is damaged, or of another format or space.
    """
    manifest = read_record(_Manifest, index_folder / "manifest.json", FORMAT, ADVICE)
    if manifest.space.fingerprint != space.fingerprint or manifest.space.dim != space.dim:
        raise StoreError(f"the index {index_folder} is of another space, {manifest.space.name}; {ADVICE}")
    count, chunk_rows, checksums = manifest.rows, manifest.chunk_rows, manifest.checksums
    array = ChunkedArray(count, chunk_rows, index_folder / "sounds", space.dim, manifest.dtype, ADVICE)
    texts = ChunkedTexts(count, chunk_rows, index_folder / "captions", ADVICE)
    if not len(checksums.sounds) == len(checksums.captions) == array.chunks:
        raise StoreError(f"{index_folder / 'manifest.json'} is damaged (expected one checksum per chunk); {ADVICE}")
    array.check_files()
    vectors_NE, files = np.empty((count, space.dim), array.dtype), []
    for chunk, (of_audio, of_texts) in enumerate(zip(checksums.sounds, checksums.captions, strict=True)):
        rows = array.rows_of(chunk)
        vectors_NE[rows] = array.read(chunk, of_audio)
        for line in texts.read(chunk, of_texts):
            try:
                files.append(IndexedFile(*msgspec.convert(parse_json(line), tuple[str, int, int, str])))
            except (ValueError, msgspec.ValidationError) as cause:
                raise StoreError(f"the index {index_folder} is damaged ({cause}); {ADVICE}") from None
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
    """Returns size, time of the last content change, and time of the last content or permission change; −1 for each if
    the file cannot be examined, such as a broken link."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1, -1
    return status.st_size, status.st_mtime_ns, max(status.st_mtime_ns, status.st_ctime_ns)


def _index_entry(path: Path, folder: Path) -> IndexedFile:
    """Describes a file for the index. Raises OSError if it cannot be read."""
    size, modified, _ = _state(path)
    if not is_regular(path):
        raise OSError(errno.EINVAL, "not a regular file")
    return IndexedFile(_name(path, folder), size, modified, sha256_of(path))


def _in_storage_dtype(path: Path, vector_E: Float[np.ndarray, "E"]) -> Float[np.ndarray, "E"]:
    """Casts a vector to the first of DTYPES that represents it. Raises AudioError if none does."""
    for dtype in DTYPES:
        (stored_E,), (fits,) = cast_vectors(vector_E[None], dtype)
        if fits:
            return stored_E
    raise AudioError(f"{path} has a CLAP vector that {why_not_castable(vector_E, DTYPES[-1])}: leave the file out")

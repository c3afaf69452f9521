"""A folder of sounds with their vectors in one CLAP space: encoded once, kept in an index, searched.

The index is laid out as an embedding store of one side (`data/store.py`): a chunked array `sounds` [N, E] of raw
projections, `captions/CHUNK.txt` with a line for each of its rows (the file's name, size, time and SHA-256, in JSON),
and `manifest.json` with the space and a checksum for every chunk. It is replaced as a whole folder.
"""

import contextlib
import dataclasses
import errno
import hashlib
import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated

import jax
import msgspec
import numpy as np
from jaxtyping import Float, Int, Shaped

from c2c_jax import __version__
from c2c_jax.data.chunks import (
    MAX_CHUNK_ROWS,
    ChunkedArray,
    ChunkedTexts,
    Dtype,
    stored_as,
    why_not_stored,
    write_texts,
)
from c2c_jax.data.store import Count, Sha256, read_record, write_json
from c2c_jax.errors import SoundError, StoreError
from c2c_jax.io.atomic import atomic_write, exclusive_lock, sweep
from c2c_jax.io.console import printable
from c2c_jax.io.files import is_regular, is_there, path_of, sha256_of, text_of
from c2c_jax.io.json import parse_json
from c2c_jax.io.sounds import INDEX, SOUND_SUFFIXES, sound_files
from c2c_jax.retrieval.nearest import top_k
from c2c_jax.retrieval.scoring import Scoring
from c2c_jax.spaces.encoding import sound_vectors
from c2c_jax.spaces.space import Space, SpaceId

FORMAT = 1
DTYPES = ("float16", "float32")  # of the vectors: the first that holds them all
CHUNK_ROWS = 4096
ADVICE = "delete the index to encode the sounds again"
PART = 256  # sounds that are heard between looks at the clock
WRITING = 0.05  # share of the time that may go into writing the index before its end
FAISS_FROM = 50_000  # sounds
BLOCK = 2**15  # sounds that are scored together


@dataclasses.dataclass(frozen=True)
class Heard:
    """A sound file as it was when it was heard. name: its path in the library; modified: in nanoseconds."""

    name: str
    size: int
    modified: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """A file that could not be read, as it was then. changed: its content or its permissions, in nanoseconds; why: the
    whole message."""

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
    """What an index's manifest.json says."""

    format: int
    space: SpaceId
    rows: Count
    dtype: Dtype
    chunk_rows: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHUNK_ROWS)]
    checksums: _Checksums
    unreadable: list[Unreadable] = dataclasses.field(default_factory=list)
    version: str = ""  # of c2c_jax, by which `unreadable` could not be read

    def array(self, place: Path) -> ChunkedArray:
        return ChunkedArray(self.rows, self.chunk_rows, place / "sounds", self.space.dim, self.dtype, ADVICE)

    def texts(self, place: Path) -> ChunkedTexts:
        return ChunkedTexts(self.rows, self.chunk_rows, place / "captions", ADVICE)


@dataclasses.dataclass(kw_only=True)
class Library:
    """The sounds of a folder, as far as they have been heard; made by `open_library`.

    place: where the index lies. heard: what row i of `vectors_NE` is the vector of; among them may be files that have
    changed or gone. rows: the row of each file that is as it was, by its name. unreadable: files that could not be read
    and are as they were. pending: the other files.
    """

    folder: Path
    place: Path
    space: SpaceId
    heard: list[Heard]
    vectors_NE: Float[np.ndarray, "N E"]
    rows: dict[str, int]
    pending: list[Path]
    is_written: bool
    unreadable: list[Unreadable] = dataclasses.field(default_factory=list)

    def update(self, load: Callable[[], Space], on_sound: Callable[[], None] = lambda: None) -> list[SoundError]:
        """Embeds the pending sounds and writes the index, of long work now and then before its end; what has changed or
        gone leaves it. Gives what is wrong with those that cannot be read, which are remembered as `unreadable`.

        A file that is known by its content is not heard again under another name or time. load: gives the space, and is
        called once something is to be heard. on_sound: called after each. Raises StoreError where another process
        writes the index, or where it cannot be written, and as `load`.
        """
        if self.is_written and not self.pending:
            return []
        errors: list[SoundError] = []
        row_of = {one.sha256: row for row, one in enumerate(self.heard)}
        with _index_lock(self.place.parent):
            ended, spent = time.monotonic(), 0.0
            for start in range(0, len(self.pending), PART):
                files: dict[Path, Heard] = {}
                for path in self.pending[start : start + PART]:
                    try:
                        files[path] = _look_at(path, self.folder)
                    except OSError as error:
                        errors.append(self._fails(path, SoundError(f"{path} cannot be read ({error.strerror})")))
                vectors = {
                    path: self.vectors_NE[row_of[one.sha256]] for path, one in files.items() if one.sha256 in row_of
                }
                fresh = [path for path in files if path not in vectors]
                for _ in self.pending[start + len(fresh) : start + PART]:
                    on_sound()
                if fresh:
                    found, wrong = sound_vectors(fresh, load(), on_sound=on_sound)
                    for path, vector_E in found.items():
                        try:
                            vectors[path] = _as_stored(path, vector_E)
                        except SoundError as error:
                            errors.append(self._fails(path, error))
                    unread = [path for path in fresh if path not in found]
                    errors += [self._fails(path, error) for path, error in zip(unread, wrong, strict=True)]
                self._add([files[path] for path in vectors], list(vectors.values()))
                if time.monotonic() - ended > spent / WRITING:
                    since = time.monotonic()
                    self._write()
                    ended, spent = time.monotonic(), time.monotonic() - since
            if not self.is_written:
                self._write()
        self.pending = []
        return errors

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
        Uses faiss if it is installed and the library is large. scoring: how to score; plain cosines by default.

        Sounds are centred and compared block by block, so that one block is in memory beside the index; faiss holds all
        sounds in float32.
        """
        names = sorted(self.rows)
        has_faiss = len(names) > FAISS_FROM and importlib.util.find_spec("faiss") is not None
        sounds = map(scoring.candidates, self.blocks())
        scored = ((sound_BE, scoring.penalty(sound_BE)) for sound_BE in sounds)
        best_of = _faiss_best_of if has_faiss else _best_of
        score_Qk, index_Qk = best_of(scored, scoring.queries(query_QE), min(k, len(names)))
        if not np.isfinite(score_Qk).all():
            raise StoreError(f"the index {self.place} holds zero or non-finite vectors; {ADVICE}")
        return [
            [(float(score), self.folder / path_of(names[index])) for score, index in zip(*of_query, strict=True)]
            for of_query in zip(score_Qk, index_Qk, strict=True)
        ]

    def _fails(self, path: Path, error: SoundError) -> SoundError:
        """Remembers a file that cannot be read."""
        self.unreadable.append(Unreadable(*_state_of_failure(path, self.folder), printable(error)))
        self.is_written = False
        return error

    def _add(self, files: list[Heard], vectors: list[Float[np.ndarray, "E"]]) -> None:
        if files:
            self.rows |= {one.name: len(self.heard) + place for place, one in enumerate(files)}
            self.heard += files
            self.vectors_NE = np.concatenate([self.vectors_NE, np.stack(vectors)])
            self.is_written = False

    def _write(self) -> None:
        rows = [row for _, row in sorted(self.rows.items())]
        lines = (json.dumps(dataclasses.astuple(self.heard[row])) for row in rows)
        vectors_NE = self.vectors_NE[rows]
        try:
            with atomic_write(self.place) as temporary:
                temporary.mkdir()
                _, texts = write_texts(temporary / "captions", lines, CHUNK_ROWS)
                (count, dim), dtype = vectors_NE.shape, vectors_NE.dtype.name
                array = ChunkedArray(count, CHUNK_ROWS, temporary / "sounds", dim, dtype, ADVICE)
                array.describe()
                sounds = [array.write(chunk, vectors_NE[array.rows_of(chunk)]) for chunk in range(array.chunks)]
                fields = {"format": FORMAT, "space": dataclasses.asdict(self.space), "rows": len(rows), "dtype": dtype}
                failures = [dataclasses.asdict(one) for one in self.unreadable]
                fields |= {"unreadable": failures, "version": __version__}
                checksums = {"sounds": sounds, "captions": texts}
                write_json(temporary / "manifest.json", {**fields, "chunk_rows": CHUNK_ROWS, "checksums": checksums})
        except OSError as error:
            raise StoreError(
                f"{self.place} could not be written: {error.strerror}; free disk space or pass another --index"
            ) from error
        self.is_written = True


def open_library(folder: Path, space: SpaceId, index: Path | None = None) -> Library:
    """The sounds in a folder and the folders in it, and what its index knows of them; nothing is heard yet.

    space: of the vectors; another one has another index. index: the folder of the indexes; None: `.c2c-index` in the
    library, or one in the user's cache folder where the library may not be written to.
    Raises SoundError for a folder that is missing or holds no sound, StoreError for an index that is damaged.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no folder"
        raise SoundError(f"expected a folder of sounds at {folder}, found {found}: pass an existing folder")
    paths = sound_files(folder)
    if not paths:
        raise SoundError(f"folder {folder} contains no sound: expected files ending in {', '.join(SOUND_SUFFIXES)}")
    own, holder = folder / INDEX, index
    if holder is None:
        holder = own if os.access(folder, os.W_OK) else _cache_of(folder)
    sweep(holder, own)
    name = space.fingerprint[:16]
    places = [place for place in (holder / name, own / name) if is_there(place / "manifest.json")]
    heard, vectors_NE, failed = _read(places[0], space) if places else ([], np.zeros((0, space.dim), DTYPES[0]), [])
    row_of = {(one.name, one.size, one.modified): row for row, one in enumerate(heard)}
    now = {path: (_name(path, folder), *_stamp(path)) for path in paths}
    rows = {state[0]: row_of[state] for state in now.values() if state in row_of}
    failure_of = {(one.name, one.size, one.changed): one for one in failed}
    unreadable = {
        path: failure_of[state]
        for path, known in now.items()
        if known not in row_of and (state := _state_of_failure(path, folder)) in failure_of
    }
    return Library(
        folder=folder,
        place=holder / name,
        space=space,
        heard=heard,
        vectors_NE=vectors_NE,
        rows=rows,
        pending=[path for path, state in now.items() if state not in row_of and path not in unreadable],
        is_written=len(rows) == len(heard) and len(unreadable) == len(failed),
        unreadable=list(unreadable.values()),
    )


def _read(place: Path, space: SpaceId) -> tuple[list[Heard], Float[np.ndarray, "N E"], list[Unreadable]]:
    """What an index holds, checked, without the files that another version could not read. Raises StoreError where it
    is damaged, of another format or of another space."""
    manifest = read_record(_Manifest, place / "manifest.json", FORMAT, ADVICE)
    if manifest.space.fingerprint != space.fingerprint or manifest.space.dim != space.dim:
        raise StoreError(f"the index {place} is of another space, {manifest.space.name}; {ADVICE}")
    array, checksums = manifest.array(place), manifest.checksums
    if not len(checksums.sounds) == len(checksums.captions) == array.chunks:
        raise StoreError(f"{place / 'manifest.json'} is damaged (expected one checksum per chunk); {ADVICE}")
    array.check_files()
    vectors_NE, heard = np.empty((array.rows, array.dim), array.dtype), []
    for chunk, (of_sounds, of_texts) in enumerate(zip(checksums.sounds, checksums.captions, strict=True)):
        rows = array.rows_of(chunk)
        vectors_NE[rows] = array.read(chunk, of_sounds)
        for line in manifest.texts(place).read(chunk, of_texts):
            try:
                heard.append(Heard(*msgspec.convert(parse_json(line), tuple[str, int, int, str])))
            except (ValueError, msgspec.ValidationError) as cause:
                raise StoreError(f"the index {place} is damaged ({cause}); {ADVICE}") from None
    return heard, vectors_NE, manifest.unreadable if manifest.version == __version__ else []


def _cache_of(folder: Path) -> Path:
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        raise StoreError(f"{folder} is not writable, and the home folder is unknown: pass --index") from None
    return cache / "c2c_jax" / "index" / hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]


@contextlib.contextmanager
def _index_lock(folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(folder))
        except BlockingIOError:
            raise StoreError(f"another process is writing the index in {folder}: wait until it is done") from None
        yield


def _name(path: Path, folder: Path) -> str:
    return text_of(path.relative_to(folder))


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file, by which it is known again; (-1, -1): there is none behind a link."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _state_of_failure(path: Path, folder: Path) -> tuple[str, int, int]:
    """Name, size and time of the last change of a file that cannot be read: permissions count, too."""
    try:
        status = path.stat()
    except OSError:
        return _name(path, folder), -1, -1
    return _name(path, folder), status.st_size, max(status.st_mtime_ns, status.st_ctime_ns)


def _look_at(path: Path, folder: Path) -> Heard:
    """Raises OSError for a file that cannot be read."""
    stamp = _stamp(path)
    if not is_regular(path):
        raise OSError(errno.EINVAL, "not a regular file")
    return Heard(_name(path, folder), *stamp, sha256_of(path))


def _as_stored(path: Path, vector_E: Float[np.ndarray, "E"]) -> Float[np.ndarray, "E"]:
    """In the first dtype that holds a vector. Raises SoundError where none does."""
    for dtype in DTYPES:
        (stored_E,), (is_held,) = stored_as(vector_E[None], dtype)
        if is_held:
            return stored_E
    raise SoundError(f"{path} has a CLAP vector that {why_not_stored(vector_E, DTYPES[-1])}: leave the file out")


_Scored = Iterable[
    tuple[Shaped[np.ndarray, "B E"], Float[np.ndarray, "B"] | None]
]  # blocks of sounds, each with its penalties
_Best = tuple[Float[np.ndarray, "Q k"], Int[np.ndarray, "Q k"]]  # scores and indices


def _best_of(scored: _Scored, query_QE: Float[np.ndarray, "Q E"], k: int) -> _Best:
    """`retrieval.top_k` over blocks."""
    score_Qk, index_Qk = np.empty((len(query_QE), 0), np.float32), np.empty((len(query_QE), 0), np.int32)
    start = 0
    for sound_BE, penalty_B in scored:
        score_Qj, index_Qj = top_k(query_QE, sound_BE, min(k, len(sound_BE)), penalty_B)
        scores = np.concatenate([score_Qk, score_Qj], axis=1)  # ties go to the earlier block
        found, chosen = jax.device_get(jax.lax.top_k(scores, min(k, scores.shape[1])))
        index_Qk = np.take_along_axis(np.concatenate([index_Qk, start + index_Qj], axis=1), chosen, axis=1)
        score_Qk, start = found, start + len(sound_BE)
    return score_Qk, index_Qk


def _faiss_best_of(scored: _Scored, query_QE: Float[np.ndarray, "Q E"], k: int) -> _Best:
    """`_best_of` by faiss's exact flat index. A penalty is one more component of a sound; there, queries have −1."""
    import faiss

    index = faiss.IndexFlatIP(query_QE.shape[1] + 1)
    for sound_BE, penalty_B in scored:
        block = sound_BE.astype(np.float32)
        faiss.normalize_L2(block)
        index.add(np.column_stack([block, np.zeros(len(block), np.float32) if penalty_B is None else penalty_B]))
    unit_QE = np.array(query_QE, np.float32)
    faiss.normalize_L2(unit_QE)
    return index.search(np.column_stack([unit_QE, np.full(len(unit_QE), -1, np.float32)]), k)

"""The embedding store: the raw source and target vectors of N captions, on disk.

A folder with two zarr arrays `source` and `target` [N, E], float16, chunked by rows and uncompressed, and
`manifest.json`. While it is being written there is `plan.json` in the manifest's place, and `progress-*.jsonl` with a
line for every finished chunk; a store without a manifest is unfinished.
"""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
from jaxtyping import Float

from c2c_jax.errors import StoreError
from c2c_jax.files import written_whole
from c2c_jax.spaces import SpaceId

SIDES = ("source", "target")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a store holds, known before the first row is written.

    captions: the caption source as given. captions_sha256: of the texts in order. left_out: malformed rows by reason.
    """

    source: SpaceId
    target: SpaceId
    captions: str
    captions_stamp: str
    captions_sha256: str
    left_out: dict[str, int]
    rows: int
    chunk_rows: int
    dtype: str = "float16"
    format: int = 1

    @property
    def chunks(self) -> int:
        return -(-self.rows // self.chunk_rows)

    def rows_of(self, chunk: int) -> slice:
        return slice(chunk * self.chunk_rows, min((chunk + 1) * self.chunk_rows, self.rows))

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Plan":
        spaces = {side: SpaceId(**fields[side]) for side in SIDES}
        return cls(**{**fields, **spaces})


def _open_array(path: Path, side: str, plan: Plan, *, create: bool) -> tensorstore.TensorStore:
    dim = getattr(plan, side).dim
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str((path / side).absolute())},
        "metadata": {
            "shape": [plan.rows, dim],
            "data_type": plan.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [plan.chunk_rows, dim]}},
        },
    }
    try:
        return tensorstore.open(spec, open=True, create=create).result()
    except ValueError as error:
        raise StoreError(
            f"{path / side} is not the array its manifest speaks of: {str(error).splitlines()[0]}"
        ) from None


def _checksum(rows: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} is damaged ({error}); delete the store {path.parent} to embed again") from None


class StoreWriter:
    """Writes the chunks of a store in any order, from one process or several, and takes up an unfinished store.

    Raises StoreError where the folder holds an unfinished store of other spaces or captions.
    """

    def __init__(self, path: Path, plan: Plan, process: int = 0):
        self.path, self.plan = path, plan
        fields = dataclasses.asdict(plan)
        if (path / "plan.json").is_file():
            begun = _read_json(path / "plan.json")
            if differing := [key for key in fields if begun.get(key) != fields[key]]:
                raise StoreError(
                    f"{path} is an unfinished store that differs in {', '.join(differing)}; delete it or pass another "
                    "folder as --config.data.store"
                )
        elif process == 0:
            with written_whole(path / "plan.json") as beside:
                beside.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
        self.arrays = {side: _open_array(path, side, plan, create=True) for side in SIDES}
        self.finished = self._read_progress()
        # A process killed in the middle of a line leaves half of one: a new file a start keeps every line whole.
        starts = len(list(path.glob(f"progress-{process}-*.jsonl")))
        self._progress = path / f"progress-{process}-{starts}.jsonl"

    def _read_progress(self) -> dict[int, dict[str, str]]:
        finished = {}
        for path in self.path.glob("progress-*.jsonl"):
            for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
                if line.endswith("\n"):
                    entry = json.loads(line)
                    finished[entry.pop("chunk")] = entry
        return finished

    def write(self, chunk: int, source_NE: Float[np.ndarray, "N S"], target_NE: Float[np.ndarray, "N E"]) -> None:
        """Writes one chunk's float32 rows and notes it as finished, with its checksums.

        Raises StoreError for a vector that is not finite in the store's dtype, naming its row.
        """
        rows = self.plan.rows_of(chunk)
        checksums = {}
        for side, vectors in zip(SIDES, (source_NE, target_NE), strict=True):
            with np.errstate(over="ignore"):  # an overflow is found and told in the next lines
                stored = vectors.astype(self.plan.dtype)
            if not np.isfinite(stored).all():
                row = rows.start + int(np.argmin(np.isfinite(stored).all(axis=1)))
                raise StoreError(
                    f"the {side} vector of caption {row} is not finite in {self.plan.dtype}; check the tower"
                )
            self.arrays[side][rows].write(stored).result()
            checksums[side] = _checksum(stored)
        with open(self._progress, "a", encoding="utf-8") as file:
            file.write(json.dumps({"chunk": chunk, **checksums}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.finished[chunk] = checksums

    def finish(self) -> None:
        """Turns the finished chunks of all processes into a manifest. Call it in one process, after the others."""
        self.finished = self._read_progress()
        if missing := set(range(self.plan.chunks)) - self.finished.keys():
            raise StoreError(f"{self.path}: {len(missing)} of {self.plan.chunks} chunks were not written; run again")
        manifest = dataclasses.asdict(self.plan)
        manifest["checksums"] = {
            side: [self.finished[chunk][side] for chunk in range(self.plan.chunks)] for side in SIDES
        }
        with written_whole(self.path / "manifest.json") as beside:
            beside.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        (self.path / "plan.json").unlink()
        for path in self.path.glob("progress-*.jsonl"):
            path.unlink()


@dataclasses.dataclass(frozen=True)
class Store:
    """A finished store, open for reading."""

    path: Path
    plan: Plan
    checksums: dict[str, list[str]]

    @classmethod
    def exists(cls, path: Path) -> bool:
        return (path / "manifest.json").is_file()

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Raises StoreError where there is no finished store."""
        if not cls.exists(path):
            raise StoreError(f"{path} holds no finished embedding store (no manifest.json)")
        manifest = _read_json(path / "manifest.json")
        try:
            checksums = manifest.pop("checksums")
            return cls(path, Plan.from_json(manifest), checksums)
        except (KeyError, TypeError) as error:
            raise StoreError(f"{path / 'manifest.json'} is of another format ({error}); embed again") from None

    def expect(self, source: SpaceId, target: SpaceId, captions: str, captions_stamp: str) -> None:
        """Raises StoreError unless the store was made from these very spaces and captions."""
        for side, wanted in zip(SIDES, (source, target), strict=True):
            found = getattr(self.plan, side)
            if found.fingerprint != wanted.fingerprint:
                raise StoreError(
                    f"{self.path} was made with {side} space {found.name} ({found.fingerprint[:12]}), but the config "
                    f"asks for {wanted.name} ({wanted.fingerprint[:12]}); pass another --config.data.store"
                )
        if (self.plan.captions, self.plan.captions_stamp) != (captions, captions_stamp):
            changed = "whose content has changed" if self.plan.captions == captions else f"not from {captions}"
            raise StoreError(
                f"{self.path} was made from captions {self.plan.captions}, {changed}; "
                "delete it or pass another --config.data.store"
            )

    def read(self, side: str) -> Float[np.ndarray, "N E"]:
        """All rows of "source" or "target" [N, E] in memory, in the store's dtype, checked against the checksums.

        Raises StoreError naming the first chunk that is missing or damaged.
        """
        array = _open_array(self.path, side, self.plan, create=False)
        vectors = np.asarray(array.read().result())
        for chunk, checksum in enumerate(self.checksums[side]):
            if _checksum(vectors[self.plan.rows_of(chunk)]) != checksum:
                raise StoreError(f"{self.path / side}: chunk {chunk} is damaged; delete the store to embed again")
        return vectors

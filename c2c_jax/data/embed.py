"""The embedding pass: both towers over all captions, once; reading, tokenising, computing and writing overlap."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import multihost

from c2c_jax.config import Config
from c2c_jax.data.captions import Source, open_sources
from c2c_jax.data.chunks import DTYPES, MAX_CHUNK_ROWS
from c2c_jax.data.mixture import Mixture
from c2c_jax.data.progress import EmbeddingProgress
from c2c_jax.data.store import SIDES, Plan, SourceRecord, Store, write_captions
from c2c_jax.data.writer import StoreWriter, store_lock, tidy
from c2c_jax.errors import ConfigError, StoreError
from c2c_jax.io.console import stderr_console
from c2c_jax.io.progress import Progress, phase
from c2c_jax.spaces.packing import TextBatch
from c2c_jax.spaces.space import Space, SpaceId, identify, load_space

COMPUTE = ("float32", "bfloat16")
CPU_TOKENS, DEVICE_TOKENS = 1024, 16_384  # what a CPU, and what an accelerator sees at once, unless told otherwise
AHEAD = 2  # batches in flight on the devices, chunks tokenised ahead of them, and chunks waiting to be written
DAY = 86_400  # seconds: hosts wait for each other as long as the slowest needs

console = stderr_console()


def prepare_store(config: Config, path: Path) -> Store:
    """The store of a config's captions in both its spaces: opened and checked where it is finished, else made.

    A finished store whose sources are the first of the config's grows by the others; an unfinished one is taken up.
    An empty `config.source` or `config.target` means: take the finished store at `path` as it is.
    Every process embeds its own part of the chunks; `path` must then be on a file system they share.
    Raises StoreError, also where another job writes the store, CaptionError, CheckpointError or ConfigError.
    """
    if not (config.source and config.target):
        return Store.open(path)
    _check(config)
    with contextlib.ExitStack() as stack:
        loaded = None
        if jax.process_index() == 0:
            with phase(console, "looking for captions") as bar:
                loaded = _plan(config, path, stack, bar)
        _sync("store planned")
        if StoreWriter.planned(path) is None:
            store = Store.open(path)
            console.print(f"reusing {store.plan.rows:,} embedded captions in {path}")
            return store
        with phase(console, "loading CLIP and CLAP", quiet=jax.process_index() != 0):
            spaces = loaded or (load_space(config.source, only="text"), load_space(config.target, only="text"))
        return complete(path, spaces, config.embed.batch_tokens)


def complete(path: Path, spaces: tuple[Space, Space], batch_tokens: int = 0) -> Store:
    """Embeds the unfinished chunks of the planned store at `path` and finishes it.

    batch_tokens: see `embed`. Process 0 holds the store, see `store_lock`. Raises StoreError.
    """
    writer = StoreWriter(path, jax.process_index())
    unfinished = [chunk for chunk in range(writer.plan.chunks) if chunk not in writer.finished]
    _sync("progress read")  # before any process adds to it
    if len(unfinished) < writer.plan.chunks:
        console.print(f"continuing {path}: {writer.plan.chunks - len(unfinished)} of {writer.plan.chunks} chunks there")
    mine = np.array_split(unfinished, jax.process_count())[jax.process_index()]
    source, target = (space.computing_in(writer.plan.compute) for space in spaces)
    for space, planned in ((source, writer.plan.source), (target, writer.plan.target)):
        expect_space(path, space.id, planned)
    embed(writer, mine.tolist(), (source, target), batch_tokens=batch_tokens)
    _sync("chunks written")
    if jax.process_index() == 0:
        writer.finish()
    _sync("store finished")
    return Store.open(path)


def expect_space(path: Path, found: SpaceId, planned: SpaceId) -> None:
    """Raises StoreError where a checkpoint is not the one that the store at `path` is planned with."""
    if found.fingerprint != planned.fingerprint:
        raise StoreError(
            f"{path} is of space {planned.name} ({planned.fingerprint[:12]}), but {found.name} is another now "
            f"({found.fingerprint[:12]}); pass the folder it has moved to"
        )


def _sync(name: str) -> None:
    multihost.sync_global_processes(name, timeout=DAY)


def _check(config: Config) -> None:
    fields = {"dtype": COMPUTE, "store_dtype": DTYPES}
    for field, known in fields.items():
        if (value := getattr(config.embed, field)) not in known:
            raise ConfigError(f"config.embed.{field} is {value!r}; known are {', '.join(known)}")
    if not 1 <= config.embed.chunk_rows <= MAX_CHUNK_ROWS or config.embed.batch_tokens < 0:
        raise ConfigError(
            f"config.embed.chunk_rows must be from 1 to {MAX_CHUNK_ROWS:,}, and config.embed.batch_tokens not below 0"
        )


def _plan(config: Config, path: Path, stack: contextlib.ExitStack, bar: Progress) -> tuple[Space, Space] | None:
    """Leaves at `path` a finished store that fits the config, or the plan of one to be made, its captions written, and
    then holds it as its sole writer, until the stack is closed.

    Gives the spaces where it had to plan: nothing is written before both have loaded.
    """
    sources = open_sources(config.data.captions, config.data.data_dir, config.data.manual_dir)
    bar.begin("hashing captions and checkpoints")
    asked = _Asked([(s.spec, s.weight, s.stamp()) for s in sources], (identify(config.source), identify(config.target)))
    if asked.state(config, path) == "finished":
        tidy(Store.open(path))
        return None
    stack.enter_context(store_lock(path))
    if asked.state(config, path) in ("finished", "planned"):
        return None
    bar.begin("loading CLIP and CLAP")
    spaces = load_space(config.source, only="text"), load_space(config.target, only="text")
    bar.begin("reading captions")
    _write_plan(config, path, sources, asked.spaces, Store.open(path) if Store.exists(path) else None, bar)
    return spaces


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What a config asks for: its sources' specs, weights and stamps, and its spaces."""

    sources: list[tuple[str, float | None, str]]
    spaces: tuple[SpaceId, SpaceId]

    def state(self, config: Config, path: Path) -> str:
        """Of the store at `path`: "new", "planned", "finished", or "grows", finished with the first of the sources.
        Raises StoreError where it was made, or planned, with anything else."""
        store = Store.open(path) if Store.exists(path) else None
        planned = StoreWriter.planned(path)
        if store and planned == store.plan:  # its finishing was interrupted
            planned = None
        plan = planned or (store.plan if store else None)
        if plan is None:
            return "new"
        differing = _differing(plan, config, self.spaces)
        same = [(record.spec, record.weight, record.stamp) for record in plan.sources]
        is_unweighted = not any(weight for _, weight, _ in self.sources)
        grows = not planned and same == self.sources[: len(same)] and is_unweighted
        if same != self.sources and not grows:
            specs = " + ".join(spec for spec, _, _ in same)
            changed = specs == " + ".join(spec for spec, _, _ in self.sources)
            differing.append(f"captions {specs}{', whose content has changed' if changed else ''}")
        if differing:
            begun, advice = ("started", "start it with that again to finish it") if planned else ("made", "delete it")
            raise StoreError(
                f"{path} was {begun} with {', '.join(differing)}; {advice}, or pass another folder as "
                "--config.data.store"
            )
        if same != self.sources:
            return "grows"
        return "planned" if planned else "finished"


def _differing(plan: Plan, config: Config, ids: tuple[SpaceId, SpaceId]) -> list[str]:
    """What a plan was made with, where the config asks for another; captions aside."""
    differing = []
    for side, wanted in zip(SIDES, ids, strict=True):
        found = getattr(plan, side)
        if found.fingerprint != wanted.fingerprint:
            other = f"the config asks for {wanted.name}, {wanted.fingerprint[:12]}"
            differing.append(f"{side} space {found.name} ({found.fingerprint[:12]}, {other})")
    fields = {
        "embed.dtype": (plan.compute, config.embed.dtype),
        "embed.store_dtype": (plan.dtype, config.embed.store_dtype),
        "embed.chunk_rows": (plan.chunk_rows, config.embed.chunk_rows),
        "data.drop_duplicates": (plan.drop_duplicates, config.data.drop_duplicates),
    }
    return differing + [f"config.{field} {found}" for field, (found, wanted) in fields.items() if found != wanted]


def _write_plan(
    config: Config, path: Path, sources: list[Source], ids: tuple[SpaceId, SpaceId], grown: Store | None, bar: Progress
) -> None:
    """Reads the sources into the text chunks of the store at `path`, after those it has, and lays down its plan."""
    chunk_rows = config.embed.chunk_rows
    had = len(grown.plan.sources) if grown else 0
    mixture = Mixture(
        sources[had:], drop_duplicates=config.data.drop_duplicates, before=grown.captions() if grown else ()
    )
    kept = grown.plan.rows // chunk_rows if grown else 0
    last_chunk = grown.read_captions(kept) if grown and grown.plan.rows % chunk_rows else []
    checksums = grown.checksums["captions"][:kept] if grown else []
    rows, checksums = write_captions(path, itertools.chain(last_chunk, bar.counted(mixture)), chunk_rows, checksums)
    for line in mixture.report():
        console.print(line)
    records = [
        SourceRecord(
            spec=source.spec,
            weight=source.weight,
            stamp=source.stamp(),
            rows=mixture.rows[number],
            duplicates=mixture.duplicates[number],
            left_out=source.left_out.counts,
        )
        for number, source in enumerate(mixture.sources)
    ]
    plan = Plan(
        source=ids[0],
        target=ids[1],
        sources=(*(grown.plan.sources if grown else ()), *records),
        drop_duplicates=config.data.drop_duplicates,
        captions=True,
        rows=rows,
        chunk_rows=chunk_rows,
        compute=config.embed.dtype,
        dtype=config.embed.store_dtype,
    )
    StoreWriter.begin(path, plan, checksums)


@dataclasses.dataclass
class _Chunk:
    """A chunk on its way: its vectors [N, E] of both sides, and how many batches are still to come."""

    number: int
    vectors: tuple[np.ndarray, np.ndarray]
    batches: list[tuple[int, TextBatch]]  # (side, batch)
    left: int


def embed(writer: StoreWriter, chunks: list[int], spaces: tuple[Space, Space], *, batch_tokens: int = 0) -> None:
    """Encodes the captions of `chunks` in both spaces and writes their vectors; shows progress.

    batch_tokens: tokens a device sees at once; 0: 1,024 on a CPU, 16,384 elsewhere.
    Raises StoreError as `StoreWriter.write` does.
    """
    tokens = batch_tokens or (CPU_TOKENS if jax.default_backend() == "cpu" else DEVICE_TOKENS)

    def tokenised(number: int) -> _Chunk:
        texts = writer.texts(number)
        batches = [(side, batch) for side, space in enumerate(spaces) for batch in space.text_batches(texts, tokens)]
        vectors = tuple(np.empty((len(texts), space.dim), np.float32) for space in spaces)
        return _Chunk(number, vectors, batches, len(batches))  # type: ignore[arg-type]

    rows = [writer.new_rows(chunk) for chunk in chunks]
    threads = concurrent.futures.ThreadPoolExecutor
    with (
        EmbeddingProgress(sum(row.stop - row.start for row in rows), console, jax.process_index() != 0) as progress,
        threads(AHEAD) as read,
        threads(1) as disk,
    ):
        in_flight: collections.deque[tuple[_Chunk, int, TextBatch, Any]] = collections.deque()
        writing: collections.deque[concurrent.futures.Future[None]] = collections.deque()

        def waited_for(future: concurrent.futures.Future) -> Any:
            with progress.waiting(lambda: all(array.is_ready() for *_, array in in_flight)):
                return future.result()

        def collect() -> None:
            chunk, side, batch, array = in_flight.popleft()
            batch.put(array, chunk.vectors[side])
            progress.done(len(batch.texts_N) / 2)  # a caption is done when both sides are
            chunk.left -= 1
            if not chunk.left:
                writing.append(disk.submit(writer.write, chunk.number, *chunk.vectors))
                while len(writing) > AHEAD:
                    waited_for(writing.popleft())

        waiting = iter(chunks)
        ahead = collections.deque(read.submit(tokenised, number) for number in itertools.islice(waiting, AHEAD))
        while ahead:
            chunk = waited_for(ahead.popleft())
            ahead.extend(read.submit(tokenised, number) for number in itertools.islice(waiting, 1))
            for side, batch in chunk.batches:
                in_flight.append((chunk, side, batch, spaces[side].run_text(batch.tokens)))
                if len(in_flight) > AHEAD:
                    collect()
        while in_flight:
            collect()
        while writing:
            waited_for(writing.popleft())

"""The embedding pass: encodes all captions once in both spaces. Reading, tokenising, encoding and writing overlap."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import multihost

from c2c_jax.config import Config, check_fields
from c2c_jax.data.captions import CaptionStream, open_sources
from c2c_jax.data.chunks import write_texts
from c2c_jax.data.sources import Source
from c2c_jax.data.store import SIDES, Plan, SourceRecord, Store, read_plan
from c2c_jax.data.writer import StoreWriter, begin_repair, restore_captions, store_lock
from c2c_jax.errors import StoreError
from c2c_jax.io.atomic import temporary_folder
from c2c_jax.io.progress import Progress, phase
from c2c_jax.spaces.packing import TextBatch
from c2c_jax.spaces.space import Space, identify, load_space
from c2c_jax.spaces.space_id import SpaceId

CPU_TOKENS, DEVICE_TOKENS = 1024, 16_384  # default tokens per batch on a CPU and on an accelerator
AHEAD = 2  # limits batches on the devices, chunks tokenised in advance, and chunks waiting to be written
DAY = 86_400  # seconds that hosts wait for each other

logger = logging.getLogger(__name__)


def prepare_store(config: Config, path: Path, *, verify: bool = False) -> Store:
    """Opens the store of a config's captions at `path`, after making it or resuming an unfinished one.

    If the store's sources are only the first of the config's, the others are added. If `config.source` or
    `config.target` is empty, the finished store at `path` is opened as it is. verify: compares all chunks of a
    finished store with their checksums, and makes damaged or missing ones again.
    With several processes, each embeds a part of the chunks; `path` must be on a shared file system.
    Raises StoreError, also if another job writes the store, CaptionError, CheckpointError or ConfigError.
    """
    if not (config.source and config.target):
        return Store.open(path)
    check_fields(config.embed, "config.embed.")
    spaces, process = None, jax.process_index()
    with contextlib.ExitStack() as stack:
        if process == 0:
            with phase("looking for captions") as bar:
                spaces = _plan(config, path, verify, stack, bar)
        _sync("store planned")
        if read_plan(path) is None:
            store = Store.open(path)
            logger.info("reusing %s embedded captions in %s", f"{store.plan.rows:,}", path)
            return store
        with phase("loading CLIP and CLAP", quiet=process != 0):
            spaces = spaces or _load_spaces(config)
        writer = StoreWriter(path, process)
        plan, unfinished = writer.plan, [chunk for chunk in range(writer.plan.chunks) if chunk not in writer.finished]
        _sync("progress read")  # before any process adds to it
        if writer.finished:
            logger.info("continuing %s: %d of %d chunks are finished", path, len(writer.finished), plan.chunks)
        for space, planned in zip(spaces, (plan.source, plan.target), strict=True):
            if space.fingerprint != planned.fingerprint:
                raise StoreError(f"{space.name} on host {process} is not the {planned.name} of {path}: copy the files")
        source, target = (space.with_dtype(plan.compute) for space in spaces)
        mine = np.array_split(unfinished, jax.process_count())[process]
        embed(writer, mine.tolist(), (source, target), batch_tokens=config.embed.batch_tokens)
        _sync("chunks written")
        if process == 0:
            writer.finish()
        _sync("store finished")
        return Store.open(path)


def _load_spaces(config: Config) -> tuple[Space, Space]:
    return load_space(config.source, only="text"), load_space(config.target, only="text")


def _sync(name: str) -> None:
    multihost.sync_global_processes(name, timeout=DAY)


def _plan(
    config: Config, path: Path, verify: bool, stack: contextlib.ExitStack, bar: Progress
) -> tuple[Space, Space] | None:
    """Prepares `path` until it holds a finished store that fits the config, or a plan and all captions to embed.

    In the second case, the store stays locked until the stack is closed. Returns the spaces if they were loaded:
    nothing of a new store is written before both have loaded.
    """
    sources = open_sources(config.data.captions, config.data.data_dir, config.data.manual_dir)
    bar.begin("hashing captions and checkpoints")
    captions = [(source.spec, source.weight, source.stamp()) for source in sources]
    request = _Request(config, sources, captions, (identify(config.source), identify(config.target)))
    if request.state(path) == "finished":
        bar.begin("checking the store")
        if not verify or not any(Store.open(path).damage()):
            return None
    stack.enter_context(store_lock(path))
    state = request.state(path)
    if state == "planned" or (state == "finished" and begin_repair(path)):
        bar.begin("checking captions")
        restore_captions(path, lambda plan: CaptionStream(sources, drop_duplicates=plan.drop_duplicates))
    if state in ("planned", "finished"):
        return None
    bar.begin("loading CLIP and CLAP")
    spaces = _load_spaces(config)
    bar.begin("reading captions")
    request.write_plan(path, Store.open(path) if state == "grows" else None, bar)
    return spaces


@dataclasses.dataclass(frozen=True)
class _Request:
    """What a config requires of a store. captions: (spec, weight, stamp) of each source. spaces: source and target."""

    config: Config
    sources: list[Source]
    captions: list[tuple[str, float | None, str]]
    spaces: tuple[SpaceId, SpaceId]

    def state(self, path: Path) -> str:
        """Returns the state of the store at `path`: "new", "planned", "finished", or "grows" if it is finished but
        lacks the last sources. Raises StoreError if it was made or planned with anything else."""
        planned = read_plan(path)
        if planned is None and not Store.exists(path):
            return "new"
        plan = planned[0] if planned else Store.open(path).plan
        differing = self._differing(plan)
        recorded = [(record.spec, record.weight, record.stamp) for record in plan.sources]
        is_weighted = any(source.weight for source in self.sources)
        if recorded == self.captions:
            state = "planned" if planned else "finished"
        elif planned or is_weighted or recorded != self.captions[: len(recorded)]:
            specs = " + ".join(spec for spec, _, _ in recorded)
            is_changed = specs == " + ".join(source.spec for source in self.sources)
            differing.append(f"captions {specs}{', whose content has changed' if is_changed else ''}")
        else:
            state = "grows"
        if differing:
            made, advice = ("started", "resume it with that") if planned else ("made", "delete it")
            raise StoreError(
                f"{path} was {made} with {', '.join(differing)}; {advice}, or pass another folder as "
                "--config.data.store"
            )
        return state

    def _differing(self, plan: Plan) -> list[str]:
        """Lists the values of a plan that differ from the config, without captions."""
        embed, data = self.config.embed, self.config.data
        differing = []
        for side, recorded, space in zip(SIDES, (plan.source, plan.target), self.spaces, strict=True):
            if recorded.fingerprint != space.fingerprint:
                other = f"the config has {space.name}, {space.fingerprint[:12]}"
                differing.append(f"{side} space {recorded.name} ({recorded.fingerprint[:12]}; {other})")
        fields = {
            "embed.dtype": (plan.compute, embed.dtype),
            "embed.store_dtype": (plan.dtype, embed.store_dtype),
            "embed.chunk_rows": (plan.chunk_rows, embed.chunk_rows),
            "data.drop_duplicates": (plan.drop_duplicates, data.drop_duplicates),
        }
        return differing + [f"config.{field} {made}" for field, (made, wanted) in fields.items() if made != wanted]

    def write_plan(self, path: Path, old: Store | None, bar: Progress) -> None:
        """Writes the captions and the plan of a new store, or of an old one that grows."""
        embed, drop_duplicates = self.config.embed, self.config.data.drop_duplicates
        records, last_chunk, kept = old.plan.sources if old else (), [], []
        if old:
            kept = old.checksums["captions"][: old.plan.rows // embed.chunk_rows]
            last_chunk = old.read_captions(len(kept)) if old.plan.rows % embed.chunk_rows else []
        new, earlier = slice(len(records), None), old.captions() if old else ()
        stream = CaptionStream(self.sources[new], drop_duplicates=drop_duplicates, earlier=earlier)
        with temporary_folder(path) as folder:
            texts = itertools.chain(last_chunk, bar.counted(stream))
            rows, checksums = write_texts(folder, texts, embed.chunk_rows, kept)
            stream.log_counts()
            counts = zip(self.captions[new], stream.sources, stream.rows, stream.duplicates, strict=True)
            records += tuple(
                SourceRecord(
                    spec=spec,
                    weight=weight,
                    stamp=stamp,
                    rows=count,
                    duplicates=duplicates,
                    left_out=source.skipped.counts,
                )
                for (spec, weight, stamp), source, count, duplicates in counts
            )
            plan = Plan(
                source=self.spaces[0],
                target=self.spaces[1],
                sources=records,
                drop_duplicates=drop_duplicates,
                captions=True,
                rows=rows,
                chunk_rows=embed.chunk_rows,
                compute=embed.dtype,
                dtype=embed.store_dtype,
            )
            StoreWriter.begin(path, plan, checksums, folder)


@dataclasses.dataclass
class _Chunk:
    """A chunk being embedded: its vectors [N, E] of both sides, and the (side, batch) pairs that fill them."""

    number: int
    vectors: list[np.ndarray]
    batches: list[tuple[int, TextBatch]]


def embed(writer: StoreWriter, chunks: list[int], spaces: tuple[Space, Space], *, batch_tokens: int = 0) -> None:
    """Encodes the captions of `chunks` in both spaces, writes their vectors and shows progress.

    batch_tokens: tokens per device and batch; 0 means 1,024 on a CPU and 16,384 elsewhere. Raises StoreError as
    `StoreWriter.write`.
    """
    tokens = batch_tokens or (CPU_TOKENS if jax.default_backend() == "cpu" else DEVICE_TOKENS)

    def tokenised(number: int) -> _Chunk:
        texts = writer.texts(number)
        batches = [(side, batch) for side, space in enumerate(spaces) for batch in space.text_batches(texts, tokens)]
        return _Chunk(number, [np.empty((len(texts), space.dim), np.float32) for space in spaces], batches)

    threads = concurrent.futures.ThreadPoolExecutor
    rows = [writer.new_rows(chunk) for chunk in chunks]
    total = sum(span.stop - span.start for span in rows)
    is_quiet, started, waited = jax.process_index() != 0, time.perf_counter(), 0.0
    in_flight: collections.deque[tuple[_Chunk, int, TextBatch, Any]] = collections.deque()
    writing: collections.deque[concurrent.futures.Future[None]] = collections.deque()
    with Progress("captions", is_quiet) as bar, threads(AHEAD) as readers, threads(1) as disk:
        task = bar.add_task("embedding", total=total)

        def wait_for(future: concurrent.futures.Future) -> Any:
            nonlocal waited
            start = time.perf_counter()
            result = future.result()
            if all(array.is_ready() for *_, array in in_flight):  # the devices are idle
                waited += time.perf_counter() - start
            return result

        def collect() -> None:
            chunk, side, batch, array = in_flight.popleft()
            batch.scatter(array, chunk.vectors[side])
            bar.advance(task, len(batch.text_indices_N) / 2)  # a caption is done when both sides are
            if batch is chunk.batches[-1][1]:
                writing.append(disk.submit(writer.write, chunk.number, *chunk.vectors))
                while len(writing) > AHEAD:
                    wait_for(writing.popleft())

        for future in _ahead(readers, tokenised, chunks):
            chunk = wait_for(future)
            for side, batch in chunk.batches:
                in_flight.append((chunk, side, batch, spaces[side].run_text(batch.tokens)))
                if len(in_flight) > AHEAD:
                    collect()
        while in_flight:
            collect()
        while writing:
            wait_for(writing.popleft())
    if total and not is_quiet:
        seconds = time.perf_counter() - started
        logger.info(
            "embedded %s captions in %s s, %s captions/s; the devices were idle %s of the time",
            f"{total:,}",
            f"{seconds:,.0f}",
            f"{total / seconds:,.0f}",
            f"{waited / seconds:.1%}",
        )


def _ahead(
    pool: concurrent.futures.Executor, function: Callable[[int], _Chunk], items: Iterable[int]
) -> Iterator[concurrent.futures.Future[_Chunk]]:
    """Yields the futures of `function(item)` in order, and submits AHEAD of them in advance."""
    futures: collections.deque[concurrent.futures.Future[_Chunk]] = collections.deque()
    for item in items:
        futures.append(pool.submit(function, item))
        if len(futures) > AHEAD:
            yield futures.popleft()
    yield from futures

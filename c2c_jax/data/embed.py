"""The embedding pass: both towers over all captions, once."""

import time
from pathlib import Path

import jax
from jax.experimental import multihost_utils
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from c2c_jax.config import Config
from c2c_jax.data.captions import Captions, captions_stamp, load_captions
from c2c_jax.data.store import Plan, Store, StoreWriter
from c2c_jax.spaces import Space, identify, load_space

console = Console(stderr=True, soft_wrap=True, highlight=False)


def prepare_store(config: Config, path: Path) -> Store:
    """The store of a config's captions in both its spaces: opened and checked where it is finished, else made.

    An empty `config.source` or `config.target` means: take the finished store at `path` as it is.
    Raises StoreError, CaptionError or CheckpointError.
    """
    if not (config.source and config.target):
        return Store.open(path)
    where = (config.data.captions, config.data.data_dir or None, config.data.manual_dir or None)
    if Store.exists(path):
        store = Store.open(path)
        store.expect(identify(config.source), identify(config.target), config.data.captions, captions_stamp(*where))
        console.print(f"reusing {store.plan.rows:,} embedded captions in {path}")
        return store
    captions = load_captions(*where)
    console.print(captions.report())
    stamp = captions_stamp(*where)
    spaces = load_space(config.source), load_space(config.target)
    return embed(captions, stamp, *spaces, path, batch_size=config.embed.batch_size, chunk_rows=config.embed.chunk_rows)


def embed(
    captions: Captions, stamp: str, source: Space, target: Space, path: Path, *, batch_size: int, chunk_rows: int
) -> Store:
    """Encodes every caption in both spaces and writes the store at `path`; an unfinished store is taken up again.

    stamp: the captions' identity, see `captions_stamp`. batch_size: captions a tower sees at once on this host.
    chunk_rows: rows of a chunk. Every process takes each n-th chunk; `path` must then be on a shared file system.
    """
    plan = Plan(
        source=source.id,
        target=target.id,
        captions=captions.source,
        captions_stamp=stamp,
        captions_sha256=captions.fingerprint,
        left_out=captions.malformed,
        rows=len(captions.texts),
        chunk_rows=min(chunk_rows, len(captions.texts)),
    )
    writer = StoreWriter(path, plan, jax.process_index())
    multihost_utils.sync_global_devices("store opened")
    mine = range(jax.process_index(), plan.chunks, jax.process_count())
    todo = [chunk for chunk in mine if chunk not in writer.finished]
    if len(todo) < len(mine):
        console.print(f"continuing {path}: {len(mine) - len(todo)} of {len(mine)} chunks are there")
    with _Progress(sum(_length(plan.rows_of(chunk)) for chunk in todo)) as progress:
        for chunk in todo:
            texts = captions.texts[plan.rows_of(chunk)]
            vectors = (space.encode_text(texts, batch_size=batch_size) for space in (source, target))
            writer.write(chunk, *vectors)
            progress.advance(len(texts))
    multihost_utils.sync_global_devices("chunks written")
    if jax.process_index() == 0:
        writer.finish()
    multihost_utils.sync_global_devices("store finished")
    return Store.open(path)


def _length(rows: slice) -> int:
    return rows.stop - rows.start


class _Progress:
    """Captions done, captions per second and time left: a live bar on a terminal, a line now and then elsewhere."""

    def __init__(self, total: int, seconds_between_lines: float = 20.0):
        self.total, self.done, self.pause = total, 0, seconds_between_lines
        columns = (TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
        self.bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task("embedding", total=total, rate="")

    def __enter__(self) -> "_Progress":
        self.started = self.told = time.monotonic()
        self.bar.start()
        return self

    def advance(self, captions: int) -> None:
        self.done += captions
        now = time.monotonic()
        rate = self.done / (now - self.started)
        self.bar.update(self.task, advance=captions, rate=f"{rate:,.0f} captions/s")
        if not console.is_terminal and (now - self.told > self.pause or self.done == self.total):
            self.told = now
            left = (self.total - self.done) / rate
            line = f"embedded {self.done:,} of {self.total:,} captions, {rate:,.0f} captions/s, {left:.0f} s left"
            console.print(line)

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

"""Combines caption sources into one stream, one after another or by weight, and drops exact duplicates."""

import hashlib
import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from c2c_jax.data import caption_files, datasets  # noqa: F401  registers their kinds
from c2c_jax.data.sources import SOURCES, Source
from c2c_jax.errors import CaptionError

BLOCK = 65536  # texts hashed at a time; large enough to hide Python's overhead per block

logger = logging.getLogger(__name__)


def open_sources(spec: str, data_dir: str = "", manual_dir: str = "") -> list[Source]:
    """Makes the sources that a spec names, without reading them: `[WEIGHT*]KIND:…`, several joined by ` + `.

    data_dir, manual_dir: see `Source`. Raises CaptionError for an invalid spec.
    """
    sources: list[Source] = []
    for part in map(str.strip, spec.split(" + ")):
        weighted = re.fullmatch(r"([0-9.]+)\*(\w+:.*)", part, re.DOTALL)
        name = weighted[2] if weighted else part
        try:
            weight = float(weighted[1]) if weighted else None
        except ValueError:
            raise CaptionError(f"{part!r} does not begin with a weight, such as 0.5*") from None
        if weight is not None and not weight > 0:
            raise CaptionError(f"the weight of {name} is {weight:g}; it must be above 0")
        if (kind := SOURCES.get(name.partition(":")[0])) is None or ":" not in name:
            forms = ", ".join(known.form for known in SOURCES.values())
            raise CaptionError(f"unknown caption source {name!r}; known are {forms}, several joined by ' + '")
        sources.append(kind(name, weight, data_dir, manual_dir))
    return sources


class CaptionStream:
    """Iterates over the captions of several sources: one source after another, or mixed by weight if any has one.

    When mixed, the sources' numbers of rows (with duplicates) stay proportional to their weights, and the stream ends
    with the first source that ends.
    drop_duplicates: drops captions that equal an earlier one. earlier: more captions to count as earlier ones. rows,
    duplicates: numbers so far, for each source.
    """

    def __init__(self, sources: Sequence[Source], *, drop_duplicates: bool, earlier: Iterable[str] = ()):
        self.sources = sources
        self.rows, self.duplicates = [0] * len(sources), [0] * len(sources)
        self._earlier = CaptionSet() if drop_duplicates else None
        if self._earlier is not None:
            for block in _blocks(earlier):
                self._earlier.add(block)

    def __iter__(self) -> Iterator[str]:
        for block in _blocks(self._interleaved()):
            is_new = [True] * len(block) if self._earlier is None else self._earlier.add([text for _, text in block])
            for (source, text), new in zip(block, is_new, strict=True):
                if new:
                    self.rows[source] += 1
                    yield text
                else:
                    self.duplicates[source] += 1

    def _interleaved(self) -> Iterator[tuple[int, str]]:
        """Yields the index of the source and the caption."""
        streams = [source.rows() for source in self.sources]
        if all(source.weight is None for source in self.sources):
            for number, stream in enumerate(streams):
                yield from ((number, text) for text in stream)
            return
        weights = [1.0 if source.weight is None else source.weight for source in self.sources]
        counts = [0] * len(streams)
        while True:
            number = min(range(len(streams)), key=lambda i: (counts[i] + 1) / weights[i])
            if (text := next(streams[number], None)) is None:
                return
            counts[number] += 1
            yield number, text

    def report(self) -> list[str]:
        """Returns a line for each source: numbers of captions, of skipped rows with reasons, and of duplicates."""
        return [
            f"{rows:,} caption{'' if rows == 1 else 's'} read from {source.spec}; {source.skipped}"
            + (
                f"; {duplicates:,} duplicate{'' if duplicates == 1 else 's'} dropped"
                if self._earlier is not None
                else ""
            )
            for source, rows, duplicates in zip(self.sources, self.rows, self.duplicates, strict=True)
        ]

    def log_counts(self) -> None:
        """Logs the lines of `report`; the line of a source with skipped rows is a warning."""
        for source, line in zip(self.sources, self.report(), strict=True):
            logger.log(logging.WARNING if source.skipped.counts else logging.INFO, "%s", line)


class CaptionSet:
    """A set of texts that stores only 8 bytes for each, a BLAKE2b hash.

    The probability that two distinct captions share a hash is 3e-7 among 3.3 million captions and 0.4 % among 400
    million. Hashes are stored in sorted runs, each at least twice as long as the next, so that there are few runs and
    few merges.
    """

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []

    def add(self, texts: Sequence[str]) -> list[bool]:
        """Adds texts. Returns for each whether it is new."""
        digests = (hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest() for text in texts)
        hashes = np.frombuffer(b"".join(digests), np.uint64)
        is_new = np.zeros(len(texts), bool)
        is_new[np.unique(hashes, return_index=True)[1]] = True
        for run in self._runs:
            positions = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
            is_new &= run[positions] != hashes
        if is_new.any():
            self._runs.append(np.sort(hashes[is_new]))
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            last = self._runs.pop()
            self._runs[-1] = np.sort(np.concatenate([self._runs[-1], last]), kind="stable")
        return is_new.tolist()


def _blocks(items: Iterable[Any]) -> Iterator[list[Any]]:
    stream = iter(items)
    while block := list(itertools.islice(stream, BLOCK)):
        yield block

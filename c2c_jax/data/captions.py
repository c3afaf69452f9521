"""Captions of one source or several as one stream: in turn or by weight, without exact duplicates."""

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from c2c_jax.data import caption_files, datasets  # noqa: F401  registers their kinds
from c2c_jax.data.sources import SOURCES, Source
from c2c_jax.errors import CaptionError

BLOCK = 65536  # texts hashed at a time: large enough that Python's cost per block vanishes


def open_sources(spec: str, data_dir: str = "", manual_dir: str = "") -> list[Source]:
    """The sources that a spec names, not yet read: `KIND:…`, several joined by ` + `, each with `WEIGHT*` before it or
    not. data_dir, manual_dir: see `Source`. Raises CaptionError for an invalid spec."""
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


class Mixture:
    """The captions of several sources, read once: one source after another, or by weight if any has one.

    By weight, sources take turns so that their fractions of the rows, before duplicates are dropped, agree with their
    weights at every moment; the mixture ends where the first source does.
    drop_duplicates: whether a caption equal to an earlier one is dropped. before: captions read earlier, which count as
    such. rows, duplicates: numbers for each source so far.
    """

    def __init__(self, sources: Sequence[Source], *, drop_duplicates: bool, before: Iterable[str] = ()):
        self.sources = sources
        self.rows, self.duplicates = [0] * len(sources), [0] * len(sources)
        self._seen = CaptionSet() if drop_duplicates else None
        if self._seen is not None:
            for block in _blocks(before):
                self._seen.add(block)

    def __iter__(self) -> Iterator[str]:
        for block in _blocks(self._interleaved()):
            is_new = [True] * len(block) if self._seen is None else self._seen.add([text for _, text in block])
            for (source, text), new in zip(block, is_new, strict=True):
                if new:
                    self.rows[source] += 1
                    yield text
                else:
                    self.duplicates[source] += 1

    def _interleaved(self) -> Iterator[tuple[int, str]]:
        """Yields (number of its source, caption)."""
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
        """A line for each source: number of captions, of skipped rows with the reasons, and of duplicates."""
        return [
            f"{rows:,} caption{'' if rows == 1 else 's'} read from {source.spec}; {source.skipped}"
            + (f"; {duplicates:,} duplicate{'' if duplicates == 1 else 's'} dropped" if self._seen is not None else "")
            for source, rows, duplicates in zip(self.sources, self.rows, self.duplicates, strict=True)
        ]


class CaptionSet:
    """A set of texts, in 8 bytes each.

    By 64 bits of BLAKE2b, the chance that any distinct caption is taken for a duplicate is 3e-7 among 3.3 million
    captions, and 0.4 % among 400 million.

    Hashes lie in sorted runs whose lengths at least double, so that few are searched and each is merged rarely.
    """

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []

    def add(self, texts: Sequence[str]) -> list[bool]:
        """Adds texts. Returns for each whether it was not there before."""
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

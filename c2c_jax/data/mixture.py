"""Captions of several sources as one stream: in turn or by weight, without exact duplicates."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from c2c_jax.data.captions import Source

BLOCK = 65536  # texts hashed at a time: large enough that Python's cost per block vanishes


class Mixture:
    """The captions of several sources, read once: one source after another, or by weight where any has one.

    By weight, sources take turns so that their shares of the rows, before duplicates are dropped, are as their
    weights at every moment; the mixture ends where the first source does.
    drop_duplicates: whether a caption equal to an earlier one is left out. rows, duplicates: of each source so far.
    before: captions read earlier, which count as seen.
    """

    def __init__(self, sources: Sequence[Source], *, drop_duplicates: bool, before: Iterable[str] = ()):
        self.sources = sources
        self.rows, self.duplicates = [0] * len(sources), [0] * len(sources)
        self._seen = Seen() if drop_duplicates else None
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
        streams = [source.rows() for source in self.sources]
        weights = [source.weight for source in self.sources]
        if all(weight is None for weight in weights):
            for number, stream in enumerate(streams):
                for text in stream:
                    yield number, text
            return
        shares = [1.0 if weight is None else weight for weight in weights]
        taken = [0] * len(streams)
        while True:
            number = min(range(len(streams)), key=lambda i: (taken[i] + 1) / shares[i])
            if (drawn := next(streams[number], None)) is None:
                return
            taken[number] += 1
            yield number, drawn

    def report(self) -> list[str]:
        """A line for each source: how many captions, how many rows left out and why, how many duplicates."""
        return [
            f"{rows:,} caption{'' if rows == 1 else 's'} read from {source.spec}; {source.left_out}"
            + (f"; {duplicates:,} duplicate{'' if duplicates == 1 else 's'} dropped" if self._seen is not None else "")
            for source, rows, duplicates in zip(self.sources, self.rows, self.duplicates, strict=True)
        ]


class Seen:
    """Which texts have come by, in 8 bytes each.

    By 64 bits of BLAKE2b, the chance that any distinct caption is taken for a duplicate is 3e-7 among 3.3 million
    captions, and 0.4 % among 400 million.

    Hashes lie in sorted runs whose lengths at least double, so that a look-up searches few and each is merged rarely.
    """

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []

    def add(self, texts: Sequence[str]) -> list[bool]:
        """For each text, whether it is the first of its kind."""
        digests = (hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest() for text in texts)
        hashes = np.frombuffer(b"".join(digests), np.uint64)
        is_new = np.zeros(len(texts), bool)
        is_new[np.unique(hashes, return_index=True)[1]] = True
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
            is_new &= run[at] != hashes
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

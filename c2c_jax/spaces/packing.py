"""Texts packed into rows of tokens: next to no padding, and what causal texts begin with in common is computed once."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# Texts go into rows of the first of these lengths that holds them, or of the checkpoint's longest where that is less.
# Short rows keep attention, whose work grows with their length, a small part of a tower's.
ROW_LENGTHS = (64, 128, 512)
SMALLER = 4  # what is left of a list of texts goes into batches of a quarter, and of a sixteenth of the rows


def most_texts(length: int) -> int:
    """How many texts a row of so many tokens holds at most: those of 6 tokens on average, as the shortest captions."""
    return max(length // 6, 1)


class TokenRows(NamedTuple):
    """R rows of L tokens, of several texts each: what a text tower is given. `pack` makes them of numpy arrays.

    A token is seen by those at `since` ≤ place in row < `until`, which are tokens of its own text. With causal
    attention these come after it, and may be those of several texts that begin alike.
    """

    ids_RL: Int[Array, "R L"]
    places_RL: Int[Array, "R L"]  # in its text, from 0
    since_RL: Int[Array, "R L"]
    until_RL: Int[Array, "R L"]  # 0 where there is no token
    at_RQ: Int[Array, "R Q"]  # place in row of the token at which a text is pooled; 0 beyond the last text

    def seen(self, by_RQ: Int[Array, "R Q"] | None = None) -> Bool[Array, "R 1 Q L"]:
        """Which tokens of its row each of the tokens at `by_RQ` sees; of all tokens where that is left out."""
        by_RQ1 = jnp.arange(self.ids_RL.shape[1])[None, :, None] if by_RQ is None else by_RQ[:, :, None]
        seen_RQL = (self.since_RL[:, None] <= by_RQ1) & (by_RQ1 < self.until_RL[:, None])
        return seen_RQL[:, None]


@dataclasses.dataclass(frozen=True)
class TextBatch:
    """Some of a list's texts as rows of tokens.

    texts_N: their places in the list. slots_N: their places among the R·Q that a tower gives.
    """

    tokens: TokenRows
    texts_N: np.ndarray
    slots_N: np.ndarray

    def put(self, pooled_RQE: Float[Array, "R Q E"], vectors: Float[np.ndarray, "N E"]) -> None:
        """Waits for what a tower gave for this batch, and puts it where its texts belong among the list's vectors."""
        pooled = np.asarray(pooled_RQE)
        vectors[self.texts_N] = pooled.reshape(-1, pooled.shape[-1])[self.slots_N]


def pack(
    ids: Sequence[list[int]],
    *,
    longest: int,
    batch_tokens: int,
    devices: int = 1,
    is_causal: bool,
    uncounted: int | None = None,
) -> list[TextBatch]:
    """All of a list's texts in batches, those of long rows first.

    ids: tokens of each text, none of more than `longest`. batch_tokens: how many a device sees at once; three sizes of
    batch a row length, at most, so that a tower compiles for fewer than ten shapes. is_causal: tokens see what is
    before them, texts are pooled at their last token and those of one row share their common beginnings; else every
    token sees all of its text, which is pooled at the first. uncounted: a token that takes no place of its own.
    """
    lengths = [length for length in ROW_LENGTHS if length < longest] + [longest]
    batches = []
    for shorter, length in reversed(list(zip([-1, *lengths], lengths, strict=False))):
        texts = [text for text in range(len(ids)) if shorter < len(ids[text]) <= length]
        rows = _alike(ids, texts, length) if is_causal else _best_fit(ids, texts, length)
        start = 0
        while start < len(rows):
            size = _batch_rows(len(rows) - start, max(batch_tokens // length, 1), devices)
            batches.append(_batch(ids, rows[start : start + size], (size, length), is_causal, uncounted))
            start += size
    return batches


def one_a_row(ids: Sequence[list[int]], *, length: int, is_causal: bool, uncounted: int | None = None) -> TokenRows:
    """A batch of a fixed shape, for training: text i alone in row i of `length` tokens, Q = 1. The rest as for `pack`.

    Raises ValueError for a longer text.
    """
    rows = [[_Piece(text, 0)] for text in range(len(ids))]
    tokens = _batch(ids, rows, (len(ids), length), is_causal, uncounted).tokens
    return tokens._replace(at_RQ=tokens.at_RQ[:, :1])


def _batch_rows(left: int, most: int, devices: int) -> int:
    """How many rows the next batch has: as many as a device takes, or a smaller size where that wastes less."""
    sizes = [max(most // SMALLER**power, 1) * devices for power in range(3)]
    for size, smaller in zip(sizes, sizes[1:], strict=False):
        if left > size - smaller:
            return size
    return sizes[-1]


class _Piece(NamedTuple):
    """A text in a row, without what it has in common with the text before it."""

    text: int
    shared: int


def _alike(ids: Sequence[list[int]], texts: list[int], length: int) -> list[list[_Piece]]:
    """Rows of texts in the order of their tokens: neighbours begin alike."""
    rows: list[list[_Piece]] = []
    room, before = 0, None
    for text in sorted(texts, key=lambda text: ids[text]):
        shared = 0 if before is None else _in_common(ids[before], ids[text])
        if len(ids[text]) - shared > room or len(rows[-1]) == most_texts(length):
            rows.append([])
            room, shared = length, 0
        rows[-1].append(_Piece(text, shared))
        room -= len(ids[text]) - shared
        before = text
    return rows


def _in_common(one: list[int], other: list[int]) -> int:
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _best_fit(ids: Sequence[list[int]], texts: list[int], length: int) -> list[list[_Piece]]:
    """Rows by best fit decreasing (Johnson 1973): each text, longest first, to the row that it leaves least room in."""
    rows: list[list[_Piece]] = []
    with_room: list[list[int]] = [[] for _ in range(length + 1)]
    for text in sorted(texts, key=lambda text: -len(ids[text])):
        needed = len(ids[text])
        room = next((room for room in range(needed, length + 1) if with_room[room]), None)
        if room is None:
            rows.append([])
            row, room = len(rows) - 1, length
        else:
            row = with_room[room].pop()
        rows[row].append(_Piece(text, 0))
        if len(rows[row]) < most_texts(length):
            with_room[room - needed].append(row)
    return rows


def _batch(
    ids: Sequence[list[int]],
    rows: list[list[_Piece]],
    shape: tuple[int, int],
    is_causal: bool,
    uncounted: int | None,
) -> TextBatch:
    R, L = shape
    Q = most_texts(L)
    ids_RL, places_RL, since_RL, until_RL = np.zeros((4, R, L), np.int32)
    at_RQ = np.zeros((R, Q), np.int32)
    texts, slots = [], []
    for row, pieces in enumerate(rows):
        path: list[int] = []  # places in row of the text's tokens
        end = 0
        for slot, (text, shared) in enumerate(pieces):
            start, end = end, end + len(ids[text]) - shared
            path = [*path[:shared], *range(start, end)]
            places = np.arange(len(ids[text]))
            if uncounted is not None:
                places = np.cumsum(np.not_equal(ids[text], uncounted)) - 1
            ids_RL[row, start:end] = ids[text][shared:]
            places_RL[row, start:end] = places[shared:]
            since_RL[row, start:end] = range(start, end) if is_causal else start
            until_RL[row, path] = end
            at_RQ[row, slot] = path[-1 if is_causal else 0]
            texts.append(text)
            slots.append(row * Q + slot)
    tokens = TokenRows(ids_RL, places_RL, since_RL, until_RL, at_RQ)  # type: ignore[arg-type]
    return TextBatch(tokens, np.asarray(texts), np.asarray(slots))

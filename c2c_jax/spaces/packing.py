"""Packs texts into rows of tokens: almost no padding, and beginnings that causal texts share are computed once.

A layer above the text towers: it makes the mask, positions and pooling places of `encode_text`, see `encode_packed`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# Texts go into rows of the first of these lengths that holds them, or of the checkpoint's longest where that is less.
# Short rows keep attention, whose work grows with their length, a small part of a tower's.
ROW_LENGTHS = (64, 128, 512)
SMALLER = 4  # what is left of a list of texts goes into batches of a quarter, and of a sixteenth of the rows


def max_texts(length: int) -> int:
    """How many texts a row of so many tokens holds at most: those of 6 tokens on average, as the shortest captions."""
    return max(length // 6, 1)


class TokenRows(NamedTuple):
    """R rows of L tokens, of several texts each. `pack` makes them of numpy arrays.

    A token is seen by those at `since` ≤ place in row < `until`, which are tokens of its own text. With causal
    attention these come after it, and may be those of several texts that begin alike.
    """

    ids_RL: Int[Array, "R L"]
    position_ids_RL: Int[Array, "R L"]
    since_RL: Int[Array, "R L"]
    until_RL: Int[Array, "R L"]  # 0 where there is no token
    pool_at_RQ: Int[Array, "R Q"]  # place in row of the token at which a text is pooled; 0 beyond the last text

    def mask(self) -> Bool[Array, "R 1 L L"]:
        """Which tokens of its row each token sees."""
        places_1L1 = jnp.arange(self.ids_RL.shape[1])[None, :, None]
        return ((self.since_RL[:, None] <= places_1L1) & (places_1L1 < self.until_RL[:, None]))[:, None]


def encode_packed(model: Any, tokens: TokenRows) -> Float[Array, "R Q E"]:
    """The projections of packed texts by a model's text tower."""
    return model.encode_text(
        tokens.ids_RL, tokens.mask(), position_ids_BL=tokens.position_ids_RL, pool_at=tokens.pool_at_RQ
    )


@dataclasses.dataclass(frozen=True)
class TextBatch:
    """Some of a list's texts as rows of tokens.

    texts_N: their places in the list. slots_N: their places among the R·Q vectors of the tower.
    """

    tokens: TokenRows
    texts_N: np.ndarray
    slots_N: np.ndarray

    def put(self, pooled_RQE: Float[Array, "R Q E"], vectors: Float[np.ndarray, "N E"]) -> None:
        """Waits for the tower's vectors of this batch, and writes each to its text's row of the list's vectors."""
        pooled = np.asarray(pooled_RQE)
        vectors[self.texts_N] = pooled.reshape(-1, pooled.shape[-1])[self.slots_N]


def pack(
    ids: Sequence[list[int]],
    *,
    max_length: int,
    batch_tokens: int,
    devices: int = 1,
    is_causal: bool,
    pad_token_id: int | None = None,
) -> list[TextBatch]:
    """All of a list's texts in batches, those of long rows first.

    ids: tokens of each text, none of more than `max_length`. batch_tokens: how many a device sees at once; at most
    three sizes of batch a row length, so that a tower compiles for fewer than ten shapes. is_causal: tokens see what
    is before them, texts are pooled at their last token, and those of one row share their common beginnings; else
    every token sees all of its text, which is pooled at the first. pad_token_id: of RoBERTa, which counts positions
    from pad_token_id + 1, over other tokens; None: from 0, over all.
    """
    lengths = [length for length in ROW_LENGTHS if length < max_length] + [max_length]
    batches = []
    for shorter, length in reversed(list(zip([-1, *lengths], lengths, strict=False))):
        texts = [text for text in range(len(ids)) if shorter < len(ids[text]) <= length]
        rows = _rows_by_beginning(ids, texts, length) if is_causal else _rows_by_best_fit(ids, texts, length)
        start = 0
        while start < len(rows):
            size = _batch_rows(len(rows) - start, max(batch_tokens // length, 1), devices)
            batches.append(_batch(ids, rows[start : start + size], (size, length), is_causal, pad_token_id))
            start += size
    return batches


def _batch_rows(left: int, per_device: int, devices: int) -> int:
    """How many rows the next batch has: as many as a device takes, or a smaller size where that wastes less."""
    sizes = [max(per_device // SMALLER**power, 1) * devices for power in range(3)]
    for size, smaller in zip(sizes, sizes[1:], strict=False):
        if left > size - smaller:
            return size
    return sizes[-1]


class _Piece(NamedTuple):
    """A text in a row, less the tokens that it shares with the text before it."""

    text: int
    shared: int


def _rows_by_beginning(ids: Sequence[list[int]], texts: list[int], length: int) -> list[list[_Piece]]:
    """Rows of texts in the order of their tokens: neighbours begin alike."""
    rows: list[list[_Piece]] = []
    room, before = 0, None
    for text in sorted(texts, key=lambda text: ids[text]):
        shared = 0 if before is None else _shared(ids[before], ids[text])
        if len(ids[text]) - shared > room or len(rows[-1]) == max_texts(length):
            rows.append([])
            room, shared = length, 0
        rows[-1].append(_Piece(text, shared))
        room -= len(ids[text]) - shared
        before = text
    return rows


def _shared(one: list[int], other: list[int]) -> int:
    """How many tokens two texts have in common at their beginnings."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _rows_by_best_fit(ids: Sequence[list[int]], texts: list[int], length: int) -> list[list[_Piece]]:
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
        if len(rows[row]) < max_texts(length):
            with_room[room - needed].append(row)
    return rows


def _batch(
    ids: Sequence[list[int]],
    rows: list[list[_Piece]],
    shape: tuple[int, int],
    is_causal: bool,
    pad_token_id: int | None,
) -> TextBatch:
    R, L = shape
    Q = max_texts(L)
    ids_RL, position_ids_RL, since_RL, until_RL = np.zeros((4, R, L), np.int32)
    pool_at_RQ = np.zeros((R, Q), np.int32)
    texts, slots = [], []
    for row, pieces in enumerate(rows):
        path: list[int] = []  # places in row of the text's tokens
        end = 0
        for slot, (text, shared) in enumerate(pieces):
            start, end = end, end + len(ids[text]) - shared
            path = [*path[:shared], *range(start, end)]
            positions = np.arange(len(ids[text]))
            if pad_token_id is not None:
                is_counted = np.not_equal(ids[text], pad_token_id)
                positions = np.cumsum(is_counted) * is_counted + pad_token_id
            ids_RL[row, start:end] = ids[text][shared:]
            position_ids_RL[row, start:end] = positions[shared:]
            since_RL[row, start:end] = range(start, end) if is_causal else start
            until_RL[row, path] = end
            pool_at_RQ[row, slot] = path[-1 if is_causal else 0]
            texts.append(text)
            slots.append(row * Q + slot)
    tokens = TokenRows(ids_RL, position_ids_RL, since_RL, until_RL, pool_at_RQ)  # type: ignore[arg-type]
    return TextBatch(tokens, np.asarray(texts), np.asarray(slots))

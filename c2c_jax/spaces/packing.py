"""Packs texts into rows of tokens, with almost no padding. Causal texts with a common prefix share its tokens.

Packing only changes the arguments of `encode_text`: the mask, the position ids and the pooling positions.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# Each text goes into a row of the smallest length that holds it. Short rows keep the cost of attention low.
ROW_LENGTHS = (64, 128, 512)
SMALLER = 4  # the last texts go into batches of a quarter or a sixteenth of the rows


def max_texts(length: int) -> int:
    """Maximum number of texts in a row of `length` tokens: 6 tokens each, like the shortest captions."""
    return max(length // 6, 1)


class TokenRows(NamedTuple):
    """R rows of L tokens, each row with several texts.

    A token is visible to the tokens of its text, which are at `visible_from` ≤ position in row < `visible_until`. With
    causal attention these are later tokens, of all texts that share the token as part of their prefix.
    """

    ids_RL: Int[Array, "R L"]
    position_ids_RL: Int[Array, "R L"]
    visible_from_RL: Int[Array, "R L"]
    visible_until_RL: Int[Array, "R L"]  # 0 for padding
    pool_positions_RQ: Int[Array, "R Q"]  # position in row at which text q is pooled; 0 beyond the last text

    def mask(self) -> Bool[Array, "R 1 L L"]:
        """Which tokens of its row each token attends to."""
        positions_1L1 = jnp.arange(self.ids_RL.shape[1])[None, :, None]
        return ((self.visible_from_RL[:, None] <= positions_1L1) & (positions_1L1 < self.visible_until_RL[:, None]))[
            :, None
        ]


def encode_packed(model: Any, tokens: TokenRows) -> Float[Array, "R Q E"]:
    """Encodes packed texts with a model's text tower."""
    return model.encode_text(
        tokens.ids_RL, tokens.mask(), position_ids_BL=tokens.position_ids_RL, pool_positions=tokens.pool_positions_RQ
    )


@dataclasses.dataclass(frozen=True)
class TextBatch:
    """One batch of a list of texts, as rows of tokens.

    text_indices_N: indices of its texts in the list. slots_N: their indices among the tower's R·Q vectors.
    """

    tokens: TokenRows
    text_indices_N: np.ndarray
    slots_N: np.ndarray

    def scatter(self, pooled_RQE: Float[Array, "R Q E"], vectors: Float[np.ndarray, "N E"]) -> None:
        """Waits for the tower's vectors of this batch and writes each to the row of its text."""
        pooled = np.asarray(pooled_RQE)
        vectors[self.text_indices_N] = pooled.reshape(-1, pooled.shape[-1])[self.slots_N]


def pack(
    ids: Sequence[list[int]],
    *,
    max_length: int,
    batch_tokens: int,
    devices: int = 1,
    is_causal: bool,
    pad_token_id: int | None = None,
) -> list[TextBatch]:
    """Packs a list of texts into batches, long rows first.

    ids: tokens of each text, at most `max_length`. batch_tokens: tokens per device and batch. Each row length has at
    most three batch sizes, so that a tower compiles for fewer than ten shapes. is_causal: True: tokens attend to
    earlier ones, texts are pooled at their last token and share common prefixes; False: tokens attend to their whole
    text, which is pooled at its first token. pad_token_id: RoBERTa counts positions from pad_token_id + 1 and skips
    padding; None: positions count from 0.
    """
    lengths = [length for length in ROW_LENGTHS if length < max_length] + [max_length]
    batches = []
    for shorter, length in reversed(list(zip([-1, *lengths], lengths, strict=False))):
        texts = [text for text in range(len(ids)) if shorter < len(ids[text]) <= length]
        rows = _rows_by_prefix(ids, texts, length) if is_causal else _rows_by_best_fit(ids, texts, length)
        start = 0
        while start < len(rows):
            size = _batch_rows(len(rows) - start, max(batch_tokens // length, 1), devices)
            batches.append(_batch(ids, rows[start : start + size], (size, length), is_causal, pad_token_id))
            start += size
    return batches


def _batch_rows(remaining: int, per_device: int, devices: int) -> int:
    """Number of rows of the next batch: the full size, or a smaller size if that wastes less."""
    sizes = [max(per_device // SMALLER**power, 1) * devices for power in range(3)]
    for size, smaller in zip(sizes, sizes[1:], strict=False):
        if remaining > size - smaller:
            return size
    return sizes[-1]


class _Piece(NamedTuple):
    """A text in a row, without the `shared` prefix tokens that the previous text already has."""

    text: int
    shared: int


def _rows_by_prefix(ids: Sequence[list[int]], texts: list[int], length: int) -> list[list[_Piece]]:
    """Fills rows with texts sorted by their tokens, so that neighbours share long prefixes."""
    rows: list[list[_Piece]] = []
    room, previous = 0, None
    for text in sorted(texts, key=lambda text: ids[text]):
        shared = 0 if previous is None else _common_prefix(ids[previous], ids[text])
        if len(ids[text]) - shared > room or len(rows[-1]) == max_texts(length):
            rows.append([])
            room, shared = length, 0
        rows[-1].append(_Piece(text, shared))
        room -= len(ids[text]) - shared
        previous = text
    return rows


def _common_prefix(first: list[int], second: list[int]) -> int:
    """Length of the common prefix of two texts, in tokens."""
    pairs = zip(first, second, strict=False)
    return next((position for position, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _rows_by_best_fit(ids: Sequence[list[int]], texts: list[int], length: int) -> list[list[_Piece]]:
    """Fills rows by best fit decreasing (Johnson 1973): each text, longest first, goes into the fullest row that
    fits."""
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
    ids_RL, position_ids_RL, visible_from_RL, visible_until_RL = np.zeros((4, R, L), np.int32)
    pool_positions_RQ = np.zeros((R, Q), np.int32)
    texts, slots = [], []
    for row, pieces in enumerate(rows):
        path: list[int] = []  # positions in row of the text's tokens
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
            visible_from_RL[row, start:end] = range(start, end) if is_causal else start
            visible_until_RL[row, path] = end
            pool_positions_RQ[row, slot] = path[-1 if is_causal else 0]
            texts.append(text)
            slots.append(row * Q + slot)
    tokens = TokenRows(ids_RL, position_ids_RL, visible_from_RL, visible_until_RL, pool_positions_RQ)  # type: ignore[arg-type]
    return TextBatch(tokens, np.asarray(texts), np.asarray(slots))

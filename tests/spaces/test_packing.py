"""Packing, by hand and by following what each text sees."""

import jax.numpy as jnp
import numpy as np
import pytest

from c2c_jax.spaces.packing import TokenRows, pack

START, END, PAD = 90, 99, 1


def texts(count: int, longest: int) -> list[list[int]]:
    """Token lists that often begin alike, some of them equal."""
    rng = np.random.default_rng(0)
    lengths = rng.geometric(0.12, count).clip(1, longest - 2)
    return [[START, *rng.choice([5, 6, 7], p=[0.6, 0.3, 0.1], size=length).tolist(), END] for length in lengths]


def test_beginnings_in_common_are_there_once():
    """Three texts of a row by hand, 0 the first in the order of tokens, 1 and 2 branching off behind `START 5`."""
    (batch,) = pack(
        [[START, 5, 6, END], [START, 5, 7, 8, END], [START, 5, 7, END]], max_length=20, batch_tokens=20, is_causal=True
    )
    tokens = TokenRows(*(array[0] for array in batch.tokens))
    assert tokens.ids_RL.tolist() == [START, 5, 6, END, 7, 8, END, END, *[0] * 12]
    assert tokens.position_ids_RL[:8].tolist() == [0, 1, 2, 3, 2, 3, 4, 3]
    assert tokens.visible_from_RL[:8].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert tokens.visible_until_RL.tolist() == [8, 8, 4, 4, 8, 7, 7, 8, *[0] * 12]
    assert tokens.pool_positions_RQ.tolist() == [3, 6, 7]
    assert (batch.text_indices_N.tolist(), batch.slots_N.tolist()) == ([0, 1, 2], [0, 1, 2])


def test_whole_texts_lie_side_by_side():
    (batch,) = pack([[START, 5, END], [START, 5, 7, 8, END]], max_length=20, batch_tokens=20, is_causal=False)
    tokens = TokenRows(*(array[0] for array in batch.tokens))
    assert tokens.ids_RL.tolist() == [START, 5, 7, 8, END, START, 5, END, *[0] * 12]
    assert tokens.position_ids_RL[:8].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert tokens.visible_from_RL[:8].tolist() == [0] * 5 + [5] * 3
    assert tokens.visible_until_RL.tolist() == [5] * 5 + [8] * 3 + [0] * 12
    assert tokens.pool_positions_RQ.tolist() == [0, 5, 0]
    assert batch.text_indices_N.tolist() == [1, 0]


def test_an_uncounted_token_takes_no_place():
    """RoBERTa's positions skip padding tokens (transformers' create_position_ids_from_input_ids)."""
    (batch,) = pack([[START, PAD, 5, END]], max_length=20, batch_tokens=20, is_causal=False, pad_token_id=PAD)
    assert batch.tokens.position_ids_RL[0, :4].tolist() == [PAD + 1, PAD, PAD + 2, PAD + 3]


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("devices", [1, 4])
def test_every_text_sees_itself_and_nothing_else(is_causal, devices):
    ids = texts(700, longest=77)
    batches = pack(ids, max_length=77, batch_tokens=1024, devices=devices, is_causal=is_causal)
    assert sorted(text for batch in batches for text in batch.text_indices_N) == list(range(700))
    for batch in batches:
        tokens = TokenRows(*map(jnp.asarray, batch.tokens))
        R, L = tokens.ids_RL.shape
        assert R % devices == 0 and R * L <= 1024 * devices
        seen_RLL = np.asarray(tokens.mask())[:, 0]
        for text, slot in zip(batch.text_indices_N, batch.slots_N, strict=True):
            row, place = divmod(slot, tokens.pool_positions_RQ.shape[1])
            own = seen_RLL[row, tokens.pool_positions_RQ[row, place]]
            assert batch.tokens.ids_RL[row][own].tolist() == ids[text]
            assert batch.tokens.position_ids_RL[row][own].tolist() == list(range(len(ids[text])))
            # and each of its tokens sees what is before it, or all of them
            of_all_LL = seen_RLL[row][own][:, own]
            expected = np.tril(np.ones_like(of_all_LL)) if is_causal else np.ones_like(of_all_LL)
            np.testing.assert_array_equal(of_all_LL, expected)
        vectors = np.full((700, 1), np.nan)
        batch.scatter(jnp.arange(tokens.pool_positions_RQ.size, dtype=float).reshape(R, -1, 1), vectors)
        np.testing.assert_array_equal(vectors[batch.text_indices_N, 0], batch.slots_N)


def test_little_is_padding(caption_list):
    """Whole texts fill their rows to 97 %; texts with beginnings in common need fewer tokens than they have."""
    words = sorted({word for caption in caption_list for word in caption.split()})
    ids = [[START, *(100 + words.index(word) for word in caption.split()), END] for caption in caption_list]
    tokens = sum(map(len, ids))

    def laid_out(is_causal: bool) -> int:
        batches = pack(ids, max_length=77, batch_tokens=64, is_causal=is_causal)
        return sum(batch.tokens.ids_RL.size for batch in batches)

    assert tokens < laid_out(False) < tokens / 0.97
    assert laid_out(True) < 0.9 * tokens


@pytest.mark.parametrize("longest", [77, 512])
def test_fewer_than_ten_shapes(longest):
    shapes = set()
    for count in (1, 3, 40, 700, 2000):
        ids = texts(count, longest) + [[START] * length for length in range(1, longest + 1, 3)]
        for is_causal in (True, False):
            batches = pack(ids, max_length=longest, batch_tokens=2048, is_causal=is_causal)
            shapes |= {batch.tokens.ids_RL.shape for batch in batches}
    assert len(shapes) < 10
    assert {length for _, length in shapes} == {64, longest} | ({128} if longest > 128 else set())


@pytest.mark.parametrize("is_causal", [True, False])
def test_few_tokens_and_few_texts(is_causal):
    assert pack([], max_length=77, batch_tokens=64, is_causal=is_causal) == []
    batches = pack([[START, END], [START, 5, END]], max_length=3, batch_tokens=1, is_causal=is_causal)
    assert [batch.tokens.ids_RL.shape for batch in batches] == [(1, 3), (1, 3)]
    assert sorted(batch.tokens.ids_RL[0].tolist() for batch in batches) == [[START, 5, END], [START, END, 0]]


def test_what_is_left_goes_into_smaller_batches():
    """Rows of one text each, 32 to a full batch."""
    ids = [[START] * 60] * 70
    sizes = [len(batch.tokens.ids_RL) for batch in pack(ids, max_length=64, batch_tokens=2048, is_causal=False)]
    assert sizes == [32, 32, 2, 2, 2]
    sizes = [len(batch.tokens.ids_RL) for batch in pack(ids[:31], max_length=64, batch_tokens=2048, is_causal=False)]
    assert sizes == [32]

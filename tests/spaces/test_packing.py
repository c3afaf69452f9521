"""Packing: small batches by hand, and masks, positions and slots of many texts."""

import jax.numpy as jnp
import numpy as np
import pytest

from c2c_jax.spaces.packing import TokenRows, pack

START, END, PAD = 90, 99, 1


def texts(count: int, max_length: int) -> list[list[int]]:
    """Token lists, many with common prefixes and some equal."""
    rng = np.random.default_rng(0)
    lengths = rng.geometric(0.12, count).clip(1, max_length - 2)
    return [[START, *rng.choice([5, 6, 7], p=[0.6, 0.3, 0.1], size=length).tolist(), END] for length in lengths]


def test_common_prefixes_are_stored_once():
    """Three texts in one row: text 0 comes first, texts 1 and 2 branch off after `START 5`."""
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


def test_bidirectional_texts_share_no_tokens():
    (batch,) = pack([[START, 5, END], [START, 5, 7, 8, END]], max_length=20, batch_tokens=20, is_causal=False)
    tokens = TokenRows(*(array[0] for array in batch.tokens))
    assert tokens.ids_RL.tolist() == [START, 5, 7, 8, END, START, 5, END, *[0] * 12]
    assert tokens.position_ids_RL[:8].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert tokens.visible_from_RL[:8].tolist() == [0] * 5 + [5] * 3
    assert tokens.visible_until_RL.tolist() == [5] * 5 + [8] * 3 + [0] * 12
    assert tokens.pool_positions_RQ.tolist() == [0, 5, 0]
    assert batch.text_indices_N.tolist() == [1, 0]


def test_padding_tokens_do_not_advance_positions():
    """RoBERTa's positions skip padding tokens (transformers' create_position_ids_from_input_ids)."""
    (batch,) = pack([[START, PAD, 5, END]], max_length=20, batch_tokens=20, is_causal=False, pad_token_id=PAD)
    assert batch.tokens.position_ids_RL[0, :4].tolist() == [PAD + 1, PAD, PAD + 2, PAD + 3]


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("devices", [1, 4])
def test_texts_attend_only_to_themselves(is_causal, devices):
    ids = texts(700, max_length=77)
    batches = pack(ids, max_length=77, batch_tokens=1024, devices=devices, is_causal=is_causal)
    assert sorted(text for batch in batches for text in batch.text_indices_N) == list(range(700))
    for batch in batches:
        tokens = TokenRows(*map(jnp.asarray, batch.tokens))
        R, L = tokens.ids_RL.shape
        assert R % devices == 0 and R * L <= 1024 * devices
        mask_RLL = np.asarray(tokens.mask())[:, 0]
        for text, slot in zip(batch.text_indices_N, batch.slots_N, strict=True):
            row, slot_in_row = divmod(slot, tokens.pool_positions_RQ.shape[1])
            is_own = mask_RLL[row, tokens.pool_positions_RQ[row, slot_in_row]]
            assert batch.tokens.ids_RL[row][is_own].tolist() == ids[text]
            assert batch.tokens.position_ids_RL[row][is_own].tolist() == list(range(len(ids[text])))
            # causal texts attend to earlier tokens, others to all
            mask_LL = mask_RLL[row][is_own][:, is_own]
            expected = np.tril(np.ones_like(mask_LL)) if is_causal else np.ones_like(mask_LL)
            np.testing.assert_array_equal(mask_LL, expected)
        vectors = np.full((700, 1), np.nan)
        batch.scatter(jnp.arange(tokens.pool_positions_RQ.size, dtype=float).reshape(R, -1, 1), vectors)
        np.testing.assert_array_equal(vectors[batch.text_indices_N, 0], batch.slots_N)


def test_padding_is_small(caption_list):
    """Bidirectional texts fill their rows to 97 %; causal texts need fewer tokens, since they share prefixes."""
    words = sorted({word for caption in caption_list for word in caption.split()})
    ids = [[START, *(100 + words.index(word) for word in caption.split()), END] for caption in caption_list]
    tokens = sum(map(len, ids))

    def packed_size(is_causal: bool) -> int:
        batches = pack(ids, max_length=77, batch_tokens=64, is_causal=is_causal)
        return sum(batch.tokens.ids_RL.size for batch in batches)

    assert tokens < packed_size(False) < tokens / 0.97
    assert packed_size(True) < 0.9 * tokens


@pytest.mark.parametrize("max_length", [77, 512])
def test_fewer_than_ten_shapes(max_length):
    shapes = set()
    for count in (1, 3, 40, 700, 2000):
        ids = texts(count, max_length) + [[START] * length for length in range(1, max_length + 1, 3)]
        for is_causal in (True, False):
            batches = pack(ids, max_length=max_length, batch_tokens=2048, is_causal=is_causal)
            shapes |= {batch.tokens.ids_RL.shape for batch in batches}
    assert len(shapes) < 10
    assert {length for _, length in shapes} == {64, max_length} | ({128} if max_length > 128 else set())


@pytest.mark.parametrize("is_causal", [True, False])
def test_few_tokens_and_few_texts(is_causal):
    assert pack([], max_length=77, batch_tokens=64, is_causal=is_causal) == []
    batches = pack([[START, END], [START, 5, END]], max_length=3, batch_tokens=1, is_causal=is_causal)
    assert [batch.tokens.ids_RL.shape for batch in batches] == [(1, 3), (1, 3)]
    assert sorted(batch.tokens.ids_RL[0].tolist() for batch in batches) == [[START, 5, END], [START, END, 0]]


def test_remainders_use_smaller_batches():
    """Rows of one text each; a full batch has 32."""
    ids = [[START] * 60] * 70
    sizes = [len(batch.tokens.ids_RL) for batch in pack(ids, max_length=64, batch_tokens=2048, is_causal=False)]
    assert sizes == [32, 32, 2, 2, 2]
    sizes = [len(batch.tokens.ids_RL) for batch in pack(ids[:31], max_length=64, batch_tokens=2048, is_causal=False)]
    assert sizes == [32]

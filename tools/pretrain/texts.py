"""The captions that tokenizers learn from, the length of a caption in tokens, and the prompts of the cells."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from c2c_jax.miniworld.captions import captions, cell_prompts
from c2c_jax.miniworld.world import CELLS
from c2c_jax.spaces.space import Space

CORPUS_SIZE = 20_000  # captions


@functools.cache
def corpus() -> list[str]:
    """The captions that tokenizers learn from."""
    return list(captions("train", CORPUS_SIZE))


def tokeniser(space: Space) -> Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]:
    """From captions to their token ids and attention mask, both [B, L]. L: tokens of the longest caption of the corpus
    and a margin, as a multiple of 8."""
    tokenizer, L = space.tokenizer, -(-(max(map(len, space.token_ids(corpus()))) + 2) // 8) * 8

    def tokenise(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        assert tokenizer is not None
        tokens = tokenizer(list(texts), padding="max_length", max_length=L, truncation=True, return_tensors="np")
        return tokens["input_ids"].astype(np.int32), tokens["attention_mask"].astype(bool)

    return tokenise


def prompt_vectors(space: Space, style: str) -> Float[np.ndarray, "C E"]:
    """The mean unit vector of each cell's prompts [C = 288, E]."""
    prompts = [cell_prompts(cell, style) for cell in range(CELLS)]
    vectors = space.encode_text([prompt for of_cell in prompts for prompt in of_cell])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ends = np.cumsum([len(of_cell) for of_cell in prompts])[:-1]
    return np.stack([part.mean(0) for part in np.split(vectors, ends)])

"""Captions for training tokenizers, tokenization at a fixed length, and prompt vectors of the cells."""

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
    """Returns the captions on which tokenizers are trained."""
    return list(captions("train", CORPUS_SIZE))


def tokeniser(space: Space) -> Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]:
    """Returns a function from captions to token ids and attention mask, both [B, L].

    L is the length of the corpus' longest caption plus a margin, rounded up to a multiple of 8.
    """
    tokenizer, L = space.tokenizer, -(-(max(map(len, space.token_ids(corpus()))) + 2) // 8) * 8

    def tokenise(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        assert tokenizer is not None
        tokens = tokenizer(list(texts), padding="max_length", max_length=L, truncation=True, return_tensors="np")
        return tokens["input_ids"].astype(np.int32), tokens["attention_mask"].astype(bool)

    return tokenise


def prompt_vectors(space: Space, style: str) -> Float[np.ndarray, "C E"]:
    """Returns the mean unit vector of each cell's prompts [C = 288, E]."""
    prompts = [cell_prompts(cell, style) for cell in range(CELLS)]
    vectors = space.encode_text([prompt for cell_texts in prompts for prompt in cell_texts])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ends = np.cumsum([len(cell_texts) for cell_texts in prompts])[:-1]
    return np.stack([part.mean(0) for part in np.split(vectors, ends)])

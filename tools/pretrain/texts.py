"""The captions that tokenizers learn from, the length of a caption in tokens, and the prompts of the cells."""

import functools

import numpy as np
from jaxtyping import Float

from c2c_jax.miniworld.captions import captions, cell_prompts
from c2c_jax.miniworld.world import CELLS
from c2c_jax.spaces.space import Space

LEARNED_FROM = 20_000  # captions


@functools.cache
def corpus() -> list[str]:
    """The captions that tokenizers learn from."""
    return list(captions("train", LEARNED_FROM))


def longest(space: Space) -> int:
    """Tokens of the longest caption by a space's tokenizer, plus a margin, as a multiple of 8."""
    longest_caption = max(map(len, space.token_ids(corpus())))
    return -(-(longest_caption + 2) // 8) * 8


def prompt_vectors(space: Space, style: str) -> Float[np.ndarray, "C E"]:
    """The mean unit vector of each cell's prompts [C = 288, E]."""
    prompts = [cell_prompts(cell, style) for cell in range(CELLS)]
    vectors = space.encode_text([prompt for of_cell in prompts for prompt in of_cell])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ends = np.cumsum([len(of_cell) for of_cell in prompts])[:-1]
    return np.stack([part.mean(0) for part in np.split(vectors, ends)])

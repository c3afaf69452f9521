"""Base classes of CLIP's and CLAP's text towers."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

# A tokenizer's mask, 1 for tokens and 0 for padding, or [B, 1, L, L]: which tokens each token attends to.
TokenMask = Bool[Array, "B L"] | Int[Array, "B L"] | Bool[Array, "B 1 L L"] | None


def attention_mask(input_ids_BL: Int[Array, "B L"], mask: TokenMask, is_causal: bool = False) -> Bool[Array, "B 1 L L"]:
    """Which tokens each token attends to. mask: None: no padding; [B, 1, L, L]: returned unchanged, as packed rows of
    several texts need."""
    if mask is not None and mask.ndim == 4:
        return mask
    B, L = input_ids_BL.shape
    mask_B1LL = jnp.ones((B, 1, L, L), bool)
    if mask is not None:
        mask_B1LL &= mask[:, None, None].astype(bool)
    return jnp.tril(mask_B1LL) if is_causal else mask_B1LL


class TextModel(nnx.Module):
    """Maps tokens to pooled states. Subclasses set `config`, `embeddings` and `encoder`."""

    config: Any
    embeddings: Any
    encoder: Any

    def default_pool_positions(self, input_ids_BL: Int[Array, "B L"]) -> Int[Array, "B"]:
        """The position at which each text is pooled."""
        raise NotImplementedError

    def pooled(self, hidden_BQD: Float[Array, "B Q D"]) -> Float[Array, "B Q D"]:
        """Applies what follows the encoder to its final states."""
        raise NotImplementedError

    def __call__(
        self,
        input_ids_BL: Int[Array, "B L"],
        mask: TokenMask = None,
        position_ids_BL: Int[Array, "B L"] | None = None,
        pool_positions: Int[Array, "B *Q"] | None = None,
    ) -> Float[Array, "B *Q D"]:
        """Pooled states of texts; see `TextTower.encode_text` for the arguments."""
        if pool_positions is None:
            pool_positions = self.default_pool_positions(input_ids_BL)
        hidden_BLD = self.embeddings(input_ids_BL, position_ids_BL)
        mask_B1LL = attention_mask(input_ids_BL, mask, self.config.is_causal)
        hidden_BQD = self.encoder(hidden_BLD, pool_positions.reshape(len(pool_positions), -1), mask_B1LL)
        return self.pooled(hidden_BQD).reshape(*pool_positions.shape, -1)


class TextTower(nnx.Module):
    """A model with a text tower and its projection into the joint space of width E."""

    text_model: Any
    text_projection: Any

    def encode_text(
        self,
        input_ids_BL: Int[Array, "B L"],
        mask: TokenMask = None,
        *,
        position_ids_BL: Int[Array, "B L"] | None = None,
        pool_positions: Int[Array, "B *Q"] | None = None,
    ) -> Float[Array, "B *Q E"]:
        """Text projections before L2 normalisation.

        mask: 1 for tokens and 0 for padding; None: no padding; [B, 1, L, L]: which tokens each token attends to.
        position_ids_BL: None: counted along the row. pool_positions: the positions to project, one or Q per row; None:
        where the tower pools a text (CLIP: end token, CLAP: first token).
        """
        return self.text_projection(self.text_model(input_ids_BL, mask, position_ids_BL, pool_positions))

"""What CLIP's and CLAP's text towers share: the call on token ids and a mask, as any Flax model takes them."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

# Of a batch of texts: 1 for tokens and 0 for padding, as tokenizers give it, or which tokens each token sees.
TokenMask = Bool[Array, "B L"] | Int[Array, "B L"] | Bool[Array, "B 1 L L"] | None


def attention_mask(input_ids_BL: Int[Array, "B L"], mask: TokenMask, is_causal: bool = False) -> Bool[Array, "B 1 L L"]:
    """Which tokens each token sees. mask: None: there is no padding; [B, 1, L, L]: returned as it is, causality and
    all, as packed rows of several texts need it."""
    if mask is not None and mask.ndim == 4:
        return mask
    B, L = input_ids_BL.shape
    seen_B1LL = jnp.ones((B, 1, L, L), bool)
    if mask is not None:
        seen_B1LL &= mask[:, None, None].astype(bool)
    return jnp.tril(seen_B1LL) if is_causal else seen_B1LL


class TextModel(nnx.Module):
    """From tokens to the states where texts are pooled. Subclasses set `config`, `embeddings` and `encoder`."""

    config: Any
    embeddings: Any
    encoder: Any

    def pool_positions(self, input_ids_BL: Int[Array, "B L"]) -> Int[Array, "B"]:
        """Where texts are pooled."""
        raise NotImplementedError

    def pooled(self, hidden_BQD: Float[Array, "B Q D"]) -> Float[Array, "B Q D"]:
        """The encoder's final states, after the tower's last layer."""
        raise NotImplementedError

    def __call__(
        self,
        input_ids_BL: Int[Array, "B L"],
        mask: TokenMask = None,
        position_ids_BL: Int[Array, "B L"] | None = None,
        pool_at: Int[Array, "B *Q"] | None = None,
    ) -> Float[Array, "B *Q D"]:
        """The pooled states of texts. Arguments as for `TextTower.encode_text`."""
        if pool_at is None:
            pool_at = self.pool_positions(input_ids_BL)
        hidden_BLD = self.embeddings(input_ids_BL, position_ids_BL)
        mask_B1LL = attention_mask(input_ids_BL, mask, self.config.is_causal)
        hidden_BQD = self.encoder(hidden_BLD, pool_at.reshape(len(pool_at), -1), mask_B1LL)
        return self.pooled(hidden_BQD).reshape(*pool_at.shape, -1)


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
        pool_at: Int[Array, "B *Q"] | None = None,
    ) -> Float[Array, "B *Q E"]:
        """Text projections before L2 normalisation.

        mask: 1 for tokens and 0 for padding; None: there is no padding; [B, 1, L, L]: which tokens each token sees.
        position_ids_BL: None: counted along the row. pool_at: positions of the tokens whose states are projected, one
        or Q a row; None: the one where the tower pools a text (CLIP: its end, CLAP: its first token).
        """
        return self.text_projection(self.text_model(input_ids_BL, mask, position_ids_BL, pool_at))

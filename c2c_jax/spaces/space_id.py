"""Identifies an embedding space without loading its towers."""

import dataclasses
from typing import Annotated

import msgspec

from c2c_jax.spaces.models.layers import Width


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpaceId:
    """Identifies a space. name: for people. fingerprint: for comparison; "": unknown."""

    name: Annotated[str, msgspec.Meta(max_length=4096)]
    dim: Width
    fingerprint: Annotated[str, msgspec.Meta(max_length=64)]

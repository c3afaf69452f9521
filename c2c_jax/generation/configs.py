"""Checks the fields of AudioLDM's config files that tensor shapes do not determine.

diffusers and transformers do not validate most of them, and a wrong value changes the sound without an error.
"""

import dataclasses
import inspect
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1, le=2**16)]
Scale = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
Beta = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Rate = Annotated[int, msgspec.Meta(ge=1, le=4096)]


@dataclasses.dataclass
class SchedulerBounds:
    """Bounds of scheduler_config.json, with diffusers' defaults."""

    num_train_timesteps: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1000
    steps_offset: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0
    trained_betas: Annotated[list[float], msgspec.Meta(max_length=100_000)] | None = None
    beta_start: Beta = 0.0001
    beta_end: Beta = 0.02
    clip_sample_range: Scale = 1.0
    sample_max_value: Scale = 1.0


@dataclasses.dataclass
class UNetBounds:
    """Bounds of UNet2DConditionModel's config.json."""

    freq_shift: Literal[0, 1] = 0
    downsample_padding: Literal[0, 1] = 1
    attention_head_dim: Count | list[Count] = 8
    norm_num_groups: Count | None = 32
    mid_block_scale_factor: Scale = 1.0
    norm_eps: Annotated[float, msgspec.Meta(gt=0, le=1e-2)] = 1e-5
    class_embed_type: Literal["simple_projection"] | None = None
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    resnet_out_scale_factor: Scale = 1.0


@dataclasses.dataclass
class VAEBounds:
    """Bounds of AutoencoderKL's config.json."""

    norm_num_groups: Count = 32
    scaling_factor: Scale = 0.18215
    shift_factor: None = None  # AudioLDM's pipeline ignores it


@dataclasses.dataclass
class VocoderBounds:
    """Bounds of SpeechT5HifiGan's config.json."""

    model_in_dim: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 80
    sampling_rate: Annotated[int, msgspec.Meta(ge=1000, le=400_000)] = 16_000
    upsample_rates: Annotated[list[Rate], msgspec.Meta(max_length=16)] = dataclasses.field(
        default_factory=lambda: [4, 4, 4, 4]
    )
    leaky_relu_slope: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1

    def __post_init__(self) -> None:
        if math.prod(self.upsample_rates) > 2**14:
            raise ValueError(f"upsample_rates {self.upsample_rates}; expected a product of at most {2**14:,}")


@dataclasses.dataclass
class GriffinLimBounds(VocoderBounds):
    """Bounds of GriffinLim's config.json."""

    fft: Annotated[int, msgspec.Meta(ge=16, le=4096, multiple_of=2)] = 1024
    iterations: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 64


def check_fields(config: Mapping[str, Any], bounds: type, kind: Any) -> None:
    """Raises ValueError or msgspec.ValidationError for a value outside of `bounds`, a dataclass of this module, or of
    another type than the default of the corresponding argument of `kind`."""
    msgspec.convert(config, bounds)
    types: dict[type, Any] = {bool: bool, float: int | float, str: str | None}
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        expected = types.get(type(parameter.default))
        if name in config and expected and not isinstance(config[name], expected):
            raise ValueError(f"{name} is {config[name]!r:.40}; expected a value like {parameter.default!r}")

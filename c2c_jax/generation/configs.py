"""The fields of AudioLDM's config files that no tensor pins, with their types and bounds: diffusers and transformers
take them as they come, and another value is another sound."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from c2c_jax.errors import CheckpointError
from c2c_jax.io.json import read_json

Epsilon = Annotated[float, msgspec.Meta(gt=0, le=1e-2)]
Scale = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
Count = Annotated[int, msgspec.Meta(ge=1, le=2**16)]
Kernel = Annotated[int, msgspec.Meta(ge=1, le=63)]


def read_config(kind: type, folder: Path) -> dict[str, Any]:
    """The config.json of a part, its fields checked against a dataclass of this module. Raises CheckpointError."""
    content = read_json(folder / "config.json")
    try:
        msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}: fetch it again") from None
    return content


@dataclasses.dataclass
class NoiseLevels:
    """The fields of a scheduler_config.json that diffusers would take in any type and size, with its defaults."""

    num_train_timesteps: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1000
    steps_offset: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0
    trained_betas: Annotated[list[float], msgspec.Meta(max_length=100_000)] | None = None
    beta_start: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.0001
    beta_end: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.02
    clip_sample: bool = True
    clip_sample_range: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 1.0
    set_alpha_to_one: bool = True
    thresholding: bool = False
    dynamic_thresholding_ratio: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.995
    sample_max_value: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 1.0
    rescale_betas_zero_snr: bool = False
    prediction_type: Literal["epsilon", "sample", "v_prediction"] = "epsilon"
    timestep_spacing: Literal["leading", "trailing", "linspace"] = "leading"


@dataclasses.dataclass
class Vocoding:
    """What a vocoder's config says of sound. Defaults are SpeechT5HifiGan's."""

    model_in_dim: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 80
    sampling_rate: Annotated[int, msgspec.Meta(ge=1000, le=400_000)] = 16_000
    upsample_rates: Annotated[list[Annotated[int, msgspec.Meta(ge=1, le=4096)]], msgspec.Meta(max_length=16)] = (
        dataclasses.field(default_factory=lambda: [4, 4, 4, 4])
    )
    leaky_relu_slope: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    normalize_before: bool = True

    def __post_init__(self) -> None:
        if math.prod(self.upsample_rates) > 2**14:
            raise ValueError(f"upsample_rates {self.upsample_rates}; expected a product of {2**14:,} at most")


@dataclasses.dataclass
class Denoising:
    """The UNet's. Defaults are UNet2DConditionModel's."""

    center_input_sample: bool = False
    flip_sin_to_cos: bool = True
    freq_shift: Literal[0, 1] = 0
    downsample_padding: Annotated[int, msgspec.Meta(ge=0, le=1)] = 1
    mid_block_scale_factor: Scale = 1.0
    dropout: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    act_fn: str = "silu"
    norm_num_groups: Count | None = 32
    norm_eps: Epsilon = 1e-5
    class_embed_type: Literal["simple_projection"] | None = None
    class_embeddings_concat: bool = False
    projection_class_embeddings_input_dim: Count | None = None
    dual_cross_attention: bool = False
    use_linear_projection: bool = False
    upcast_attention: bool = False
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    resnet_skip_time_act: bool = False
    resnet_out_scale_factor: Scale = 1.0
    time_embedding_type: Literal["positional", "fourier"] = "positional"
    time_embedding_act_fn: str | None = None
    timestep_post_act: str | None = None
    conv_in_kernel: Kernel = 3
    conv_out_kernel: Kernel = 3
    cross_attention_norm: str | None = None
    mid_block_only_cross_attention: bool | None = None


@dataclasses.dataclass
class Decoding:
    """The autoencoder's. Defaults are AutoencoderKL's."""

    act_fn: str = "silu"
    norm_num_groups: Count = 32
    scaling_factor: Scale = 0.18215
    shift_factor: None = None  # of other pipelines than AudioLDM's
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

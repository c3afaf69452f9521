"""Writes CLIP and AudioLDM checkpoints of the real Hugging Face classes with random weights, for use without the hub.

    python -m bench.checkpoints --size tiny --captions captions.txt --out checkpoints

writes `checkpoints/clip` and `checkpoints/audioldm` in the layout of `openai/clip-vit-base-patch32` and
`cvssp/audioldm-s-full-v2`. The towers are untrained, but different captions get clearly different vectors.
"""

import argparse
import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from c2c_jax.errors import C2CError, CaptionError
from c2c_jax.io.atomic import atomic_write
from tools.pretrain.tokenizers import clip_tokenizer, roberta_tokenizer

# Sizes of the towers. Missing ones are the defaults of the config classes, which are the published sizes.
TOWER = dict(hidden_size=64, num_attention_heads=2, num_hidden_layers=2, intermediate_size=128, projection_dim=64)
CLIP_TEXT = {"tiny": dict(vocab_size=1000, **TOWER), "published": dict(vocab_size=49408)}
CLIP_VISION = {"tiny": dict(image_size=32, patch_size=8, **TOWER), "published": {}}
CLAP_TEXT = {"tiny": dict(vocab_size=800, **TOWER), "published": dict(vocab_size=50265)}
# Widths of the blocks of UNet, VAE and vocoder. Even "published" has a generator small enough to sample on a CPU.
CHANNELS: dict[str, Any] = {
    "tiny": {"unet": (8, 16), "vae": (8, 8, 16), "vocoder": 32},
    "published": {"unet": (32, 64, 96), "vae": (16, 32, 64), "vocoder": 64},
}
VOCODER_GAIN = 1.3

# Random towers tend to give all captions nearly the same vector, or vectors with meaningless cosines. These gains make
# a tower a soft bag of words: attention is even (small queries and keys), its output outweighs the pooled token (large
# values), and the tower is nearly linear (small mlp, small positions). The first pattern that a tensor's name contains
# applies; other tensors have gain 1.
TOWER_GAINS = (
    (r"position_embedding|token_type_embedding", 0.1),
    (r"q_proj|k_proj|query|key", 0.2),
    (r"v_proj|out_proj|value|attention\.output", 2.0),
    (r"mlp|intermediate|output", 0.5),
)


def build_clip(folder: Path, captions: Sequence[str], size: str = "tiny", seed: int = 0) -> None:
    """Writes a random `CLIPModel`, a tokenizer trained on `captions`, and an image processor into `folder`.

    "published" has the sizes of `openai/clip-vit-base-patch32`; "tiny" has a 64-wide space and 32-pixel images.
    """
    tokenizer = clip_tokenizer(captions, CLIP_TEXT[size]["vocab_size"])
    text = transformers.CLIPTextConfig(**CLIP_TEXT[size], **_special_ids(tokenizer))
    vision = transformers.CLIPVisionConfig(**CLIP_VISION[size])
    config = transformers.CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=text.projection_dim
    )
    model = transformers.CLIPModel(config)
    randomise(model, TOWER_GAINS, torch.Generator().manual_seed(seed))
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": vision.image_size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": vision.image_size, "width": vision.image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    with atomic_write(folder) as temp, quiet():
        model.save_pretrained(temp)
        tokenizer.save_pretrained(temp)
        (temp / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def build_audioldm(folder: Path, captions: Sequence[str], size: str = "tiny", seed: int = 0) -> None:
    """Writes a random `AudioLDMPipeline` folder whose tokenizer is trained on `captions`.

    "published" has the full RoBERTa-base text tower and its 512-wide space; "tiny" has a 64-wide space. Sound has
    16 kHz, 64 mel bins and a hop length of 160, as published.
    """
    generator = torch.Generator().manual_seed(seed)
    tokenizer = roberta_tokenizer(captions, CLAP_TEXT[size]["vocab_size"])
    config = transformers.ClapTextConfig(**CLAP_TEXT[size], **_special_ids(tokenizer))
    text_encoder = transformers.ClapTextModelWithProjection(config)
    randomise(text_encoder, TOWER_GAINS, generator)
    width, channels = config.projection_dim, CHANNELS[size]
    unet, vae, vocoder = generator_networks(
        width,
        unet=dict(block_out_channels=channels["unet"], layers_per_block=1, attention_head_dim=2, norm_num_groups=8),
        vae=dict(block_out_channels=channels["vae"], layers_per_block=1, norm_num_groups=8),
        vocoder=dict(
            upsample_initial_channel=channels["vocoder"], upsample_rates=[5, 4, 4, 2],
            upsample_kernel_sizes=[10, 8, 8, 4], resblock_kernel_sizes=[3, 7], resblock_dilation_sizes=[[1, 3]] * 2,
        ),
    )  # fmt: skip
    randomise(unet, ((r"^class_embedding", width**0.5),), generator)  # its input has unit length
    randomise(vae, (), generator)
    randomise(vocoder, ((r"", VOCODER_GAIN),), generator)
    # Waveforms have zero mean: the last kernel removes constants, and its bias is small.
    vocoder.conv_post.weight.data -= vocoder.conv_post.weight.data.mean(dim=2, keepdim=True)
    vocoder.conv_post.bias.data *= 0.1
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, prediction_type="epsilon",
    )  # fmt: skip
    with atomic_write(folder) as temp, quiet():
        pipeline = diffusers.AudioLDMPipeline(vae, text_encoder, tokenizer, unet, scheduler, vocoder)
        pipeline.save_pretrained(temp)


def generator_networks(
    width: int, unet: dict[str, Any], vae: dict[str, Any], vocoder: dict[str, Any]
) -> tuple[diffusers.UNet2DConditionModel, diffusers.AutoencoderKL, transformers.SpeechT5HifiGan]:
    """AudioLDM's UNet, VAE and vocoder with their default initialisation. width: of the CLAP space. The other arguments
    are config fields that differ between AudioLDM checkpoints."""
    channels = unet["block_out_channels"]
    crossed = ("CrossAttnDownBlock2D",) * (len(channels) - 1)
    return (
        diffusers.UNet2DConditionModel(
            in_channels=8,
            out_channels=8,
            sample_size=128,
            cross_attention_dim=channels,  # no cross-attention: both attentions of a block are self-attention
            down_block_types=("DownBlock2D", *crossed),
            up_block_types=(*(name.replace("Down", "Up") for name in crossed), "UpBlock2D"),
            class_embed_type="simple_projection",
            class_embeddings_concat=True,
            projection_class_embeddings_input_dim=width,
            **unet,
        ),
        diffusers.AutoencoderKL(
            in_channels=1,
            out_channels=1,
            latent_channels=8,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            **vae,
        ),
        transformers.SpeechT5HifiGan(
            transformers.SpeechT5HifiGanConfig(model_in_dim=64, sampling_rate=16_000, normalize_before=False, **vocoder)
        ),
    )


def _special_ids(tokenizer: transformers.PreTrainedTokenizerBase) -> dict[str, int]:
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}


@torch.no_grad()
def randomise(model: torch.nn.Module, gains: Sequence[tuple[str, float]], generator: torch.Generator) -> None:
    """Draws every tensor of `model`. Matrices and embeddings preserve the variance of their inputs, times the squared
    gain of the first pattern of `gains` in their name (default 1). Scales are near 1 and biases near 0."""
    for prefix, module in model.named_modules():
        own = [*module.named_parameters(prefix, recurse=False), *module.named_buffers(prefix, recurse=False)]
        for name, tensor in own:
            if not tensor.is_floating_point():  # indices of positions and token types
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim >= 2:
                fan_in = 1 if isinstance(module, torch.nn.Embedding) else tensor[0].numel()
                gain = next((gain for pattern, gain in gains if re.search(pattern, name)), 1.0)
                tensor.copy_(noise * gain / fan_in**0.5)
            elif name == "logit_scale":
                tensor.copy_(4.6052 + 0.1 * noise)  # trained CLIPs end at ln 100
            elif name.endswith(("weight", "scale", "running_var")):
                tensor.copy_(1 + 0.1 * noise)
            else:
                tensor.copy_(0.1 * noise)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides progress bars and the notice that diffusers no longer maintains AudioLDM's pipeline."""
    bars = transformers.utils.logging.is_progress_bar_enabled()
    verbosity = diffusers.utils.logging.get_verbosity()
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers.utils.logging.set_verbosity(verbosity)
        if bars:
            transformers.utils.logging.enable_progress_bar()


def read_captions(path: Path) -> list[str]:
    """The first tab-separated column of every line. Raises CaptionError for a missing or empty file."""
    if not path.is_file():
        raise CaptionError(f"no captions at {path}: pass a text file with one caption per line, or a tsv")
    captions = [line.split("\t")[0] for line in path.read_text(encoding="utf-8").splitlines()]
    if not any(captions):
        raise CaptionError(f"{path} has no captions; the tokenizers are trained on them")
    return captions


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.checkpoints", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=CHANNELS, default="tiny", help="sizes of the towers (default: tiny)")
    parser.add_argument("--captions", type=Path, required=True, help="txt or tsv; its first column trains tokenizers")
    parser.add_argument("--out", type=Path, required=True, help="folder for clip/ and audioldm/")
    parser.add_argument("--seed", type=int, default=0, help="seed of every weight (default: 0)")
    flags = parser.parse_args(arguments)
    try:
        captions = read_captions(flags.captions)
    except C2CError as error:
        parser.error(str(error))
    build_clip(flags.out / "clip", captions, flags.size, flags.seed)
    build_audioldm(flags.out / "audioldm", captions, flags.size, flags.seed)


if __name__ == "__main__":
    main()

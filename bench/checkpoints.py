"""Writes CLIP and AudioLDM checkpoints of the real Hugging Face classes with random weights, for machines with no hub.

    python -m bench.checkpoints --size tiny --captions captions.txt --out checkpoints

writes `checkpoints/clip` and `checkpoints/audioldm` in the layout of `openai/clip-vit-base-patch32` and
`cvssp/audioldm-s-full-v2`. The towers know nothing, but different captions get clearly different vectors.
"""

import argparse
import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import diffusers
import torch
import transformers

from c2c_jax.errors import C2CError, CaptionError
from c2c_jax.io.atomic import atomic_write
from tools.pretrain.tokenizers import clip_tokenizer, roberta_tokenizer

SIZES = ("tiny", "published")

CLIP_TEXT = {
    "tiny": dict(vocab_size=1000, hidden_size=64, num_attention_heads=2, num_hidden_layers=2, intermediate_size=128),
    "published": dict(
        vocab_size=49408, hidden_size=512, num_attention_heads=8, num_hidden_layers=12, intermediate_size=2048
    ),
}
CLIP_VISION = {
    "tiny": dict(
        image_size=32, patch_size=8, hidden_size=64, num_attention_heads=2, num_hidden_layers=2, intermediate_size=128
    ),
    "published": dict(
        image_size=224,
        patch_size=32,
        hidden_size=768,
        num_attention_heads=12,
        num_hidden_layers=12,
        intermediate_size=3072,
    ),
}
CLAP_TEXT = {
    "tiny": dict(vocab_size=800, hidden_size=64, num_attention_heads=2, num_hidden_layers=2, intermediate_size=128),
    "published": dict(
        vocab_size=50265, hidden_size=768, num_attention_heads=12, num_hidden_layers=12, intermediate_size=3072
    ),
}
PROJECTION = {"tiny": 64, "published": 512}
# The generator is never run at its published size here: these are the widths of its blocks, from fine to coarse.
UNET_CHANNELS = {"tiny": (8, 16), "published": (32, 64, 96)}
VAE_CHANNELS = {"tiny": (8, 8, 16), "published": (16, 32, 64)}
VOCODER_CHANNELS = {"tiny": 32, "published": 64}
VOCODER_GAIN = 1.3

# A random tower easily hands every caption nearly one vector, or vectors whose nearness means nothing, and then no
# translator between two of them beats chance. These gains keep it a soft bag of words: attention spreads evenly (small
# queries and keys), what it gathers outweighs the token that is pooled (large values), and the bend is slight (small
# mlp, small positions). First match by name counts; every other tensor has gain 1.
TOWER_GAINS = (
    (r"position_embedding|token_type_embedding", 0.1),
    (r"q_proj|k_proj|query|key", 0.2),
    (r"v_proj|out_proj|value|attention\.output", 2.0),
    (r"mlp|intermediate|output", 0.5),
)


def build_clip(folder: Path, captions: Sequence[str], size: str = "tiny", seed: int = 0) -> None:
    """Writes a random `CLIPModel` with its tokenizer, trained on `captions`, and its image processor into `folder`.

    "published" has every size of `openai/clip-vit-base-patch32`; "tiny" has a 64-wide space and 32-pixel pictures.
    """
    text, vision = CLIP_TEXT[size], CLIP_VISION[size]
    tokenizer = clip_tokenizer(captions, text["vocab_size"])
    config = transformers.CLIPConfig(
        text_config=dict(
            **text,
            projection_dim=PROJECTION[size],
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        vision_config=dict(**vision, projection_dim=PROJECTION[size]),
        projection_dim=PROJECTION[size],
    )
    model = transformers.CLIPModel(config)
    randomise(model, TOWER_GAINS, torch.Generator().manual_seed(seed))
    edge = vision["image_size"]
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": edge},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": edge, "width": edge},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    with atomic_write(folder) as beside, quiet():
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        (beside / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def build_audioldm(folder: Path, captions: Sequence[str], size: str = "tiny", seed: int = 0) -> None:
    """Writes a random `AudioLDMPipeline` folder whose tokenizer is trained on `captions`.

    "published" has the full RoBERTa-base text tower and its 512-wide space, with a UNet, VAE and vocoder small enough
    to sample on a CPU; "tiny" has a 64-wide space. Sound is 16 kHz, 64 mel bins, hop 160, as published.
    """
    generator = torch.Generator().manual_seed(seed)
    text = CLAP_TEXT[size]
    tokenizer = roberta_tokenizer(captions, text["vocab_size"])
    text_encoder = transformers.ClapTextModelWithProjection(
        transformers.ClapTextConfig(
            **text,
            max_position_embeddings=514,
            layer_norm_eps=1e-12,
            hidden_act="gelu",
            projection_dim=PROJECTION[size],
            projection_hidden_act="relu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    randomise(text_encoder, TOWER_GAINS, generator)
    channels = UNET_CHANNELS[size]
    unet = diffusers.UNet2DConditionModel(
        in_channels=8,
        out_channels=8,
        sample_size=128,
        layers_per_block=1,
        block_out_channels=channels,
        cross_attention_dim=channels,  # no cross-attention: both attentions of a block look at the block itself
        attention_head_dim=2,
        norm_num_groups=8,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (len(channels) - 1),
        up_block_types=("CrossAttnUpBlock2D",) * (len(channels) - 1) + ("UpBlock2D",),
        class_embed_type="simple_projection",
        class_embeddings_concat=True,
        projection_class_embeddings_input_dim=PROJECTION[size],
    )
    vae = diffusers.AutoencoderKL(
        in_channels=1,
        out_channels=1,
        latent_channels=8,
        layers_per_block=1,
        norm_num_groups=8,
        block_out_channels=VAE_CHANNELS[size],
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
    )
    vocoder = transformers.SpeechT5HifiGan(
        transformers.SpeechT5HifiGanConfig(
            model_in_dim=64,
            sampling_rate=16000,
            upsample_initial_channel=VOCODER_CHANNELS[size],
            upsample_rates=[5, 4, 4, 2],
            upsample_kernel_sizes=[10, 8, 8, 4],
            resblock_kernel_sizes=[3, 7],
            resblock_dilation_sizes=[[1, 3], [1, 3]],
            normalize_before=False,
        )
    )
    randomise(unet, ((r"^class_embedding", PROJECTION[size] ** 0.5),), generator)  # its input has unit length
    randomise(vae, (), generator)
    randomise(vocoder, ((r"", VOCODER_GAIN),), generator)
    # Sound swings around zero: the last kernel lets no constant through and adds little of its own.
    vocoder.conv_post.weight.data -= vocoder.conv_post.weight.data.mean(dim=2, keepdim=True)
    vocoder.conv_post.bias.data *= 0.1
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.0015,
        beta_end=0.0195,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )
    with atomic_write(folder) as beside, quiet():
        pipeline = diffusers.AudioLDMPipeline(vae, text_encoder, tokenizer, unet, scheduler, vocoder)
        pipeline.save_pretrained(beside)


@torch.no_grad()
def randomise(model: torch.nn.Module, gains: Sequence[tuple[str, float]], generator: torch.Generator) -> None:
    """Draws every tensor of `model`: embeddings and matrices keep the variance of unit inputs times the squared gain
    of the first pattern of `gains` found in their name (1 where none is), scales are near 1 and biases near 0."""
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
    """No progress bars, and no notice that AudioLDM's pipeline is no longer maintained, while a checkpoint is built."""
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
        raise CaptionError(f"no captions at {path}: name a text file with one caption a line, or a tsv")
    captions = [line.split("\t")[0] for line in path.read_text(encoding="utf-8").splitlines()]
    if not any(captions):
        raise CaptionError(f"{path} holds no caption: the tokenizers need some to learn from")
    return captions


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.checkpoints", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="tiny", help="sizes of the towers (default: tiny)")
    parser.add_argument("--captions", type=Path, required=True, help="txt or tsv; its first column trains tokenizers")
    parser.add_argument("--out", type=Path, required=True, help="folder that gets clip/ and audioldm/")
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

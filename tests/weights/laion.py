"""The way back from transformers' ClapModel to laion_clap's checkpoints: the rules of transformers' own conversion
(convert_clap_original_pytorch_to_hf.py), turned round."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers.audio_utils import mel_filter_bank

HTSAT = (
    ("audio_model.audio_encoder", "audio_branch"),
    ("attention.self.", "attn."),
    ("attention.output.dense", "attn.proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("batch_norm", "bn0"),
)


def laion_name(key: str) -> str:
    """laion_clap's name of a tensor of ClapModel's; queries, keys and values are still apart."""
    if "_projection." in key:
        return key.replace("linear1", "0").replace("linear2", "2")
    for theirs, laion in HTSAT if key.startswith("audio") else [("text_model", "text_branch")]:
        key = key.replace(theirs, laion)
    return key


def laion_state(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    state = {laion_name(key): tensor for key, tensor in tensors.items() if not key.endswith("token_type_ids")}
    for query in [key for key in state if re.search(r"attn\.query\.", key)]:
        parts = [state.pop(query.replace("query", part)) for part in ("query", "key", "value")]
        state[query.replace("query", "qkv")] = torch.cat(parts)
    return state


def beside(config: transformers.ClapConfig) -> dict[str, torch.Tensor]:
    """What laion_clap's modules hold and ClapModel does not, with the shapes of laion_clap's."""
    audio, width = config.audio_config, config.projection_dim
    bins, classes, stages = audio.num_mel_bins, audio.num_classes, len(audio.depths)
    transform = "audio_branch.spectrogram_extractor.stft.conv"
    filters = mel_filter_bank(513, bins, 50, 14_000, 48_000, norm="slaney", mel_scale="slaney")
    tensors = {
        f"{transform}_real.weight": torch.zeros(513, 1, 1024),
        f"{transform}_imag.weight": torch.zeros(513, 1, 1024),
        "audio_branch.logmel_extractor.melW": torch.from_numpy(filters).float(),
        "audio_branch.tscam_conv.weight": torch.zeros(classes, audio.hidden_size, bins >> stages + 1, 3),
        "audio_branch.tscam_conv.bias": torch.zeros(classes),
        "audio_branch.head.weight": torch.zeros(classes, classes),
        "audio_branch.head.bias": torch.zeros(classes),
        "text_branch.embeddings.position_ids": torch.arange(config.text_config.max_position_embeddings)[None],
    }
    for side in ("text", "audio"):
        for layer in (0, 3):
            tensors[f"{side}_transform.sequential.{layer}.weight"] = torch.zeros(width, width)
            tensors[f"{side}_transform.sequential.{layer}.bias"] = torch.zeros(width)
    for stage, depth in enumerate(audio.depths):
        windows = (audio.spec_size // audio.patch_stride[0] // 2**stage // audio.window_size) ** 2
        for block in range(1, depth, 2):
            if windows > 1:  # else the shift is none, and laion_clap has no mask
                mask = torch.zeros(windows, audio.window_size**2, audio.window_size**2)
                tensors[f"audio_branch.layers.{stage}.blocks.{block}.attn_mask"] = mask
    return tensors


def write_laion(path: Path, model: transformers.ClapModel, prefix: str = "module.", others=(), **further) -> None:
    """A file as laion_clap's training writes it. others: names of tensors beside the model. further: beside these."""
    state = laion_state(model.state_dict()) | beside(model.config)
    tensors = {prefix + key: tensor for key, tensor in state.items()} | {key: torch.zeros(2) for key in others}
    torch.save({"epoch": 15, "name": "a run", "state_dict": tensors, **further}, path)


def build_clap(vocab_size: int, **audio) -> transformers.ClapModel:
    """A small ClapModel, every tensor random, whose tower takes ten seconds in 16 mel bins. audio: its config's."""
    config = transformers.ClapConfig(
        text_config=dict(
            vocab_size=vocab_size, hidden_size=128, num_attention_heads=2, num_hidden_layers=1, intermediate_size=96,
            max_position_embeddings=514, layer_norm_eps=1e-5,
        ),
        audio_config=dict(
            spec_size=128, num_mel_bins=16, patch_size=8, patch_stride=[8, 8], window_size=4, num_classes=3,
            patch_embeds_hidden_size=16, hidden_size=32, depths=[2, 1], num_attention_heads=[2, 4], num_hidden_layers=2,
        ) | audio,
        projection_dim=24,
    )  # fmt: skip
    model = transformers.ClapModel(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(1 + noise**2)
            elif name.endswith("weight") and tensor.ndim == 1:
                tensor.copy_(1 + 0.1 * noise)
            elif tensor.ndim >= 2:
                tensor.copy_((3 if "attention.self" in name else 1) * noise / np.sqrt(tensor[0].numel()))
            else:
                tensor.copy_(0.3 * noise)
        encoder = model.audio_model.audio_encoder
        encoder.batch_norm.running_mean.sub_(30)  # decibels
        encoder.batch_norm.running_var.mul_(300)
    return model

"""The mini world's CLAP: sounds and captions, HTSAT and RoBERTa of the real architectures at small sizes."""

from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from c2c_jax.miniworld.pairs import sound_at
from c2c_jax.spaces.audio_preprocessing import AudioPreprocessor, Mels
from c2c_jax.spaces.models.clap import ClapModel
from c2c_jax.spaces.space import Space
from c2c_jax.spaces.weights import clap
from tools.pretrain.material import Material, material
from tools.pretrain.texts import corpus, prompt_vectors, tokeniser
from tools.pretrain.tokenizers import roberta_tokenizer
from tools.pretrain.towers import Recipe, Towers, pretrain, zero_shot

MELS, EMBEDDING, TEXT_WIDTH, VOCABULARY, TOKENS = 64, 64, 96, 1024, 77
TEXT_LAYERS, DEPTHS = 2, [2, 2]
TRAINING, JUDGED = 24_000, 1440  # sounds
EXTRACTOR = {
    "feature_extractor_type": "ClapFeatureExtractor",
    "feature_size": MELS,
    "sampling_rate": 16_000,
    "hop_length": 192,  # 251 frames, which fill the square of 128 by 128
    "fft_window_size": 1024,
    "max_length_s": 3,  # a sound of the mini world takes 2.56
    "frequency_min": 50,
    "frequency_max": 8000,
    "truncation": "rand_trunc",
    "padding": "pad",
    "padding_value": 0.0,
    "return_attention_mask": False,
}
RECIPE = Recipe(steps=2250, styles={"sound": 0.6, "mixed": 0.25, "picture": 0.15})


def new_space(seed: int) -> Space:
    """A CLAP of initial weights with a tokenizer learned on captions of the training split."""
    tokenizer = roberta_tokenizer(corpus(), VOCABULARY)
    config = dict(
        model_type="clap",
        architectures=["ClapModel"],
        text_config=dict(
            vocab_size=VOCABULARY,
            hidden_size=TEXT_WIDTH,
            num_hidden_layers=TEXT_LAYERS,
            num_attention_heads=4,
            intermediate_size=4 * TEXT_WIDTH,
            max_position_embeddings=TOKENS + 2 + tokenizer.pad_token_id,
            type_vocab_size=1,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            projection_dim=EMBEDDING,
        ),
        audio_config=dict(
            spec_size=128,
            num_mel_bins=MELS,
            window_size=8,
            patch_size=8,
            patch_stride=[8, 8],
            patch_embeds_hidden_size=48,
            depths=DEPTHS,
            num_attention_heads=[4, 8],
            hidden_size=96,
            num_hidden_layers=2,
            num_classes=24,
            projection_dim=EMBEDDING,
        ),
        projection_dim=EMBEDDING,
    )
    return Space(
        name="miniworld/clap",
        dim=EMBEDDING,
        fingerprint="",
        config=config,
        model=ClapModel(clap.config(config), rngs=nnx.Rngs(seed)),
        tokenizer=tokenizer,
        image_preprocessor=None,
        audio_preprocessor=AudioPreprocessor.from_dict(EXTRACTOR),
        max_tokens=TOKENS,
        ignored=[],
    )


def view(split: str, index: int, seed: int) -> np.ndarray:
    """Decibels [T, M], as the audio tower takes them."""
    return np.asarray(AudioPreprocessor.from_dict(EXTRACTOR)([sound_at(split, index, seed)]).mel_BCTM[0, 0], np.float16)


def train(workdir: Path, recipe: Recipe, processes: int) -> tuple[Space, dict[str, float], float]:
    """The trained space, its zero-shot accuracies on the test split, and the minutes that its training took."""
    space = new_space(recipe.seed)
    training = material(workdir / "material", "mels", view, "train", TRAINING, 0, processes)
    _settle_bins(space.model, training)
    towers = Towers(
        model=space.model,
        encode_view=lambda model, views: model.encode_audio(_mels(views)),
        scales=lambda model: (model.logit_scale_a[...], model.logit_scale_t[...]),
        tokenise=tokeniser(space),
    )
    judged = {split: material(workdir / "material", "mels", view, split, JUDGED, 0, processes)
              for split in ("validation", "test")}  # fmt: skip
    folder = workdir / f"clap-{recipe.seed}"
    space.model, minutes = pretrain(
        towers, recipe, training, lambda model: scores(space, model, judged["validation"]), folder
    )
    return space, scores(space, space.model, judged["test"]), minutes


def scores(space: Space, model: Any, judged: Material) -> dict[str, float]:
    """Zero-shot accuracies over the cells' prompts, each cell by the mean of its prompts' unit vectors."""
    judging = Space(**{**vars(space), "model": model})
    return zero_shot(judging.encode_mels(_mels(judged.views)), prompt_vectors(judging, "sound"), judged.cells)


def _mels(views_BTM: Any) -> Mels:
    return Mels(views_BTM[:, None].astype(np.float32), np.zeros(len(views_BTM), bool))  # type: ignore[arg-type]


def _settle_bins(model: Any, training: Material) -> None:
    """Gives the batch norm over mel bins the statistics of the training material; it keeps them in training."""
    of_bins = np.asarray(training.views[:2000], np.float32).reshape(-1, MELS)
    model.audio_model.audio_encoder.batch_norm.mean[...] = of_bins.mean(0)
    model.audio_model.audio_encoder.batch_norm.var[...] = of_bins.var(0)

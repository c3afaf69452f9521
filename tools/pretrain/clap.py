"""Trains the mini world's CLAP on sounds and captions: HTSAT and RoBERTa at small sizes."""

from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from c2c_jax.miniworld.pairs import audio_at
from c2c_jax.spaces.audio_preprocessing import AudioPreprocessor, Mels
from c2c_jax.spaces.models.clap import ClapModel
from c2c_jax.spaces.space import Space
from c2c_jax.spaces.weights import clap
from tools.pretrain.texts import corpus, prompt_vectors, tokeniser
from tools.pretrain.tokenizers import roberta_tokenizer
from tools.pretrain.towers import Recipe, Towers, pretrain, zero_shot
from tools.pretrain.views import SceneViews, scene_views

MELS, EMBEDDING, TEXT_WIDTH, VOCABULARY, TOKENS = 64, 64, 96, 1024, 77
TEXT_LAYERS, DEPTHS = 2, [2, 2]
TRAINING_SIZE, EVALUATION_SIZE = 24_000, 1440  # sounds
EXTRACTOR = {
    "feature_extractor_type": "ClapFeatureExtractor",
    "feature_size": MELS,
    "sampling_rate": 16_000,
    "hop_length": 192,  # gives 251 frames, which fill the 128 by 128 input
    "fft_window_size": 1024,
    "max_length_s": 3,  # sounds of the mini world have 2.56
    "frequency_min": 50,
    "frequency_max": 8000,
    "truncation": "rand_trunc",
    "padding": "pad",
    "padding_value": 0.0,
    "return_attention_mask": False,
}
RECIPE = Recipe(steps=2250, styles={"sound": 0.6, "mixed": 0.25, "picture": 0.15})


def new_space(seed: int) -> Space:
    """Creates a CLAP with initial weights and a tokenizer trained on captions of the training split."""
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
    """Computes the input of the audio tower for the sound of a scene: decibels [T, M]."""
    return np.asarray(AudioPreprocessor.from_dict(EXTRACTOR)([audio_at(split, index, seed)]).mel_BCTM[0, 0], np.float16)


def train(workdir: Path, recipe: Recipe, processes: int) -> tuple[Space, dict[str, float], float]:
    """Trains a CLAP; returns the space, its zero-shot accuracies on the test split and the minutes taken."""
    space = new_space(recipe.seed)
    training = scene_views(workdir / "material", "mels", view, "train", TRAINING_SIZE, 0, processes)
    _set_bin_statistics(space.model, training)
    towers = Towers(
        model=space.model,
        encode_view=lambda model, views: model.encode_audio(_mels(views)),
        scales=lambda model: (model.logit_scale_a[...], model.logit_scale_t[...]),
        tokenise=tokeniser(space),
    )
    evaluation = {split: scene_views(workdir / "material", "mels", view, split, EVALUATION_SIZE, 0, processes)
              for split in ("validation", "test")}  # fmt: skip
    folder = workdir / f"clap-{recipe.seed}"
    space.model, minutes = pretrain(
        towers, recipe, training, lambda model: scores(space, model, evaluation["validation"]), folder
    )
    return space, scores(space, space.model, evaluation["test"]), minutes


def scores(space: Space, model: Any, evaluation: SceneViews) -> dict[str, float]:
    """Returns zero-shot accuracies, with the mean of each cell's prompt vectors as classifier."""
    trained = Space(**{**vars(space), "model": model})
    return zero_shot(trained.encode_mels(_mels(evaluation.views)), prompt_vectors(trained, "sound"), evaluation.cells)


def _mels(views_BTM: Any) -> Mels:
    return Mels(views_BTM[:, None].astype(np.float32), np.zeros(len(views_BTM), bool))  # type: ignore[arg-type]


def _set_bin_statistics(model: Any, training: SceneViews) -> None:
    """Sets the batch norm over mel bins to the statistics of the training data; training does not change them."""
    of_bins = np.asarray(training.views[:2000], np.float32).reshape(-1, MELS)
    model.audio_model.audio_encoder.batch_norm.mean[...] = of_bins.mean(0)
    model.audio_model.audio_encoder.batch_norm.var[...] = of_bins.var(0)

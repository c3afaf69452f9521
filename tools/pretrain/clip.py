"""Trains the mini world's CLIP on images and captions: two small towers of the original architecture."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from c2c_jax.miniworld.pairs import image_at
from c2c_jax.spaces.image_preprocessing import ImagePreprocessor
from c2c_jax.spaces.models.clip import CLIPModel
from c2c_jax.spaces.space import Space
from c2c_jax.spaces.weights import clip
from tools.pretrain.texts import corpus, prompt_vectors, tokeniser
from tools.pretrain.tokenizers import clip_tokenizer
from tools.pretrain.towers import Recipe, Towers, pretrain, zero_shot
from tools.pretrain.views import SceneViews, scene_views

EDGE, PATCH, WIDTH, EMBEDDING, VOCABULARY, POSITIONS = 64, 8, 96, 64, 1024, 77
TEXT_LAYERS, VISION_LAYERS = 2, 4
MEAN, DEVIATION = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]
TRAINING_SIZE, EVALUATION_SIZE = 36_000, 1440  # images
PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": EDGE},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": EDGE, "width": EDGE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": MEAN,
    "image_std": DEVIATION,
}
RECIPE = Recipe(steps=6000, styles={"picture": 0.6, "mixed": 0.25, "sound": 0.15})


def new_space(seed: int) -> Space:
    """Creates a CLIP with initial weights and a tokenizer trained on captions of the training split."""
    tokenizer = clip_tokenizer(corpus(), VOCABULARY)
    config = dict(
        model_type="clip",
        architectures=["CLIPModel"],
        text_config=dict(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=TEXT_LAYERS,
            num_attention_heads=4,
            max_position_embeddings=POSITIONS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            projection_dim=EMBEDDING,
        ),
        vision_config=dict(
            image_size=EDGE,
            patch_size=PATCH,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=VISION_LAYERS,
            num_attention_heads=4,
            projection_dim=EMBEDDING,
        ),
        projection_dim=EMBEDDING,
    )
    return Space(
        name="miniworld/clip",
        dim=EMBEDDING,
        fingerprint="",
        config=config,
        model=CLIPModel(clip.config(config), rngs=nnx.Rngs(seed)),
        tokenizer=tokenizer,
        image_preprocessor=ImagePreprocessor.from_dict(PROCESSOR),
        audio_preprocessor=None,
        max_tokens=POSITIONS,
        ignored=[],
    )


def view(split: str, index: int, seed: int) -> np.ndarray:
    """Draws the image of a scene, as uint8 pixels."""
    return np.asarray(image_at(split, index, seed), np.uint8)


def train(workdir: Path, recipe: Recipe, processes: int) -> tuple[Space, dict[str, float], float]:
    """Trains a CLIP; returns the space, its zero-shot accuracies on the test split and the minutes taken."""
    space = new_space(recipe.seed)
    training = scene_views(workdir / "material", "pictures", view, "train", TRAINING_SIZE, 0, processes)
    towers = Towers(
        model=space.model,
        encode_view=lambda model, views: model.encode_image(_normalised(views)),
        scales=lambda model: (model.logit_scale[...],) * 2,
        tokenise=tokeniser(space),
    )
    evaluation = {split: scene_views(workdir / "material", "pictures", view, split, EVALUATION_SIZE, 0, processes)
              for split in ("validation", "test")}  # fmt: skip
    folder = workdir / f"clip-{recipe.seed}"
    space.model, minutes = pretrain(
        towers, recipe, training, lambda model: scores(space, model, evaluation["validation"]), folder
    )
    return space, scores(space, space.model, evaluation["test"]), minutes


def scores(space: Space, model: Any, evaluation: SceneViews) -> dict[str, float]:
    """Returns zero-shot accuracies, with the mean of each cell's prompt vectors as classifier."""
    trained = Space(**{**vars(space), "model": model})
    pixels = (evaluation.views.astype(np.float32) / 255 - MEAN) / DEVIATION
    return zero_shot(
        trained.encode_pixels(pixels.astype(np.float32)), prompt_vectors(trained, "picture"), evaluation.cells
    )


def _normalised(views: Any) -> Any:
    mean, deviation = (jnp.asarray(of_colours)[None, None, None] for of_colours in (MEAN, DEVIATION))
    return (views.astype(jnp.float32) / 255 - mean) / deviation

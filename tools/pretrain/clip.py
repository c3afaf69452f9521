"""The mini world's CLIP: pictures and captions, two small towers of the real architecture."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from c2c_jax.miniworld.pairs import picture_at
from c2c_jax.spaces.image_preprocessing import ImagePreprocessor
from c2c_jax.spaces.models.clip import CLIPModel
from c2c_jax.spaces.space import Space
from c2c_jax.spaces.weights import clip
from tools.pretrain.material import Material, material
from tools.pretrain.texts import corpus, prompt_vectors, tokeniser
from tools.pretrain.tokenizers import clip_tokenizer
from tools.pretrain.towers import Recipe, Towers, pretrain, zero_shot

EDGE, PATCH, WIDTH, EMBEDDING, VOCABULARY, POSITIONS = 64, 8, 96, 64, 1024, 77
TEXT_LAYERS, VISION_LAYERS = 2, 4
MEAN, DEVIATION = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]
TRAINING, JUDGED = 36_000, 1440  # pictures
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
    """A CLIP of initial weights with a tokenizer learned on captions of the training split."""
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
    return np.asarray(picture_at(split, index, seed), np.uint8)


def train(workdir: Path, recipe: Recipe, processes: int) -> tuple[Space, dict[str, float], float]:
    """The trained space, its zero-shot accuracies on the test split, and the minutes that its training took."""
    space = new_space(recipe.seed)
    training = material(workdir / "material", "pictures", view, "train", TRAINING, 0, processes)
    towers = Towers(
        model=space.model,
        encode_view=lambda model, views: model.encode_image(_normalised(views)),
        scales=lambda model: (model.logit_scale[...],) * 2,
        tokenise=tokeniser(space),
    )
    judged = {split: material(workdir / "material", "pictures", view, split, JUDGED, 0, processes)
              for split in ("validation", "test")}  # fmt: skip
    folder = workdir / f"clip-{recipe.seed}"
    space.model, minutes = pretrain(
        towers, recipe, training, lambda model: scores(space, model, judged["validation"]), folder
    )
    return space, scores(space, space.model, judged["test"]), minutes


def scores(space: Space, model: Any, judged: Material) -> dict[str, float]:
    """Zero-shot accuracies over the cells' prompts, each cell by the mean of its prompts' unit vectors."""
    judging = Space(**{**vars(space), "model": model})
    pixels = (judged.views.astype(np.float32) / 255 - MEAN) / DEVIATION
    return zero_shot(judging.encode_pixels(pixels.astype(np.float32)), prompt_vectors(judging, "picture"), judged.cells)


def _normalised(views: Any) -> Any:
    mean, deviation = (jnp.asarray(of_colours)[None, None, None] for of_colours in (MEAN, DEVIATION))
    return (views.astype(jnp.float32) / 255 - mean) / deviation

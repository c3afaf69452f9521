"""Trains the two towers of CLIP or CLAP on views and captions of scenes, with c2c_jax's objective and train step."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from c2c_jax.io.console import stderr_console
from c2c_jax.miniworld.captions import caption
from c2c_jax.miniworld.world import CELLS, HELD_OUT_CELLS, SHARED
from c2c_jax.spaces.models.layers import unit
from c2c_jax.training.checkpoints import Checkpoints
from c2c_jax.training.objectives import build_objective
from c2c_jax.training.step import data_mesh, init_state, jit_step, make_step
from tools.pretrain.clock import Clock
from tools.pretrain.views import SceneViews

console = stderr_console()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Training settings.

    batch_size: scenes per step, each of a different cell. ema: decay of the moving average of weights, which is saved.
    styles: frequencies of caption styles.
    """

    steps: int
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup: int = 200
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    ema: float = 0.998
    styles: dict[str, float]
    seed: int = 0
    every: int = 250  # steps between checkpoints and validations


@dataclasses.dataclass(frozen=True, kw_only=True)
class Towers:
    """A model to train, and functions to use it.

    encode_view: (model, views [B, ...]) → [B, E]. scales: model → log scales of the logits of views and of texts.
    tokenise: texts → token ids and attention mask [B, L].
    """

    model: nnx.Module
    encode_view: Callable[[Any, Array], Array]
    scales: Callable[[Any], tuple[Array, Array]]
    tokenise: Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]


def pretrain(towers: Towers, recipe: Recipe, training: SceneViews, validate: Callable[[Any], dict[str, float]],
             workdir: Path) -> tuple[Any, float]:  # fmt: skip
    """Trains a model; returns it and the minutes taken. Resumes from checkpoints in `workdir`.

    validate: model → scores, printed every `recipe.every` steps. Batches are functions of (seed, step).
    """
    graphdef, params, *rest = nnx.split(towers.model, nnx.Param, ...)
    (fixed,) = rest  # such as statistics of batch norms
    learning_rate = optax.warmup_cosine_decay_schedule(0.0, recipe.learning_rate, recipe.warmup, recipe.steps)
    optimizer = optax.chain(
        optax.clip_by_global_norm(recipe.clip_norm),
        optax.adamw(learning_rate, b2=0.98, weight_decay=recipe.weight_decay, mask=_decayed),
    )
    mesh = data_mesh()
    run = jit_step(make_step(_loss(towers, graphdef, fixed), optimizer, learning_rate, recipe.ema), mesh)
    by_cell = [rows for cell in range(CELLS) if len(rows := np.flatnonzero(training.cells == cell))]
    with Checkpoints(workdir) as checkpoints:
        state = checkpoints.restore(init_state(params, build_objective("l2"), optimizer, mesh, recipe.ema))
        clock, start = Clock(workdir / "minutes"), int(state.step)
        minutes = before = clock.minutes
        for step in range(start, recipe.steps):
            state, metrics = run(state, *_batch(towers, recipe, training, by_cell, step))
            done = step + 1
            if done % recipe.every == 0 or done == recipe.steps:
                checkpoints.save(state)
                clock.save()
                scores = validate(nnx.merge(graphdef, jax.device_get(state.model), fixed))
                shown = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
                minutes = clock.minutes
                pace = (minutes - before) / (done - start)
                console.print(f"step {done} of {recipe.steps}  loss {float(metrics['loss']):.3f}  {shown}  "
                              f"{60 * pace:.2f} s a step, {pace * (recipe.steps - done):.0f} min left")  # fmt: skip
    return nnx.merge(graphdef, jax.device_get(state.model), fixed), minutes


def _decayed(params: Any) -> Any:
    """Selects matrices for weight decay, and not biases, norms and temperatures."""
    return jax.tree.map(lambda value: value.ndim > 1, params)


def _loss(towers: Towers, graphdef: nnx.GraphDef, fixed: nnx.State) -> Callable[..., Array]:
    """Builds CLIP's loss: the mean of the cross-entropies over rows and over columns of the logits.

    The objective has gradients only for its predictions, so it is computed in both directions and averaged.
    """
    objective = build_objective("infonce")

    def loss(params: dict[str, Any], step: Array, views: Array, tokens: tuple[Array, Array]) -> Array:
        model: Any = nnx.merge(graphdef, params["model"], fixed)
        view_BE, text_BE = towers.encode_view(model, views), model.encode_text(*tokens)
        of_views, of_texts = towers.scales(model)
        view_loss = objective.loss({"infonce": {"log_scale": of_views}}, view_BE, unit(text_BE))
        return (view_loss + objective.loss({"infonce": {"log_scale": of_texts}}, text_BE, unit(view_BE))) / 2

    return loss


def _batch(
    towers: Towers, recipe: Recipe, training: SceneViews, by_cell: Sequence[np.ndarray], step: int
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Draws views and captions of scenes from different cells, to avoid negatives of equal meaning."""
    rng = np.random.default_rng((recipe.seed, step))
    cells = rng.choice(len(by_cell), recipe.batch_size, replace=False)
    rows = [int(rng.choice(by_cell[cell])) for cell in cells]
    styles = rng.choice(list(recipe.styles), recipe.batch_size, p=list(recipe.styles.values()))
    texts = [caption(training.scenes[row], str(style), rng) for row, style in zip(rows, styles, strict=True)]
    return training.views[np.sort(rows)][np.argsort(np.argsort(rows))], towers.tokenise(texts)


def zero_shot(
    view_NE: Float[np.ndarray, "N E"], prompt_CE: Float[np.ndarray, "C E"], cells_N: np.ndarray
) -> dict[str, float]:
    """Classifies views by the nearest cell prompt [C = 288]. Returns the accuracies of sources and of cells, the latter
    also for training cells ("seen") and held-out cells."""
    nearest_N = np.argmax(_unit(view_NE) @ _unit(prompt_CE).T, axis=1)
    is_right_N = nearest_N == cells_N
    is_held_out_N = np.isin(cells_N, HELD_OUT_CELLS)
    return {
        "source": float(np.mean(nearest_N // len(SHARED) == cells_N // len(SHARED))),
        "cell": float(np.mean(is_right_N)),
        "seen": float(np.mean(is_right_N[~is_held_out_N])),
        "held_out": float(np.mean(is_right_N[is_held_out_N])),
    }


def _unit(x_NE: np.ndarray) -> np.ndarray:
    return x_NE / np.linalg.norm(x_NE, axis=1, keepdims=True)

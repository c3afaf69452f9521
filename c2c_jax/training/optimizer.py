"""Builds AdamW and its learning rate schedule from a config."""

from typing import Any

import jax
import optax

from c2c_jax.config import OptimizerConfig


def build_learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate schedule of a run of `steps` steps: linear warm-up from 0, then the config's decay."""
    after = max(steps - config.warmup, 1)
    decay = {
        "constant": optax.constant_schedule(config.learning_rate),
        "cosine": optax.cosine_decay_schedule(config.learning_rate, after),
        "linear": optax.linear_schedule(config.learning_rate, 0.0, after),
    }[config.decay]
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup) if config.warmup else decay
    return optax.join_schedules([warmup, decay], [config.warmup])


def build_optimizer(
    config: OptimizerConfig, learning_rate: optax.Schedule, undecayed: tuple[str, ...] = ()
) -> optax.GradientTransformation:
    """AdamW with torch's defaults. Weight decay does not apply to the objective's parameters, nor to the translator's
    submodules named in `undecayed`."""

    def decayed(params: dict[str, Any]) -> dict[str, Any]:
        model = jax.tree_util.tree_map_with_path(lambda path, _: _name(path[0]) not in undecayed, params["model"])
        return {"model": model, "objective": jax.tree.map(lambda _: False, params["objective"])}

    adamw = optax.adamw(learning_rate, b1=0.9, b2=0.999, eps=config.eps, weight_decay=config.weight_decay, mask=decayed)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw) if config.clip_norm else adamw


def _name(key: Any) -> str:
    """The name of a submodule in a path of jax.tree_util."""
    return str(getattr(key, "key", getattr(key, "name", key)))

"""What a config asks for, built: the translator, its objective, its optimizer."""

import math
from typing import Any

import jax
import optax
from flax import nnx
from jax.sharding import Mesh

from c2c_jax.config import Config, OptimizerConfig
from c2c_jax.data.store import Store
from c2c_jax.training import objectives
from c2c_jax.training.closed_form import Moments, procrustes, ridge, set_linear
from c2c_jax.training.contrast import Blocks
from c2c_jax.translator import kinds as translators

CPU_BLOCK_ROWS, DEVICE_BLOCK_ROWS = 1024, 8192  # rows of a device whose logits are computed at once
KEPT_BYTES = 2**30  # most that the products of all pairs may take on a device; beyond they are computed again


def build_spec(config: Config, store: Store) -> translators.TranslatorSpec:
    """The translator that a config asks for between a store's spaces."""
    chosen = config.translator
    return translators.TranslatorSpec(
        kind=chosen.kind,
        source_dim=store.plan.source.dim,
        target_dim=store.plan.target.dim,
        width=chosen.width,
        depth=chosen.depth or translators.DEPTHS[chosen.kind],
        heads=chosen.heads,
        mlp_width=chosen.mlp_width,
        dropout=chosen.dropout,
        clamp=chosen.clamp,
        input_norm=chosen.input_norm,
    )


def initial_translator(
    config: Config, spec: translators.TranslatorSpec, moments: Moments | None
) -> translators.Translator:
    """A translator initialised by the seed. moments: to fit its linear layer to, in closed form; None: it is random,
    too. See `takes_moments`."""
    translator = translators.build_translator(spec, rngs=nnx.Rngs(config.seed))
    if moments is not None:
        set_linear(
            translator, *(ridge(moments, config.translator.ridge) if spec.kind == "ridge" else procrustes(moments))
        )
    return translator


def takes_moments(config: Config) -> bool:
    """Whether a config's translator is, or starts from, a closed-form map."""
    chosen = config.translator
    is_started = chosen.kind == "residual" and chosen.start == "procrustes"
    return chosen.kind in translators.CLOSED_FORM or is_started


def build_objective(config: Config, mesh: Mesh) -> objectives.Objective:
    """The config's objective, its logits in blocks of rows; see `build_blocks`."""
    asked = config.objective
    blocks = build_blocks(config.batch_size, mesh, config.groups, asked.blocks, asked.recompute)
    settings = objectives.Settings(temperature=asked.temperature, twin_cosine=asked.twin_cosine, blocks=blocks)
    return objectives.build_objective(asked.kind, settings)


def build_blocks(batch_size: int, mesh: Mesh, groups: int = 0, count: int = 0, recompute: bool = False) -> Blocks:
    """How a batch's rows are taken on these devices.

    groups: of the whole batch, and nothing else is then by the number of devices; 0 for one a device. count: parts of a
    group; the nearest number that parts it evenly is taken, and for 0 one that leaves blocks of 1,024 rows on a CPU and
    of 8,192 elsewhere.
    """
    devices = mesh.size
    sharing = 1 if groups else devices  # of the products that are kept
    groups = groups or devices
    rows = batch_size // groups
    wanted = count or rows / (CPU_BLOCK_ROWS if jax.default_backend() == "cpu" else DEVICE_BLOCK_ROWS)
    even = [parts for parts in range(1, rows + 1) if rows % parts == 0]
    nearest = min(even, key=lambda parts: abs(math.log(parts / wanted)))
    kept = not recompute and 4 * batch_size * batch_size // sharing <= KEPT_BYTES
    return Blocks(groups // devices, nearest, kept, axis="data" if groups > 1 else "")


def build_learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Step → learning rate of a run of `steps` steps: linear warm-up from 0, then the config's decay."""
    after = max(steps - config.warmup, 1)
    decay = {
        "constant": optax.constant_schedule(config.learning_rate),
        "cosine": optax.cosine_decay_schedule(config.learning_rate, after),
        "linear": optax.linear_schedule(config.learning_rate, 0.0, after),
    }[config.decay]
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup) if config.warmup else decay
    return optax.join_schedules([warmup, decay], [config.warmup])


def build_optimizer(config: OptimizerConfig, learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """AdamW with torch's defaults. Weight decay applies to the translator, not to a learned temperature. Of a residual
    translator it applies to the MLP alone, so that it pulls towards the linear layer."""

    def decayed(params: dict[str, Any]) -> dict[str, Any]:
        own = jax.tree_util.tree_map_with_path(lambda path, _: _first_key(path) != "linear", params["model"])
        return {"model": own, "objective": jax.tree.map(lambda _: False, params["objective"])}

    adamw = optax.adamw(
        learning_rate,
        b1=0.9,
        b2=0.999,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=decayed,
    )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw) if config.clip_norm else adamw


def _first_key(path: tuple[Any, ...]) -> str:
    """The name of the translator's submodule that a parameter belongs to."""
    return str(getattr(path[0], "key", getattr(path[0], "name", path[0])))

"""The rows of the table: maps from source vectors to target vectors."""

import dataclasses
from pathlib import Path

import numpy as np
from flax import nnx

from bench.recipe.material import Scenes
from c2c_jax.config import Config, DataConfig, ObjectiveConfig, TranslatorConfig
from c2c_jax.data.arrays import space_of_array, store_of_arrays
from c2c_jax.data.store import Store
from c2c_jax.evaluation.methods import Method, as_method
from c2c_jax.training.closed_form import moments, procrustes, ridge, set_linear
from c2c_jax.translator.bundle import Bundle
from c2c_jax.translator.centring import ModalityMeans
from c2c_jax.translator.kinds import TranslatorSpec, build_translator

NO_ROWS = np.zeros(0, np.int64)  # no caption of the store is held out: other splits are scored


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table. methods: one for each seed, or a single one if nothing is random. kept: the selection of each
    seed's run. reads_texts: whether it translates captions as well as images."""

    name: str
    methods: tuple[Method, ...]
    kept: tuple[str, ...] = ()
    reads_texts: bool = True


def closed_form(kind: str, store: Store, means: ModalityMeans | None = None, weight: float = 0.0) -> Method:
    """The Procrustes rotation or the ridge regression between all captions of a store.

    means: to centre all vectors by; None = no centring. weight: of the ridge penalty.
    """
    plan, input_norm = store.plan, "unit" if means is None else "centred"
    spec = TranslatorSpec.of(
        kind, {}, source_dim=plan.source.dim, target_dim=plan.target.dim, clamp=0.0, input_norm=input_norm
    )
    fitted = moments(store, NO_ROWS, spec, means or ModalityMeans())
    translator = build_translator(spec, rngs=nnx.Rngs(0))
    set_linear(translator, *(procrustes(fitted) if kind == "procrustes" else ridge(fitted, weight)))
    return as_method(kind, translator, means or ModalityMeans())


def pair_store(pairs: Scenes, folder: Path) -> Store:
    """A store for training the oracle: vectors of training pairs, with images in the place of captions."""
    ids = space_of_array("pictures", pairs.image_NS), space_of_array("sounds", pairs.audio_NE)
    path = folder / f"pairs-{'-'.join(space.fingerprint[:12] for space in ids)}"
    return store_of_arrays(path, pairs.image_NS, pairs.audio_NE, ids)


def oracle_config(pairs: int) -> Config:
    """The config of the oracle: a residual translator for `pairs` pairs, a tenth of which are held out."""
    return Config(
        source="", target="", batch_size=256, epochs=30, eval_every=100, checkpoint_every=1000, select_by="recall@10",
        data=DataConfig(validation_size=max(pairs // 10, 1)), objective=ObjectiveConfig(kind="infonce"),
        translator=TranslatorConfig(kind="residual", settings={"width": 512, "init": "procrustes"}),
    )  # fmt: skip


def oracle_method(bundle: Bundle) -> Method:
    """The method of a translator trained on `pair_store`, to which images are captions and whose outputs lie among
    sounds."""
    method = as_method("oracle_residual", bundle.translator, bundle.means)
    return dataclasses.replace(method, of_images=method.of_texts, image_mean_E=bundle.means.mean("target_text"))

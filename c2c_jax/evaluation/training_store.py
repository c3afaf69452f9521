"""The store that a translator was trained on: which of its captions training used, and which it held out."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from jaxtyping import Int

from c2c_jax.data.store import SIDES, Store
from c2c_jax.errors import ConfigError, StoreError
from c2c_jax.io.files import is_regular, stored_path, user_path
from c2c_jax.training.loader import split_rows
from c2c_jax.training.run_state import OLD_RUN_STATE, RUN_STATE, read_run_state
from c2c_jax.translator.bundle import Bundle

ADVICE = "pass --store, the store it was trained on"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Data:
    store: str
    validation_size: Annotated[int, msgspec.Meta(ge=0, lt=2**40)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Recipe:
    """The fields of a bundle's recipe that determine which captions were held out."""

    data: _Data
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainingStore:
    """A store and the use that training made of its rows.

    held_out: rows that training held out. untrained: rows that no part of the translator was fitted to: the held-out
    rows, unless a closed-form map was fitted to them after selection, and rows that were added to the store later.
    """

    store: Store
    held_out: Int[np.ndarray, "H"]
    untrained: Int[np.ndarray, "U"]

    def trained_texts(self, texts: Iterable[str]) -> set[str]:
        """Those of the given captions that training used; none if the store does not keep its captions."""
        candidates, is_trained = set(texts), np.ones(self.store.plan.rows, bool)
        is_trained[self.untrained] = False
        stored = zip(self.store.captions(), is_trained, strict=False)
        return {text for text, was_trained in stored if was_trained and text in candidates}

    def untrained_rows(self, store: Store) -> Int[np.ndarray, "N"] | None:
        """The rows of a store whose captions training did not use. None: all rows, or unknown because one of the stores
        does not keep its captions. Rows of another store are compared by their texts."""
        if store.checksums == self.store.checksums:
            return self.untrained
        if not (trained := self.trained_texts(store.captions())):
            return None
        return np.flatnonzero([text not in trained for text in store.captions()])


def work_directory(run: Path) -> Path | None:
    """Finds the work directory of a run: the folder itself, or the parent of its folder "bundle"; else None."""
    if is_regular(run / "bundle" / "config.json"):
        return run
    if not run.is_dir():
        return None
    run = run.resolve()
    has_state = any(is_regular(run.parent / name) for name in (RUN_STATE, OLD_RUN_STATE))
    return run.parent if run.name == "bundle" and has_state else None


def open_training_store(run: Path, bundle: Bundle, store: Path | None = None) -> TrainingStore:
    """Opens the store of a run or bundle: `store`, or the one that its recipe names, or the one in its work directory.

    The held-out rows are drawn again as the trainer did, by the recipe's seed; a bundle without a recipe has none.
    Raises StoreError if there is no store, or if the bundle was trained on another one.
    """
    workdir, recipe = work_directory(run), None
    if bundle.recipe.get("data"):  # imported bundles have none
        try:
            recipe = msgspec.convert(bundle.recipe, _Recipe)
        except msgspec.ValidationError as error:
            why = f"the bundle's recipe does not say which captions were held out ({error})"
            raise StoreError(f"{why}: {ADVICE}") from None
    if store is None and recipe and recipe.data.store:
        store = stored_path(str(user_path(recipe.data.store)))
    elif store is None and workdir:
        store = workdir / "store"
    if store is None or not Store.exists(store):
        raise StoreError(f"no store{'' if store is None else f' at {store}'}: {ADVICE}")
    opened = Store.open(store)
    require_spaces(opened, bundle)
    opened.check_files()
    rows = opened.plan.rows  # when the run drew the held-out rows; the store may have grown since
    try:
        if workdir and (state := read_run_state(workdir)):
            rows = state.rows
    except ConfigError as error:
        raise StoreError(f"{error}; {ADVICE}, and the bundle alone") from None
    if rows > opened.plan.rows:
        raise StoreError(f"{store} has {opened.plan.rows:,} captions, but the run used {rows:,}: {ADVICE}")
    held_out = split_rows(rows, recipe.data.validation_size, recipe.seed)[0] if recipe else np.zeros(0, int)
    untrained = np.arange(rows, opened.plan.rows)
    if bundle.choice is None or not bundle.choice.is_refitted:
        untrained = np.concatenate([held_out, untrained])
    return TrainingStore(store=opened, held_out=held_out, untrained=untrained)


def require_spaces(store: Store, bundle: Bundle) -> None:
    """Raises StoreError unless a store's vectors are of the bundle's two spaces."""
    for side in SIDES:
        expected, stored = getattr(bundle, side), getattr(store.plan, side)
        if (expected.fingerprint or stored.fingerprint) != stored.fingerprint or expected.dim != stored.dim:
            raise StoreError(
                f"{store.path} has {side} vectors of {stored.name} ({stored.fingerprint[:12]}), the translator's are "
                f"of {expected.name} ({expected.fingerprint[:12]}): pass a store of its spaces"
            )

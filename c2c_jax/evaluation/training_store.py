"""The store that a translator was trained on: its held-out captions, and those that the baselines may use."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from jaxtyping import Int

from c2c_jax.data.store import SIDES, Store
from c2c_jax.errors import ConfigError, StoreError
from c2c_jax.io.files import is_regular, user_path
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
    """The fields of a run's recipe that say which captions were held out."""

    data: _Data
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainingStore:
    """held_out: the rows that training held out. untrained: these, unless a closed-form map was fitted to them after
    selection, and rows that were added to the store since."""

    store: Store
    held_out: Int[np.ndarray, "H"]
    untrained: Int[np.ndarray, "U"]

    def seen(self, texts: Iterable[str]) -> set[str]:
        """Those of some captions that training saw; none where the store does not keep its captions."""
        wanted, is_seen = set(texts), np.ones(self.store.plan.rows, bool)
        is_seen[self.untrained] = False
        return {text for text, was in zip(self.store.captions(), is_seen, strict=False) if was and text in wanted}

    def unseen_rows(self, store: Store) -> Int[np.ndarray, "N"] | None:
        """The rows of a store whose captions training did not see: of this store or a copy its untrained rows, of
        another by the texts. None: all, or unknown, as one of the stores does not keep its captions."""
        if store.checksums == self.store.checksums:
            return self.untrained
        if not (seen := self.seen(store.captions())):
            return None
        return np.flatnonzero([text not in seen for text in store.captions()])


def work_directory(run: Path) -> Path | None:
    """The work directory of a run: the folder itself, or the one that a folder named "bundle" lies in; else None."""
    if is_regular(run / "bundle" / "config.json"):
        return run
    if not run.is_dir():
        return None
    run = run.resolve()
    has_state = any(is_regular(run.parent / name) for name in (RUN_STATE, OLD_RUN_STATE))
    return run.parent if run.name == "bundle" and has_state else None


def open_training_store(run: Path, bundle: Bundle, store: Path | None = None) -> TrainingStore:
    """Opens the store of a run or bundle: `store`, or the one that its recipe names, or the run's own.

    The held-out rows are those that the trainer draws by the recipe's seed; a bundle without a recipe has none. Raises
    StoreError where there is no store, or another than the bundle was trained on.
    """
    workdir, recipe = work_directory(run), None
    if bundle.recipe.get("data"):  # of an imported bundle there is none
        try:
            recipe = msgspec.convert(bundle.recipe, _Recipe)
        except msgspec.ValidationError as error:
            why = f"the bundle's recipe does not say which captions were held out ({error})"
            raise StoreError(f"{why}: {ADVICE}") from None
    if store is None and recipe and recipe.data.store:
        store = user_path(recipe.data.store)
    elif store is None and workdir:
        store = workdir / "store"
    if store is None or not Store.exists(store):
        raise StoreError(f"no store{'' if store is None else f' at {store}'}: {ADVICE}")
    found = Store.open(store)
    require_spaces(found, bundle)
    found.check_files()
    rows = found.plan.rows  # that the held-out ones were drawn from; the store may have grown since
    try:
        if workdir and (state := read_run_state(workdir)):
            rows = state.rows
    except ConfigError as error:
        raise StoreError(f"{error}; {ADVICE}, and the bundle alone") from None
    if rows > found.plan.rows:
        raise StoreError(f"{store} has {found.plan.rows:,} captions, the run saw {rows:,}: {ADVICE}")
    held_out = split_rows(rows, recipe.data.validation_size, recipe.seed)[0] if recipe else np.zeros(0, int)
    untrained = np.arange(rows, found.plan.rows)
    if bundle.choice is None or not bundle.choice.is_refitted:
        untrained = np.concatenate([held_out, untrained])
    return TrainingStore(store=found, held_out=held_out, untrained=untrained)


def require_spaces(store: Store, bundle: Bundle) -> None:
    """Raises StoreError unless a store's vectors are of the bundle's two spaces."""
    for side in SIDES:
        wanted, has = getattr(bundle, side), getattr(store.plan, side)
        if (wanted.fingerprint or has.fingerprint) != has.fingerprint or wanted.dim != has.dim:
            raise StoreError(
                f"{store.path} has {side} vectors of {has.name} ({has.fingerprint[:12]}), the translator's are of "
                f"{wanted.name} ({wanted.fingerprint[:12]}): pass a store of its spaces"
            )

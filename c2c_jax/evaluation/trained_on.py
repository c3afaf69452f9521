"""The store that a translator was trained on: its held-out captions, and what the baselines may remember."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from jaxtyping import Float, Int

from c2c_jax.data.store import SIDES, Store
from c2c_jax.errors import ConfigError, StoreError
from c2c_jax.io.files import is_regular, user_path
from c2c_jax.training.loader import split
from c2c_jax.training.run_state import OLD_RUN_STATE, RUN_STATE, read_run_state
from c2c_jax.translator.bundle import Bundle

ADVICE = "pass --store, the store it was trained on"


Count = Annotated[int, msgspec.Meta(ge=0, lt=2**40)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Data:
    store: str
    validation_size: Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Recipe:
    """What of a run's recipe says which captions were held out."""

    data: _Data
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainedOn:
    """held_out: rows that training did not see, of those that it drew them from. untrained: these, unless a closed-form
    map was fitted to them after selection, and rows that the store has grown by since."""

    store: Store
    held_out: Int[np.ndarray, "H"]
    untrained: Int[np.ndarray, "U"]

    def held_out_vectors(self) -> tuple[Float[np.ndarray, "H S"], Float[np.ndarray, "H E"]]:
        """Raw source and target vectors of the held-out captions, in the store's dtype."""
        return vectors_of(self.store, self.held_out)

    def seen(self, texts: Iterable[str]) -> set[str]:
        """Those of some captions that training saw; none where the store does not keep its captions."""
        asked, is_seen = set(texts), np.ones(self.store.plan.rows, bool)
        is_seen[self.untrained] = False
        return {text for text, was in zip(self.store.captions(), is_seen, strict=False) if was and text in asked}

    def unseen_rows(self, store: Store) -> Int[np.ndarray, "N"] | None:
        """Which captions of a store training did not see: of the trained one, or a copy, its untrained rows; of another
        by their texts. None: all, or what cannot be told, as one of the stores does not keep its captions."""
        if store.checksums == self.store.checksums:
            return self.untrained
        if not (seen := self.seen(store.captions())):
            return None
        return np.flatnonzero([text not in seen for text in store.captions()])


def vectors_of(store: Store, rows: Int[np.ndarray, "N"]) -> tuple[Float[np.ndarray, "N S"], Float[np.ndarray, "N E"]]:
    """The source and target vectors of some rows, in the store's dtype. Raises StoreError for a damaged chunk."""
    source_NS, target_NE = (store.read_rows(side, rows) for side in SIDES)
    return source_NS, target_NE


def work_directory(run: Path) -> Path | None:
    """Where a run lies: the folder itself, or the one that a bundle folder of this name lies in."""
    if is_regular(run / "bundle" / "config.json"):
        return run
    if not run.is_dir():
        return None
    run = run.resolve()
    has_state = any(is_regular(run.parent / name) for name in (RUN_STATE, OLD_RUN_STATE))
    return run.parent if run.name == "bundle" and has_state else None


def trained_on(run: Path, bundle: Bundle, store: Path | None = None) -> TrainedOn:
    """The store of a run or bundle: `store`, or what its recipe names, or the run's own.

    The held-out rows are those that the trainer draws by the recipe's seed; of a bundle that no recipe came with, none
    are known. Raises StoreError where there is none, or where it is another than the bundle was trained on.
    """
    workdir, recipe = work_directory(run), _recipe_of(bundle)
    place = store or _recorded(workdir, recipe)
    if place is None or not Store.exists(place):
        raise StoreError(f"no store{'' if place is None else f' at {place}'}: {ADVICE}")
    found = Store.open(place)
    require_spaces(found, bundle)
    found.check_files()
    rows = _rows(workdir) or found.plan.rows
    if rows > found.plan.rows:
        raise StoreError(f"{place} has {found.plan.rows:,} captions, the run saw {rows:,}: {ADVICE}")
    held_out = split(rows, recipe.data.validation_size, recipe.seed)[0] if recipe else np.zeros(0, int)
    untrained = np.arange(rows, found.plan.rows)
    if bundle.choice is None or not bundle.choice.is_refitted:
        untrained = np.concatenate([held_out, untrained])
    return TrainedOn(store=found, held_out=held_out, untrained=untrained)


def require_spaces(store: Store, bundle: Bundle) -> None:
    """Raises StoreError where a store's vectors are of other spaces than the bundle goes between."""
    for side in SIDES:
        wanted, has = getattr(bundle, side), getattr(store.plan, side)
        if (wanted.fingerprint or has.fingerprint) != has.fingerprint or wanted.dim != has.dim:
            raise StoreError(
                f"{store.path} has {side} vectors of {has.name} ({has.fingerprint[:12]}), the translator's are of "
                f"{wanted.name} ({wanted.fingerprint[:12]}): pass a store of its spaces"
            )


def _recipe_of(bundle: Bundle) -> _Recipe | None:
    """None for a bundle that came from elsewhere. Raises StoreError for fields of other types."""
    if not bundle.recipe.get("data"):
        return None
    try:
        return msgspec.convert(bundle.recipe, _Recipe)
    except msgspec.ValidationError as error:
        raise StoreError(f"the bundle's recipe does not say which captions were held out ({error}): {ADVICE}") from None


def _recorded(workdir: Path | None, recipe: _Recipe | None) -> Path | None:
    if recipe and recipe.data.store:
        return user_path(recipe.data.store)
    return workdir / "store" if workdir else None


def _rows(workdir: Path | None) -> int | None:
    """How many captions a run drew its held-out ones from."""
    try:
        state = read_run_state(workdir) if workdir else None
    except ConfigError as error:
        raise StoreError(f"{error}; {ADVICE}, and the bundle alone") from None
    return state.rows if state else None

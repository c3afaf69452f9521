"""What `c2c evaluate` is asked for, looked up before anything is encoded."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Int
from rich.console import Console

from c2c_jax.data.captions import Mixture, open_sources
from c2c_jax.data.store import Store
from c2c_jax.errors import ConfigError, ManifestError, StoreError
from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.pairs import Pairs, read_pairs
from c2c_jax.evaluation.rows import LeftOut, Missing
from c2c_jax.evaluation.sounds_made import MadeSounds, read_made
from c2c_jax.evaluation.trained_on import TrainedOn, require_spaces, trained_on
from c2c_jax.io.files import found_at, sha256_of, user_path
from c2c_jax.io.sounds import sound_files
from c2c_jax.publishing.names import public_captions
from c2c_jax.translator.bundle import Bundle, load_bundle
from c2c_jax.translator.resolve import bundle_folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be evaluated, and on what.

    run: see `bundle_folder`. captions: a source of captions, or a store's folder, without those that
    training saw; None: those that training held out. store: where the store that the run was trained on lies now.
    pairs: see `pairs.read_pairs`. sounds: a folder of infer.py's. reference: a folder of sounds that these are compared
    with; None: the pairs'. clip, clap: checkpoints; None: by the bundle's names. csls: neighbours; None: without it.
    centre, hubness: whether to score by centred cosine, and by centred cosine less hubness. geometry: whether to
    measure the geometry of the spaces.
    """

    run: Path
    captions: str | None = None
    store: Path | None = None
    pairs: Path | None = None
    sounds: Path | None = None
    reference: Path | None = None
    clip: str | None = None
    clap: str | None = None
    csls: int | None = None
    centre: bool = True
    hubness: bool = True
    geometry: bool = False
    bootstrap: Bootstrap = Bootstrap()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What there is. trained: None where the store is not found. texts: captions to embed. store: one whose captions
    are taken, its `rows` alone unless that is None. captions: where captions are from, for people; empty where there
    are none. reference_files: sounds, without those of the pairs."""

    folder: Path
    bundle: Bundle
    trained: TrainedOn | None
    texts: list[str]
    store: Store | None
    rows: Int[np.ndarray, "N"] | None
    captions: str
    pairs: Pairs | None
    made: MadeSounds | None
    reference_files: list[Path]
    missing: list[Missing]

    @property
    def is_refitted(self) -> bool:
        """Whether the captions are held-out ones to which a closed-form map was fitted after selection."""
        choice, is_held_out = self.bundle.choice, bool(self.captions) and not self.texts and self.store is None
        return is_held_out and choice is not None and choice.is_refitted

    @property
    def left_out(self) -> list[LeftOut]:
        """What is known of before a file is read."""
        lists = (self.pairs.left_out if self.pairs else [], self.made.left_out if self.made else [])
        return [one for left_out in lists for one in left_out]


def look_up(asked: Asked, console: Console) -> Found:
    """Reads bundle, lists and records. console: is told what captions were read.

    Raises BundleError, CheckpointError, CaptionError, ManifestError, ReportError or StoreError for what is not there or
    cannot be read, ConfigError where there is nothing to evaluate on.
    """
    folder = bundle_folder(asked.run)
    bundle = load_bundle(folder)
    trained, missing = _trained_on(asked, bundle)
    store, rows, texts, captions = None, None, [], ""
    if asked.captions and Store.exists(user_path(asked.captions)):
        store = Store.open(user_path(asked.captions))
        require_spaces(store, bundle)
        store.check_files()
        rows = trained.unseen_rows(store) if trained else None
        captions = _told(
            store.plan.rows if rows is None else len(rows), store.plan.rows, f"the store {store.path.name}"
        )
    elif asked.captions:
        mixture = Mixture(open_sources(asked.captions), drop_duplicates=True)
        read = list(mixture)
        for line in mixture.report():
            console.print(line)
        seen = trained.seen(read) if trained else set()
        texts = [text for text in read if text not in seen]
        captions = _told(len(texts), len(read), public_captions(asked.captions))
    elif trained and len(trained.held_out):
        captions = f"{len(trained.held_out):,} that training held out"
    pairs = read_pairs(asked.pairs) if asked.pairs else None
    if pairs:
        console.print(pairs.counted())
        if not pairs.labels:
            missing.append(Missing(what="class_accuracy, neighbour_accuracy, map", why=f"no labels: {pairs.told}"))
    made = None
    if asked.sounds:
        items = pairs.items if pairs else []
        made = read_made(asked.sounds, sha256_of(folder / "model.safetensors"), bundle.target.dim, items)
    if not (captions or pairs or made):
        why = missing[0].why if missing else "training held none out"
        raise ConfigError(f"nothing to evaluate on: no captions ({why}); or pass --captions, --pairs or --sounds")
    return Found(
        folder=folder,
        bundle=bundle,
        trained=trained,
        texts=texts,
        store=store,
        rows=rows,
        captions=captions,
        pairs=pairs,
        made=made,
        reference_files=_references(asked.reference) if asked.reference else [],
        missing=missing,
    )


def _told(count: int, read: int, where: str) -> str:
    """Of so many captions read, how many are scored. Raises ConfigError where none is."""
    if not count:
        why = f"training saw all {read:,} of them" if read else "it has none"
        raise ConfigError(f"no caption of {where} to evaluate on: {why}; pass others as --captions")
    return (
        f"all {read:,} of {where}"
        if count == read
        else f"{count:,} of {where}, without {read - count:,} that training saw"
    )


def _trained_on(asked: Asked, bundle: Bundle) -> tuple[TrainedOn | None, list[Missing]]:
    """A store that is not where the run says is no error, one that is not where the user says is."""
    try:
        return trained_on(asked.run, bundle, asked.store), []
    except StoreError as error:
        if asked.store:
            raise
        return None, [Missing(what="nearest_caption, procrustes, ridge", why=str(error))]


def _references(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ManifestError(
            f"expected a folder of sounds at --reference {folder}, found {found_at(folder)}: pass an existing folder"
        )
    if not (files := sound_files(folder)):
        raise ManifestError(f"{folder} contains no sound: pass a folder of sounds as --reference")
    return files

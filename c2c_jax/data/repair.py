"""Finds what is damaged in a store, and embeds again just that."""

import os
from collections.abc import Iterator

from c2c_jax.data.captions import open_sources
from c2c_jax.data.embed import complete, expect_space
from c2c_jax.data.mixture import Mixture
from c2c_jax.data.store import SIDES, Store, text_file, write_captions
from c2c_jax.data.writer import StoreWriter, forget_plan
from c2c_jax.errors import StoreError
from c2c_jax.io.atomic import temporary_folder
from c2c_jax.spaces.space import load_space


def damage_report(store: Store) -> Iterator[str]:
    """A line for each chunk that is damaged or missing: what, which rows, and how it is."""
    for what, chunk, how in store.damage():
        if chunk is None:
            yield f"{store.path / what / 'zarr.json'} is {how}"
        else:
            rows = store.plan.rows_of(chunk)
            yield f"{store.path / what}: chunk {chunk} (rows {rows.start:,} to {rows.stop - 1:,}) is {how}"


def repair(store: Store, names: tuple[str, str], data_dir: str = "", manual_dir: str = "") -> Store:
    """Recomputes the damaged and missing chunks of a store, captions from their sources and vectors from captions.

    names: of the source and target spaces, which must be those of the manifest; data_dir, manual_dir: as in
    `open_sources`. A repair that is stopped goes on as an unfinished store does; a growth that was stopped starts anew.
    The caller holds the store, see `store_lock`. Raises StoreError, CaptionError or CheckpointError.
    """
    forget_plan(store.path)
    store.describe_arrays()
    damage = list(store.damage())
    bad_texts = {chunk for what, chunk, _ in damage if what == "captions" and chunk is not None}
    bad = {chunk for what, chunk, _ in damage if what in SIDES and chunk is not None}
    if damage and not store.plan.captions:
        raise StoreError(f"{store.path} was made from arrays: delete it and make it again with --from-arrays")
    if bad_texts:
        _restore_captions(store, bad_texts, data_dir, manual_dir)
    if not bad:
        return store
    spaces = load_space(names[0], only="text"), load_space(names[1], only="text")
    for space, planned in zip(spaces, (store.plan.source, store.plan.target), strict=True):
        expect_space(store.path, space.id, planned)
    StoreWriter.reopen(store, bad)
    return complete(store.path, spaces)


def _restore_captions(store: Store, bad: set[int], data_dir: str, manual_dir: str) -> None:
    """Reads the sources again, and puts those chunks of captions in place that are the very ones that were lost."""
    parts = [f"{record.weight}*{record.spec}" if record.weight else record.spec for record in store.plan.sources]
    sources = open_sources(" + ".join(parts), data_dir, manual_dir)
    with temporary_folder(store.path) as again:
        mixture = Mixture(sources, drop_duplicates=store.plan.drop_duplicates)
        _, checksums = write_captions(again, mixture, store.plan.chunk_rows, [])
        for chunk in sorted(bad):
            if checksums[chunk : chunk + 1] != store.checksums["captions"][chunk : chunk + 1]:
                raise StoreError(
                    f"the captions of chunk {chunk} are lost: {' + '.join(parts)} have other content now; "
                    f"delete {store.path} to embed again"
                )
            text_file(store.path, chunk).parent.mkdir(exist_ok=True)
            os.replace(text_file(again, chunk), text_file(store.path, chunk))

"""The store of a translator, and which of its rows training did not use."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from c2c_jax.config import Config, DataConfig, TranslatorConfig
from c2c_jax.data.arrays import store_of_arrays
from c2c_jax.errors import StoreError
from c2c_jax.evaluation.training_store import open_training_store, work_directory
from c2c_jax.training.loader import split_rows
from c2c_jax.training.train import train
from c2c_jax.translator.bundle import load_bundle
from tests.fixtures.random_store import random_store


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the ridge kind on a random store that lies in its work directory."""
    workdir = tmp_path_factory.mktemp("run")
    config = Config(data=DataConfig(validation_size=100), translator=TranslatorConfig(kind="ridge"))
    train(config, random_store(workdir / "store"), workdir)
    return workdir


def test_held_out_rows_are_those_of_the_trainer(run):
    bundle = load_bundle(run / "bundle")
    expected, _ = split_rows(500, 100, Config().seed)
    for folder in (run, run / "bundle"):
        found = open_training_store(folder, bundle)
        np.testing.assert_array_equal(found.held_out, expected)
        np.testing.assert_array_equal(found.untrained, expected)
        assert work_directory(folder) == run


def test_a_store_elsewhere(run, tmp_path):
    shutil.copytree(run / "bundle", tmp_path / "published")
    bundle = load_bundle(tmp_path / "published")
    with pytest.raises(StoreError, match="no store: pass --store, the store it was trained on"):
        open_training_store(tmp_path / "published", bundle)
    found = open_training_store(tmp_path / "published", bundle, run / "store")
    np.testing.assert_array_equal(found.held_out, open_training_store(run, bundle).held_out)
    with pytest.raises(StoreError, match=f"no store at {tmp_path / 'gone'}"):
        open_training_store(run, bundle, tmp_path / "gone")
    named = dataclasses.replace(
        bundle, recipe={**bundle.recipe, "data": {**bundle.recipe["data"], "store": str(run / "store")}}
    )
    assert len(open_training_store(tmp_path / "published", named).held_out) == 100
    assert work_directory(tmp_path / "published") is None


def test_rows_added_to_a_store_later_are_untrained(run, tmp_path):
    """The run used 400 rows, of which 100 were held out; now the store has 500."""
    workdir = shutil.copytree(run, tmp_path / "run")
    rows = json.loads((workdir / "run_state.json").read_text())
    (workdir / "run_state.json").write_text(json.dumps({**rows, "rows": 400}))
    found = open_training_store(workdir, load_bundle(workdir / "bundle"))
    np.testing.assert_array_equal(found.held_out, split_rows(400, 100, Config().seed)[0])
    assert sorted(found.untrained) == sorted([*found.held_out, *range(400, 500)])
    (workdir / "run_state.json").write_text(json.dumps({**rows, "rows": 501}))
    with pytest.raises(StoreError, match="has 500 captions, but the run used 501"):
        open_training_store(workdir, load_bundle(workdir / "bundle"))
    (workdir / "run_state.json").write_text("{")
    with pytest.raises(StoreError, match="run_state.json cannot be read as JSON"):
        open_training_store(workdir, load_bundle(workdir / "bundle"))


def test_a_store_of_other_spaces_is_refused(run, tmp_path):
    bundle = load_bundle(run / "bundle")
    store = open_training_store(run, bundle).store
    spaces = store.plan.source, dataclasses.replace(store.plan.target, name="other", fingerprint="o" * 64)
    other = store_of_arrays(tmp_path / "other", store.read("source"), store.read("target"), spaces)
    message = re.escape(
        f"{other.path} has target vectors of other (oooooooooooo), the translator's are of target (tttttt"
    )
    with pytest.raises(StoreError, match=message):
        open_training_store(run, bundle, other.path)


def test_an_imported_bundle_has_no_held_out_captions(run):
    imported = dataclasses.replace(load_bundle(run / "bundle"), recipe={"imported": "x.pt"})
    found = open_training_store(run / "bundle", imported, run / "store")
    assert len(found.held_out) == len(found.untrained) == 0

"""The number of CSLS neighbours, and warnings about scores of held-out captions."""

import dataclasses

import numpy as np
import pytest

from c2c_jax.config import DataConfig, OptimizerConfig
from c2c_jax.errors import ConfigError
from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.evaluate import EvalRequest, _neighbours, evaluate
from c2c_jax.evaluation.vectors import Captions
from c2c_jax.training.train import train
from c2c_jax.translator.bundle import load_bundle, save_bundle
from tests.training.test_candidates import config, rotated_store


def test_csls_needs_fewer_neighbours_than_candidates():
    captions = Captions(source_NS=np.ones((12, 3), np.float32), target_NE=np.ones((12, 2), np.float32))
    assert _neighbours(11, captions, None) == (11, []) and _neighbours(None, captions, None) == (None, [])
    for csls in (12, 10**9):
        results, (missing,) = _neighbours(csls, captions, None)
        assert results is None and missing.what == f"CSLS scores with {csls:,} neighbours"
        assert missing.why == "there are only 12 candidates; pass a smaller --csls"


@pytest.mark.slow
def test_warning_if_a_map_was_fitted_to_the_held_out_captions(tmp_path):
    """For a run that selected a closed-form map. Other captions, and a translator that was only trained, give no
    warning."""
    store, _ = rotated_store(tmp_path / "store", 300, 0.02)
    request = config(
        optimizer=OptimizerConfig(learning_rate=1e-9), data=DataConfig(store=str(store.path), validation_size=30)
    )
    train(request, store, tmp_path / "run")
    results = evaluate(EvalRequest(run=tmp_path / "run", bootstrap=Bootstrap(resamples=0)))
    assert results.settings["captions"] == "30 that training held out"
    assert "fitted to the held-out captions as well, so that scores on them are optimistic" in results.warnings[0]
    with pytest.raises(ConfigError, match="training saw all 300 of them"):  # the held-out ones in another way
        evaluate(EvalRequest(run=tmp_path / "run", captions=str(store.path)))
    other = rotated_store(tmp_path / "other", 40, 0.02)[0]
    request = EvalRequest(run=tmp_path / "run", captions=str(other.path), bootstrap=Bootstrap(resamples=0))
    results = evaluate(request)
    assert not any("held-out captions" in line for line in results.warnings)
    bundle = load_bundle(tmp_path / "run" / "bundle")
    alone = dataclasses.replace(bundle.choice, trained=1.0, linear="")
    save_bundle(tmp_path / "run" / "bundle", dataclasses.replace(bundle, choice=alone))
    for captions, count in (
        (None, "30 that training held out"),
        (str(store.path), "30 of the store store, without 270"),
    ):
        request = EvalRequest(run=tmp_path / "run", captions=captions, bootstrap=Bootstrap(resamples=0))
        results = evaluate(request)
        assert results.settings["captions"].startswith(count)
        assert not any("held-out captions" in line for line in results.warnings)

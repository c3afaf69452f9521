"""`evaluate`, compared with the files that `c2c evaluate` writes."""

import json

import numpy as np
import pytest

import c2c_jax
from c2c_jax.cli.main import main
from c2c_jax.errors import ConfigError
from c2c_jax.miniworld.show import export


@pytest.mark.slow
def test_figures_are_those_of_the_command(tmp_path, capsys):
    export(tmp_path / "pairs", "test", 40, 0, "picture")
    pairs = tmp_path / "pairs" / "manifest.csv"
    evaluation = c2c_jax.evaluate("miniworld/translator", pairs=pairs, bootstrap=20)
    command = ["evaluate", "miniworld/translator", "--pairs", str(pairs), "--bootstrap", "20"]
    assert main([*command, "--out", str(tmp_path / "command")]) == 0
    expected = json.loads((tmp_path / "command" / "metrics.json").read_text())
    folder = evaluation.save(tmp_path / "saved")
    assert json.loads((folder / "metrics.json").read_text()) == expected
    assert (folder / "table.md").read_text().startswith(evaluation.table()[:200])
    row = next(row for row in expected["rows"] if row["task"] == "images_to_sounds" and row["method"] == "translator")
    assert evaluation.metrics["images_to_sounds"]["translator"][row["metric"]] == row["value"]
    assert repr(evaluation).startswith(f"Evaluation({len(expected['rows'])} scores; images_to_sounds, sounds_to_images")
    assert evaluation._repr_markdown_() == evaluation.table()
    with pytest.raises(ConfigError, match="would be replaced|is a file"):
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "metrics.json").write_text("{}")
        evaluation.save(tmp_path / "other")


@pytest.mark.slow
def test_translators_in_memory_are_evaluated(tmp_path):
    export(tmp_path / "pairs", "test", 40, 0, "picture")
    loaded = c2c_jax.load("miniworld/translator")
    in_memory = c2c_jax.Translator(loaded.bundle)
    found, expected = (
        c2c_jax.evaluate(translator, pairs=tmp_path / "pairs" / "manifest.csv", bootstrap=0)
        for translator in (in_memory, loaded)
    )
    assert found.metrics == expected.metrics


def test_the_object_is_evaluated_not_its_folder(tmp_path):
    """Another translator has replaced the folder that it was loaded from."""
    export(tmp_path / "pairs", "test", 40, 0, "picture")
    original = c2c_jax.load("miniworld/translator")
    loaded = c2c_jax.load(original.save(tmp_path / "saved"))
    vectors = np.random.default_rng(0).normal(size=(2, 100, 64))
    spaces = ("miniworld/clip", "miniworld/clap")
    c2c_jax.fit(*vectors, "mlp", spaces=spaces, steps=1, batch_size=64, progress=False).save(tmp_path / "saved")
    found, expected = (
        c2c_jax.evaluate(translator, pairs=tmp_path / "pairs" / "manifest.csv", bootstrap=0, progress=False)
        for translator in (loaded, original)
    )
    assert found.metrics == expected.metrics


def test_nothing_to_evaluate_on_is_an_error():
    rng = np.random.default_rng(0)
    fitted = c2c_jax.fit(*rng.normal(size=(2, 100, 64)), "mlp", steps=1, batch_size=64, progress=False)
    with pytest.raises(ConfigError, match="bootstrap must be 0 or more"):
        c2c_jax.evaluate(fitted, bootstrap=-1)
    with pytest.raises(ConfigError, match="nothing to evaluate on") as raised:
        c2c_jax.evaluate(fitted)
    assert "--" not in str(raised.value)

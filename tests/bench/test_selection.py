"""The bench of scores without pairs, on small made-up files and a few short runs."""

import dataclasses
import json

import numpy as np
import pytest

from bench import selection
from tests.bench.test_real import folder  # noqa: F401


def test_scores_of_few_translators(folder, tmp_path, monkeypatch, capsys):  # noqa: F811
    """Two configs of four maps each, and three closed-form maps with and without the memory."""
    real_world, configs = selection.real_world, selection.configs

    def small(material, workdir):
        """Targets are blurred, so that no score is the same for all maps."""
        rng = np.random.default_rng(0)
        blurred = {
            name: (x + 0.3 * rng.normal(size=x.shape)).astype(np.float32)
            for name, x in (("text_NE", material.text_NE), ("caption_PE", material.caption_PE))
        }
        world = real_world(dataclasses.replace(material, **blurred), workdir)
        return dataclasses.replace(world, holdout=60, batch_size=32, width=16, steps=(3,))

    monkeypatch.setattr(selection, "real_world", small)
    monkeypatch.setattr(selection, "configs", lambda world: list(configs(world))[::12])
    asked = ["--data", str(folder), "--worlds", "real", "--workdir", str(tmp_path), "--json", str(tmp_path / "a.json")]
    made_points = []
    points = selection.points
    monkeypatch.setattr(selection, "points", lambda *given: made_points.append(points(*given)) or made_points[-1])
    selection.main(asked)
    out, found = capsys.readouterr().out, json.loads((tmp_path / "a.json").read_text())
    assert found["real.runs"] == 2 * 4 + 3 * 2
    for score in ("noisy_mrr", "noisy_cosine", "recall@1", "transfer"):
        assert -1 <= found[f"real.{score}"] <= 1 and 0 <= found[f"real.{score}.chosen"] <= found["real.best"]
        assert f"| {score} | {found[f'real.{score}']:.2f} | {found[f'real.{score}.chosen']:.3f} |" in out
    (of_maps,) = made_points
    score_R, truth_R = (np.array([one[name] for one in of_maps]) for name in ("noisy_cosine", "r10"))
    ranks = [(x_R[:, None] > x_R).sum(1) + (x_R[:, None] == x_R).sum(1) / 2 for x_R in (score_R, truth_R)]
    assert found["real.noisy_cosine"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert found["real.noisy_cosine.chosen"] == truth_R[score_R.argmax()]
    made = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "selection" / "real").glob("*/done"))
    selection.main(asked)  # read, not trained
    assert len(made) == 2 and made == sorted((path, path.stat().st_mtime_ns) for path, _ in made)
    assert json.loads((tmp_path / "a.json").read_text()) == pytest.approx(found)

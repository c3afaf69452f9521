"""The benchmark of scores without pairs, on small synthetic files and a few short runs."""

import dataclasses
import json

import numpy as np
import pytest

from bench import selection
from tests.bench.test_real import folder  # noqa: F401


def test_scores_of_few_translators(folder, tmp_path, monkeypatch, capsys):  # noqa: F811
    """Two configs of four maps each, and three closed-form maps with and without the memory."""
    real_setting, configs = selection.real_setting, selection.configs

    def small(material, workdir):
        """Adds noise to the targets, so that no score is the same for all maps."""
        rng = np.random.default_rng(0)
        blurred = {
            name: (x + 0.3 * rng.normal(size=x.shape)).astype(np.float32)
            for name, x in (("text_NE", material.text_NE), ("caption_PE", material.caption_PE))
        }
        setting = real_setting(dataclasses.replace(material, **blurred), workdir)
        return dataclasses.replace(setting, holdout=60, batch_size=32, width=16, steps=(3,))

    monkeypatch.setattr(selection, "real_setting", small)
    monkeypatch.setattr(selection, "configs", lambda setting: list(configs(setting))[::12])
    flags = ["--data", str(folder), "--worlds", "real", "--workdir", str(tmp_path), "--json", str(tmp_path / "a.json")]
    made_points = []
    points = selection.points
    monkeypatch.setattr(
        selection, "points", lambda *arguments: made_points.append(points(*arguments)) or made_points[-1]
    )
    selection.main(flags)
    out, figures = capsys.readouterr().out, json.loads((tmp_path / "a.json").read_text())
    assert figures["real.runs"] == 2 * 4 + 3 * 2
    for score in ("noisy_mrr", "noisy_cosine", "recall@1", "transfer"):
        assert -1 <= figures[f"real.{score}"] <= 1 and 0 <= figures[f"real.{score}.chosen"] <= figures["real.best"]
        assert f"| {score} | {figures[f'real.{score}']:.2f} | {figures[f'real.{score}.chosen']:.3f} |" in out
    (points_of_maps,) = made_points
    score_R, truth_R = (np.array([point[name] for point in points_of_maps]) for name in ("noisy_cosine", "r10"))
    ranks = [(x_R[:, None] > x_R).sum(1) + (x_R[:, None] == x_R).sum(1) / 2 for x_R in (score_R, truth_R)]
    assert figures["real.noisy_cosine"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert figures["real.noisy_cosine.chosen"] == truth_R[score_R.argmax()]
    runs = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "selection" / "real").glob("*/done"))
    selection.main(flags)  # read, not trained
    assert len(runs) == 2 and runs == sorted((path, path.stat().st_mtime_ns) for path, _ in runs)
    assert json.loads((tmp_path / "a.json").read_text()) == pytest.approx(figures)

"""The benchmark of the embedding pass: equal vectors, and correct figures."""

from pathlib import Path

import pytest

from bench import checkpoints
from bench.embed import compare, synthetic


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, short_captions: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    checkpoints.build_clip(folder / "clip", short_captions)
    checkpoints.build_audioldm(folder / "audioldm", short_captions)
    return folder


def test_implementations_give_the_same_vectors(folder, short_captions):
    figures = compare(folder, short_captions[:24])
    assert figures["unit_vector_error_vs_torch"] < 1e-5
    ours, padded = figures["ours_captions_per_s"], figures["torch_padded_captions_per_s"]
    assert figures["captions_vs_torch_padded"] == pytest.approx(ours / padded)
    assert 0.999 < figures["bfloat16_worst_cosine"] < figures["bfloat16_mean_cosine"] < 1
    # By hand: two layers of four projections 64 to 64 and two 64 to 128; captions have 8 to 20 tokens, and the rows
    # that hold 24 of them are not full.
    per_token = 2 * 2 * (4 * 64 * 64 + 2 * 64 * 128)
    tokens = figures["gflop_per_caption"] * 1e9 / 2 / per_token
    assert 6 < tokens < 40


def test_synthetic_captions_are_distinct():
    assert len(set(synthetic(50_000))) == 50_000

"""The benchmark of retrieval and audio encoding: equal results, and all figures in the file."""

import json

import pytest

from bench import evaluate

TINY = evaluate.Sizes(
    vectors=500, ranked=(2048,), seconds=60, batches=1, batch=2, rounds=1, clip_seconds=1,
    tower=dict(depths=[1, 1], num_attention_heads=[2, 4], patch_embeds_hidden_size=16, hidden_size=32,
               projection_dim=24),
)  # fmt: skip


def test_figures_are_in_the_file(monkeypatch, tmp_path, capsys):
    """At a tiny size both implementations agree in both parts, and ratios are those of the figures."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(evaluate, "QUICK", TINY)
    monkeypatch.setattr(evaluate, "PAUSE", 0.0)
    evaluate.main(["--quick", "--json", str(tmp_path / "figures.json")])
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["retrieval_vs_faiss"] == pytest.approx(figures["retrieval_faiss_s"] / figures["retrieval_ours_s"])
    assert figures["clips_vs_torch"] == pytest.approx(figures["ours_clips_per_s"] / figures["torch_clips_per_s"])
    assert figures["retrieval_vectors"] == 500 and figures["retrieval_worst_difference"] < 1e-5
    assert 0.999 < figures["retrieval_same_indices"] <= 1
    assert figures["clips_unit_vector_error"] < 1e-5
    # JAX alone takes more than 0.1 GiB, and two times 2,048 vectors of 512 float16 take 4 MiB.
    assert 0.1 < figures["csls_peak_gib_n2048"] < 2
    assert "retrieval_vs_faiss" in capsys.readouterr().out


def test_single_part(monkeypatch, tmp_path):
    pytest.importorskip("faiss")
    monkeypatch.setattr(evaluate, "QUICK", TINY)
    monkeypatch.setattr(evaluate, "PAUSE", 0.0)
    evaluate.main(["--quick", "--only", "retrieval", "--json", str(tmp_path / "figures.json")])
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert "retrieval_vs_faiss" in figures and not any(name.startswith(("csls", "clips")) for name in figures)


def test_a_process_that_fails_has_no_memory_to_report():
    """Ranking no candidates fails at once, without waiting for the time limit."""
    with pytest.raises(RuntimeError, match="ranking 0 candidates ended with exit code 1:"):
        evaluate.memory(0, 600)

"""Estimates of means: statistics by hand, narrow sets, arrays in files, and errors."""

import re
from pathlib import Path

import numpy as np
import pytest

from c2c_jax.errors import AudioError, ImageError
from c2c_jax.io import vectors
from c2c_jax.io.files import is_array
from c2c_jax.io.vectors import read_vectors
from c2c_jax.translator import mean_estimates
from c2c_jax.translator.centring import ModalityMeans
from c2c_jax.translator.mean_estimates import captions_spread, narrow_warning, with_means

S, E, N = 12, 7, 50
RNG = np.random.default_rng(0)
IMAGES = (4 * RNG.normal(size=(N, S)) + 5).astype(np.float32)
AUDIO = (RNG.normal(size=(N, E)) - 1).astype(np.float32)
MEANS = ModalityMeans(source_text=np.full(S, 0.2, np.float32), target_text=np.full(E, 0.1, np.float32))


def unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float64) / np.linalg.norm(np.asarray(x, np.float64), axis=1, keepdims=True)


@pytest.mark.parametrize("block_rows", [mean_estimates.BLOCK_ROWS, 7])
@pytest.mark.parametrize("input_norm", ["unit", "centred", "none"])
def test_statistics_by_hand(monkeypatch, input_norm, block_rows):
    monkeypatch.setattr(mean_estimates, "BLOCK_ROWS", block_rows)
    updated, image_estimate, audio_estimate = with_means(MEANS, input_norm, IMAGES, AUDIO)
    x = IMAGES.astype(np.float64) if input_norm == "none" else unit(IMAGES)
    for estimate, vectors_ND, text, stored in (
        (image_estimate, x, MEANS.source_text, updated.source_image),
        (audio_estimate, unit(AUDIO), MEANS.target_text, updated.target_audio),
    ):
        mean = vectors_ND.mean(0)
        np.testing.assert_allclose(stored, mean, rtol=1e-6)
        assert stored.dtype == np.float32 and estimate.count == N
        assert estimate.distance == pytest.approx(np.linalg.norm(mean - text))
        assert estimate.mean_length == pytest.approx(np.linalg.norm(mean), rel=1e-6)
        relative = vectors_ND.var(axis=0, ddof=1).sum() / np.mean(np.sum(vectors_ND**2, axis=1))
        assert estimate.spread == pytest.approx(relative)
        assert estimate.error == pytest.approx(np.sqrt(relative / N)) and estimate.needed_count == np.ceil(
            relative / 0.0004
        )
    assert (updated.source_text is MEANS.source_text) and with_means(MEANS, input_norm) == (
        MEANS,
        None,
        None,
    )


def test_expected_error_is_right():
    """Over many draws of 50 out of one distribution."""
    draws = unit(RNG.normal(size=(400 * N, S)) + 1).reshape(400, N, S)
    distances = np.linalg.norm(draws.mean(axis=1) - draws.reshape(-1, S).mean(axis=0), axis=1)
    estimate = [with_means(MEANS, "unit", draw.astype(np.float32))[1].error for draw in draws[:20]]
    assert np.sqrt(np.mean(distances**2)) == pytest.approx(np.mean(estimate), rel=0.05)


def test_spread_is_unbiased():
    """1 − |mean|² underestimates the spread of few unit vectors: of 8 by an eighth."""
    x = unit(RNG.normal(size=(20_000, S)) + 1).astype(np.float32)
    whole = with_means(MEANS, "unit", x)[1].spread
    few = [with_means(MEANS, "unit", x[start : start + 8])[1].spread for start in range(0, 8000, 8)]
    assert np.mean(few) == pytest.approx(whole, rel=0.02)


@pytest.mark.parametrize(
    ("image_spread", "caption_spread", "is_narrow"),
    [
        (0.480, 0.496, False), (0.444, 0.496, False), (0.238, 0.496, True), (0.218, 0.496, True),
        (0.480, 0.325, False), (0.238, 0.325, True), (0.141, 0.325, True), (0.480, 0.248, False),
        (0.88, 0.91, False), (0.85, 1.0, False), (0.849, 1.0, True),
    ],
)  # fmt: skip
def test_narrow_sets(image_spread, caption_spread, is_narrow):
    """With spreads of CLIP ViT-B/32 (general photographs, ten classes, one class; captions, captions and labels,
    labels) and of the mini world's CLIP."""
    warning = narrow_warning(image_spread, caption_spread)
    assert bool(warning) == is_narrow
    if warning:
        assert "very similar" in warning and f"{image_spread:.2f}" in warning and "use general images" in warning


def test_spread_of_captions():
    assert captions_spread(MEANS, "centred") == captions_spread(MEANS, "unit") == pytest.approx(1 - S * 0.04)
    assert captions_spread(MEANS, "none") is None and captions_spread(ModalityMeans(), "centred") is None


def test_error_line():
    known = {"mean": np.zeros(S, np.float32), "distance": 1.0, "spread": 0.4796}
    few, many = (mean_estimates.Estimate(**known, count=count) for count in (350, 5000))
    line = mean_estimates.error_line(few, "images")
    assert line == "the mean of 350 images has an expected error of 0.037; about 1,200 are needed for 0.02"
    line = mean_estimates.error_line(many, "sounds")
    assert line == "the mean of 5,000 sounds has an expected error of 0.0098; about 1,200 are needed for 0.02"


def test_given_mean():
    mean = unit(IMAGES).mean(0).astype(np.float32)
    updated, estimate, audio_estimate = with_means(
        MEANS, "centred", mean[None], unit(AUDIO).mean(0).astype(np.float32)[None]
    )
    np.testing.assert_array_equal(updated.source_image, mean)
    assert estimate.count is estimate.error is audio_estimate.error is None
    assert estimate.spread == pytest.approx(1 - np.sum(mean**2)) and estimate.distance == pytest.approx(
        np.linalg.norm(mean - MEANS.source_text)
    )
    for vector in (IMAGES[0], unit(IMAGES)[0]):
        with pytest.raises(ImageError, match="is not the mean of images: .* with a norm below 1"):
            with_means(MEANS, "centred", vector[None].astype(np.float32))
    with pytest.raises(ImageError, match="is not the mean of images"):  # a mean of raw vectors
        with_means(MEANS, "none", mean[None])
    with pytest.raises(AudioError, match="a single vector of length 2 is not the mean of sounds"):
        with_means(MEANS, "none", None, np.eye(1, E, dtype=np.float32) * 2)


def test_too_few_or_equal_vectors():
    with pytest.raises(ImageError, match="only 7 readable images: a mean needs 8 or more"):
        with_means(MEANS, "centred", IMAGES[:7])
    for input_norm in ("centred", "none"):
        with pytest.raises(ImageError, match="all 20 images have the same vector"):
            with_means(MEANS, input_norm, np.tile(IMAGES[:1], (20, 1)))
    with pytest.raises(AudioError, match="all 9 sounds have the same vector"):
        with_means(MEANS, "unit", None, np.tile(AUDIO[:1], (9, 1)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
def test_arrays_in_files(tmp_path, dtype):
    array = (10 * IMAGES).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read_vectors(tmp_path / "a.npy", S, ImageError), array)
    np.save(tmp_path / "one.npy", array[0])
    np.testing.assert_array_equal(read_vectors(tmp_path / "one.npy", None, ImageError), array[:1])
    estimate = with_means(MEANS, "unit", read_vectors(tmp_path / "a.npy", S, ImageError))[0].source_image
    np.testing.assert_allclose(estimate, unit(array).mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, S)), f"float64 of shape (0, {S}); expected raw vectors [N, {S}]"),
        (np.ones((9, S + 1)), f"float64 of shape (9, {S + 1})"),
        (np.ones(S + 1), f"float64 of shape ({S + 1},)"),
        (np.ones((1, 9, S)), "expected raw vectors"),
        (np.float64(3), "expected raw vectors"),
        (np.ones((9, S), complex), "holds complex128"),
        (np.array([["a"] * S] * 9), "expected raw vectors"),
        (np.eye(S + 5, S), f"row {S} is zero or not finite"),
        (np.where(np.arange(9)[:, None] == 6, np.nan, np.ones((9, S))), "row 6 is zero or not finite"),
        (np.full((9, S), np.inf, np.float16), "row 0 is zero or not finite"),
        (np.full((9, S), 1e39), "row 0 is zero or not finite"),
    ],
    ids=lambda value: "" if not isinstance(value, str) else value[-20:],
)
def test_invalid_arrays(tmp_path, monkeypatch, array, message):
    monkeypatch.setattr(vectors, "ROWS_AT_ONCE", 4)
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(AudioError, match=re.escape(message)) as caught:
        read_vectors(tmp_path / "a.npy", S, AudioError)
    assert str(tmp_path / "a.npy") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"version https://git-lfs", b"\0" * 99])
def test_files_without_array(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ImageError, match="pass an .npy file of raw vectors"):
        read_vectors(tmp_path / "a.npy", S, ImageError)


def test_is_array(tmp_path):
    (tmp_path / "folder.npy").mkdir()
    assert is_array(tmp_path / "a.npy") and is_array(Path("A.NPY"))
    assert not any(map(is_array, (tmp_path / "folder.npy", tmp_path / "a.npz", tmp_path / "npy", Path("."))))

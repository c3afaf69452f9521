"""Scores of `c2c search`: centred cosines, hubness, and references or their absence."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import zarr
from flax import nnx

from c2c_jax.io.images import read_image
from c2c_jax.spaces.space import load_space
from c2c_jax.translator.bundle import load_bundle, save_bundle
from c2c_jax.translator.centring import ModalityMeans, uncentred
from c2c_jax.translator.inference import translate
from c2c_jax.translator.kinds import build_translator
from c2c_jax.translator.memory import Memory
from tests.cli.test_search import cosines
from tests.fixtures.audio_files import write_noise

TEXTS = [f"{subject} and {number}" for subject in ("rain", "dogs", "wind", "bells") for number in map(str, range(9))]


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """A folder with enough sounds for their own mean."""
    folder = tmp_path_factory.mktemp("many")
    for seed in range(34):
        write_noise(folder / f"{seed:02}.wav", seed)
    return folder


@pytest.fixture(scope="module")
def centred_bundle(tmp_path_factory, bundle, clip_folder, clap) -> Path:
    """An untrained translator of centred vectors, with the captions' means and some captions."""
    old = load_bundle(bundle)
    spec = dataclasses.replace(old.spec, input_norm="centred")
    source, target = (load_space(str(name)).encode_text(TEXTS) for name in (clip_folder, clap))
    means = ModalityMeans(source_text=unit(source).mean(axis=0), target_text=unit(target).mean(axis=0))
    memory = Memory(source=unit(unit(source) - means.source_text).astype(np.float16), weight=0.0, temperature=0.1)
    folder = tmp_path_factory.mktemp("centred") / "bundle"
    translator = build_translator(spec, rngs=nnx.Rngs(0))
    save_bundle(folder, dataclasses.replace(old, translator=translator, spec=spec, means=means, memory=memory))
    return folder


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def scores_by_hand(query_QE, query_mean_E, many, references_RE, flags=(), less_hubness=(True,)) -> np.ndarray:
    """Centred cosines of the vectors in the index, minus hubness for some queries, in the order of names."""
    (array,) = (many / ".c2c-index").rglob("sounds")
    audio_NE = unit(zarr.open_array(array, mode="r")[:].astype(np.float32))
    query_QE, references_RE = unit(query_QE), unit(references_RE)
    if "--no-centre" not in flags:
        audio_NE = unit(audio_NE - audio_NE.mean(axis=0))
        query_QE, references_RE = unit(query_QE - query_mean_E), unit(references_RE - query_mean_E)
    hubness_N = 0.5 * np.sort(audio_NE @ references_RE.T, axis=1)[:, -2:].mean(axis=1)
    return query_QE @ audio_NE.T - np.array(less_hubness)[:, None] * hubness_N


def check_scores(lines, expected_QN, many) -> None:
    for number, expected_N in enumerate(expected_QN):
        order = np.argsort(-expected_N)[:10]
        of_query = lines[10 * number : 10 * number + 10]
        np.testing.assert_allclose([float(line[0]) for line in of_query], expected_N[order], atol=1e-4)
        score_of = dict(zip(sorted(str(path) for path in many.glob("*.wav")), expected_N, strict=True))
        np.testing.assert_allclose([score_of[line[1]] for line in of_query], expected_N[order], atol=1e-4)
        assert np.ptp(expected_N) > 2e-3


@pytest.mark.parametrize(
    ("flags", "less_hubness"),
    [
        ((), (False, True)),
        (("--hubness", "all"), (True, True)),
        (("--hubness", "none"), (False, False)),
        (("--no-centre",), (False, True)),
        (("--no-centre", "--hubness", "none"), (False, False)),
    ],
)
def test_centred_cosines_less_hubness(
    search, image_folder, many, centred_bundle, clip_folder, clap, flags, less_hubness
):
    """By hand from the vectors in the index, for an image and a text: the references are the bundle's captions,
    translated."""
    cosine = "cosine" if "--no-centre" in flags else "centred cosine"
    of_image, of_text = (cosine + (" minus hubness" if has else "") for has in less_hubness)
    inputs = "--translator", centred_bundle, "--clap", clap, "--library", many
    code, lines, err = search(image_folder / "a.png", "--text", "heavy rain", *flags, inputs=inputs)
    assert code == 0 and len(lines) == 20
    assert err.splitlines()[-1] == f"scores: images by {of_image}; texts by {of_text}"
    bundle = load_bundle(centred_bundle)
    image = load_space(str(clip_folder)).encode_images([read_image(image_folder / "a.png")])
    query_QE = np.concatenate([translate(bundle, image), load_space(str(clap)).encode_text(["heavy rain"])])
    captions = bundle.translator(jnp.asarray(bundle.memory.source, jnp.float32))
    references_RE = np.asarray(uncentred(captions, bundle.means.target_text))
    expected = scores_by_hand(query_QE, bundle.means.target_text, many, references_RE, flags, less_hubness)
    check_scores(lines, expected, many)
    code, printed, _ = search(image_folder / "a.png", "--text", "rain", *flags, "--json", inputs=inputs)
    queries = json.loads("".join("\t".join(line) for line in printed))["queries"]
    assert code == 0 and [query["scoring"] for query in queries] == [of_image, of_text]


def test_a_file_of_references(search, many, clap, tmp_path):
    """Without a translator they also give the mean of queries."""
    file, flags = tmp_path / "texts.txt", ("--clap", clap, "--library", many)
    file.write_text("\n".join([*TEXTS[:20], "", *TEXTS[20:]]) + "\n")
    code, lines, err = search("--text", "heavy rain", "--references", file, inputs=flags)
    assert code == 0 and err.splitlines()[-1] == "scores: texts by centred cosine minus hubness"
    assert f"{file}: 1 row skipped: 1 empty caption (first at line 21)" in err
    space = load_space(str(clap))
    text_RE = space.encode_text(TEXTS)
    expected = scores_by_hand(space.encode_text(["heavy rain"]), unit(text_RE).mean(axis=0), many, text_RE)
    check_scores(lines, expected, many)
    code, _, err = search("--text", "heavy rain", inputs=flags)
    assert code == 0 and err.splitlines()[-1] == (
        "scores: texts by cosine; not centred: the mean of queries is unknown; hubness not subtracted: there are no "
        "reference queries; pass --references FILE with 32 texts or more, one per line"
    )


def test_references_of_pictures_are_used_on_request(
    search, image_folder, many, centred_bundle, clip_folder, clap, tmp_path
):
    """CLAP's text tower encodes them only in this case."""
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:33]))
    flags = "--translator", centred_bundle, "--clap", clap, "--library", many, "--references", tmp_path / "texts.txt"
    bundle = load_bundle(centred_bundle)
    query_QE = translate(bundle, load_space(str(clip_folder)).encode_images([read_image(image_folder / "a.png")]))
    text_RE = load_space(str(clap)).encode_text(TEXTS[:33])
    for hubness, note in (
        ("texts", "centred cosine; --references ignored: these queries use no reference texts with --hubness texts"),
        ("all", "centred cosine minus hubness"),
    ):
        code, lines, err = search(image_folder / "a.png", "--hubness", hubness, inputs=flags)
        assert code == 0 and err.splitlines()[-1] == f"scores: images by {note}"
        expected = scores_by_hand(query_QE, bundle.means.target_text, many, text_RE, less_hubness=[hubness == "all"])
        check_scores(lines, expected, many)


def test_few_sounds_are_not_centred(search, audio_folder, clap, tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    flags = "--references", tmp_path / "texts.txt"
    code, lines, err = search("--text", "heavy rain", *flags, "--hubness", "none", inputs=("--clap", clap))
    assert err.splitlines()[-1] == "scores: texts by cosine; not centred: the library has fewer than 32 sounds"
    of = cosines(load_space(str(clap)).encode_text(["heavy rain"])[0], audio_folder, clap)
    assert code == 0 and {line[1]: float(line[0]) for line in lines} == {
        str(audio_folder / name): pytest.approx(score, abs=1e-4) for name, score in of.items()
    }
    code, _, err = search("--text", "heavy rain", *flags)
    assert code == 0 and err.splitlines()[-1] == (
        "scores: texts by cosine minus hubness; not centred: the library has fewer than 32 sounds and the translator "
        "stores no mean of sounds"
    )

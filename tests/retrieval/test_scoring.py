"""Scores of queries and candidates against numpy, and the choice of means and references in a search."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from c2c_jax.retrieval import library
from c2c_jax.retrieval.library import Library
from c2c_jax.retrieval.nearest import top_k
from c2c_jax.retrieval.scoring import Scoring, translated_captions, unit_mean
from c2c_jax.retrieval.search import SearchScoring, search_scoring
from c2c_jax.spaces.space_id import SpaceId
from c2c_jax.translator.bundle import Bundle
from c2c_jax.translator.centring import ModalityMeans
from c2c_jax.translator.kinds import TranslatorSpec, build_translator
from c2c_jax.translator.memory import Memory, evenly_spaced

S, E = 8, 6
ADVICE = "pass --references FILE with 32 texts or more, one per line"


def vectors(seed: int, count: int, dim: int = E) -> np.ndarray:
    """Returns vectors of various lengths, scattered about a mean."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, dim)) / dim**0.5 + np.random.default_rng(seed + 100).normal(size=dim) / dim**0.5
    return (x * rng.uniform(0.1, 10, (count, 1))).astype(np.float32)


def unit(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)


def mean(x: np.ndarray) -> np.ndarray:
    return unit(x).mean(axis=0)


def centred(x: np.ndarray, mean_E: np.ndarray) -> np.ndarray:
    return unit(unit(x) - mean_E)


def scores_by_hand(query: np.ndarray, audio: np.ndarray, references: np.ndarray | None) -> np.ndarray:
    """Returns cosines, less 0.5 times the mean of the 2 largest cosines to references; vectors are centred before."""
    score = unit(query) @ unit(audio).T
    if references is not None:
        score -= 0.5 * np.sort(unit(audio) @ unit(references).T, axis=1)[:, -2:].mean(axis=1)
    return score


def scores_of(chosen: Scoring, query: np.ndarray, audio: np.ndarray) -> np.ndarray:
    candidates = chosen.candidates(audio)
    score, index = top_k(chosen.queries(query), candidates, len(audio), chosen.penalty(candidates))
    return np.take_along_axis(score, np.argsort(index, axis=1), axis=1)


@pytest.mark.parametrize("is_centred", [False, True])
@pytest.mark.parametrize("has_references", [False, True])
def test_scores_by_hand(is_centred, has_references):
    query, audio, references = vectors(0, 5), vectors(1, 50), vectors(2, 40)
    means = {"query_mean_E": mean(query).astype(np.float32), "candidate_mean_E": mean(audio).astype(np.float32)}
    chosen = Scoring(**(means if is_centred else {}), reference_RE=references if has_references else None)
    expected = (query, audio, references)
    if is_centred:
        expected = centred(query, mean(query)), centred(audio, mean(audio)), centred(references, mean(query))
    expected = scores_by_hand(*expected[:2], expected[2] if has_references else None)
    np.testing.assert_allclose(scores_of(chosen, query, audio), expected, atol=1e-5)
    assert str(chosen) == ("centred cosine" if is_centred else "cosine") + (" minus hubness" if has_references else "")
    assert (chosen.is_centred, chosen.subtracts_hubness) == (is_centred, has_references)


def test_references_have_a_mean_of_their_own():
    query, audio, references = vectors(0, 5), vectors(1, 50), vectors(2, 40)
    means = {name: mean(x).astype(np.float32) for name, x in (("query", query), ("candidate", audio))}
    chosen = Scoring(
        query_mean_E=means["query"], candidate_mean_E=means["candidate"], reference_RE=references,
        reference_mean_E=mean(references).astype(np.float32),
    )  # fmt: skip
    expected = centred(query, mean(query)), centred(audio, mean(audio)), centred(references, mean(references))
    np.testing.assert_allclose(scores_of(chosen, query, audio), scores_by_hand(*expected), atol=1e-5)
    plain = Scoring(reference_RE=references, reference_mean_E=mean(references).astype(np.float32))
    np.testing.assert_allclose(scores_of(plain, query, audio), scores_by_hand(query, audio, references), atol=1e-5)


def test_centring_needs_both_means():
    for name in ("query_mean_E", "candidate_mean_E"):
        chosen = Scoring(**{name: mean(vectors(1, 50)).astype(np.float32)})
        assert str(chosen) == "cosine" and not chosen.is_centred
        np.testing.assert_array_equal(chosen.queries(vectors(0, 5)), vectors(0, 5))
        np.testing.assert_array_equal(chosen.candidates(vectors(0, 5)), vectors(0, 5))


def test_hubness_uses_at_most_all_references():
    audio, references = vectors(1, 20), vectors(2, 1)
    penalty = Scoring(reference_RE=references).penalty(audio)
    np.testing.assert_allclose(penalty, 0.5 * (unit(audio) @ unit(references).T).mean(axis=1), atol=1e-6)
    assert Scoring().penalty(audio) is None


def test_hubness_demotes_a_hub():
    """Sound 0 is the nearest of all queries. By hand, it scores 0.75 − 0.75 · 0.75 less its hubness; the sounds that
    belong to the queries score 0.66, and 0.66 − 0.75 · 0.66 / 3 for the second."""
    query = np.array([[0.9, 0.8, 0], [0.9, 0, 0.8], [0.9, -0.8, 0]], np.float32)
    audio = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, -1, 0]], np.float32)
    penalty = Scoring(reference_RE=query).penalty(audio)
    assert top_k(query, audio, 1)[1][:, 0].tolist() == [0, 0, 0]
    assert top_k(query, audio, 1, penalty)[1][:, 0].tolist() == [1, 2, 3]


def test_the_mean_of_unit_vectors_in_blocks():
    x = vectors(1, 50).astype(np.float16)
    scores = unit_mean(np.array_split(x, 7))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, mean(x), atol=1e-6)


# Choice of means and references in a search.


def library_of(x: np.ndarray) -> Library:
    """Returns a library with rows in another order than names, and one row without a file."""
    order = np.random.default_rng(0).permutation(len(x) + 1)
    rows = {f"{name:03}.wav": int(row) for name, row in enumerate(order[:-1])}
    stored = np.full((len(x) + 1, x.shape[1]), np.nan, np.float16)
    stored[order[:-1]] = x
    return Library(
        folder=Path("s"), index_folder=Path("i"), space=SpaceId(name="clap", dim=E, fingerprint="f"), files=[],
        vectors_NE=stored, rows=rows, pending=[], is_written=True,
    )  # fmt: skip


def bundle_of(input_norm: str, stored: tuple[str, ...] = (), captions: int = 0) -> Bundle:
    """Returns a bundle of an untrained translator with the named means, and a number of captions."""
    spec = TranslatorSpec.from_json(dict(
        kind="mlp", source_dim=S, target_dim=E, width=16, depth=1, heads=1, mlp_width=1, dropout=0.0, clamp=0.0,
        input_norm=input_norm,
    ))  # fmt: skip
    names = ("source_text", "source_image", "target_text", "target_audio")
    means = {name: mean(vectors(n, 90, S if n < 2 else E)).astype(np.float32) for n, name in enumerate(names)}
    source = unit(vectors(7, captions, S)).astype(np.float16) if captions else None
    return Bundle(
        translator=build_translator(spec, rngs=nnx.Rngs(0)),
        spec=spec,
        source=SpaceId(name="clip", dim=S, fingerprint="c"),
        target=SpaceId(name="clap", dim=E, fingerprint="f"),
        recipe={},
        metrics={},
        means=ModalityMeans(**{name: means[name] for name in stored}),
        memory=None if source is None else Memory(source=source, weight=0.0, temperature=0.1),
    )


def captions_of(bundle: Bundle) -> np.ndarray:
    """Returns a bundle's captions translated, before un-centring or shifts."""
    return unit(np.asarray(bundle.translator(jnp.asarray(bundle.memory.source, jnp.float32))))


AUDIO = vectors(3, 40).astype(np.float16)
TEXTS, IMAGE, TEXT = vectors(4, 45), vectors(5, 1), vectors(6, 1)
CENTRED_MEANS = ("source_text", "target_text")


KINDS = "image", "text"
CENTRED, BOTH = "centred cosine", "centred cosine minus hubness"


def search_scores(bundle, texts=None, audio=AUDIO, kinds=KINDS, **flags) -> tuple[np.ndarray, SearchScoring]:
    """Returns scores of the image and the text, or of only the text without a bundle, in the order of sounds."""
    audio_library = library_of(audio)
    kinds = kinds if bundle else ["text"]
    flags = {"centre": True, "hubness": "texts", **flags}
    chosen = search_scoring(audio_library, bundle, None if texts is None else lambda: texts, kinds=kinds, **flags)
    assert list(chosen.by_kind) == list(kinds)
    hits = [
        audio_library.nearest({"image": IMAGE, "text": TEXT}[kind], len(audio), scoring)[0]
        for kind, scoring in chosen.by_kind.items()
    ]
    by_name = [[score for score, _ in sorted(of_query, key=lambda hit: hit[1])] for of_query in hits]
    return np.array(by_name), chosen


def check(
    scores: np.ndarray, queries: list[np.ndarray], audio: np.ndarray, references: np.ndarray | None, hubness="texts"
) -> None:
    """Compares scores with those by hand. The text is the last query, after the image."""
    with_references = {"texts": [False, True], "all": [True, True], "none": [False, False]}[hubness][-len(queries) :]
    expected = [
        scores_by_hand(query, audio, references if has else None)
        for query, has in zip(queries, with_references, strict=True)
    ]
    np.testing.assert_allclose(scores, np.concatenate(expected), atol=2e-5)


def description(image_scoring: str, text: str, *notes: str) -> str:
    return "; ".join((f"scores: images by {image_scoring}", f"texts by {text}", *notes))


@pytest.mark.parametrize("hubness", ["texts", "all", "none"])
@pytest.mark.parametrize("block", [7, 1000])
def test_a_centred_translator(monkeypatch, block, hubness):
    """Images, texts and captions are centred with the mean of texts, sounds with the library's own mean."""
    monkeypatch.setattr(library, "BLOCK", block)
    bundle = bundle_of("centred", (*CENTRED_MEANS, "target_audio"), captions=50)
    scores, chosen = search_scores(bundle, hubness=hubness)
    queries = [centred(x, bundle.means.target_text) for x in (IMAGE, TEXT)]
    check(scores, queries, centred(AUDIO, mean(AUDIO)), captions_of(bundle), hubness)
    assert str(chosen) == description(BOTH if hubness == "all" else CENTRED, CENTRED if hubness == "none" else BOTH)


@pytest.mark.parametrize("hubness", ["texts", "all", "none"])
def test_without_centring(hubness):
    bundle = bundle_of("centred", CENTRED_MEANS, captions=50)
    scores, chosen = search_scores(bundle, centre=False, hubness=hubness)
    references = translated_captions(bundle)
    np.testing.assert_allclose(np.linalg.norm(references, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(centred(references, bundle.means.target_text), captions_of(bundle), atol=1e-4)
    check(scores, [IMAGE, TEXT], AUDIO, references, hubness)
    less = "cosine minus hubness"
    assert str(chosen) == description(less if hubness == "all" else "cosine", "cosine" if hubness == "none" else less)


@pytest.mark.parametrize("hubness", ["texts", "all"])
@pytest.mark.parametrize("stored", [(), CENTRED_MEANS, (*CENTRED_MEANS, "target_audio")])
def test_a_translator_of_unit_vectors_with_captions(stored, hubness):
    """Images are centred with the mean of translated captions, shifted like images; texts with the mean of texts, if
    stored. Captions are centred with their own mean, for both kinds of queries."""
    bundle = bundle_of("unit", stored, captions=50)
    captions = captions_of(bundle)
    if "target_audio" in stored:
        captions = unit(captions - bundle.means.target_text + bundle.means.target_audio)
    of_texts = bundle.means.target_text if stored else mean(captions)
    scores, chosen = search_scores(bundle, hubness=hubness)
    queries = [centred(IMAGE, mean(captions)), centred(TEXT, of_texts)]
    check(scores, queries, centred(AUDIO, mean(AUDIO)), centred(captions, mean(captions)), hubness)
    assert str(chosen) == description(BOTH if hubness == "all" else CENTRED, BOTH)
    scores, _ = search_scores(bundle, centre=False, hubness=hubness)
    check(scores, [IMAGE, TEXT], AUDIO, captions, hubness)


@pytest.mark.parametrize("stored", [CENTRED_MEANS, (*CENTRED_MEANS, "target_audio")])
def test_a_translator_of_unit_vectors_without_captions(stored):
    bundle = bundle_of("unit", stored)
    scores, chosen = search_scores(bundle)
    means = (
        bundle.means.target_audio if "target_audio" in stored else bundle.means.target_text,
        bundle.means.target_text,
    )
    queries = [centred(x, mean_E) for x, mean_E in zip((IMAGE, TEXT), means, strict=True)]
    check(scores, queries, centred(AUDIO, mean(AUDIO)), None)
    missing = f"hubness not subtracted: there are no reference queries; {ADVICE}"
    assert str(chosen) == description(CENTRED, CENTRED, missing)
    assert str(search_scores(bundle, hubness="all")[1]) == str(chosen)
    scores, chosen = search_scores(bundle, kinds=["image"])
    check(scores, queries[:1], centred(AUDIO, mean(AUDIO)), None, "none")
    assert str(chosen) == "scores: images by centred cosine"
    assert str(search_scores(bundle, kinds=["image"], hubness="all")[1]) == f"{chosen}; {missing}"
    assert str(search_scores(bundle, kinds=["text"])[1]) == f"scores: texts by centred cosine; {missing}"


@pytest.mark.parametrize("bundle", [None, bundle_of("unit"), bundle_of("none", captions=50)])
def test_without_means_and_references(bundle):
    """A translator of raw vectors cannot use captions of unit length."""
    scores, chosen = search_scores(bundle)
    check(scores, [TEXT] if bundle is None else [IMAGE, TEXT], AUDIO, None)
    scores = "scores: texts by cosine" if bundle is None else description("cosine", "cosine")
    assert str(chosen) == (
        f"{scores}; not centred: the mean of queries is unknown; "
        f"hubness not subtracted: there are no reference queries; {ADVICE}"
    )
    assert str(search_scores(bundle, hubness="none")[1]) == (
        f"{scores}; not centred: the mean of queries is unknown; {ADVICE}"
    )


def test_texts_as_references():
    """Without a translator, they also give the mean of queries, if there are enough of them."""
    scores, chosen = search_scores(None, TEXTS)
    audio = centred(AUDIO, mean(AUDIO))
    check(scores, [centred(TEXT, mean(TEXTS))], audio, centred(TEXTS, mean(TEXTS)))
    assert str(chosen) == f"scores: texts by {BOTH}"
    scores, chosen = search_scores(None, TEXTS[:31])
    check(scores, [TEXT], AUDIO, TEXTS[:31])
    assert (
        str(chosen) == f"scores: texts by cosine minus hubness; not centred: the mean of queries is unknown; {ADVICE}"
    )


@pytest.mark.parametrize("hubness", ["texts", "all"])
def test_texts_as_references_with_a_translator(hubness):
    bundle, audio = bundle_of("unit", captions=50), centred(AUDIO, mean(AUDIO))
    scores, chosen = search_scores(bundle, TEXTS, hubness=hubness)
    queries = [centred(IMAGE, mean(captions_of(bundle))), centred(TEXT, mean(TEXTS))]
    check(scores, queries, audio, centred(TEXTS, mean(TEXTS)), hubness)
    assert str(chosen) == description(BOTH if hubness == "all" else CENTRED, BOTH)
    scores, _ = search_scores(bundle_of("unit"), TEXTS, hubness=hubness)
    check(scores, [centred(x, mean(TEXTS)) for x in (IMAGE, TEXT)], audio, centred(TEXTS, mean(TEXTS)), hubness)
    bundle = bundle_of("centred", CENTRED_MEANS, captions=50)
    scores, _ = search_scores(bundle, TEXTS, hubness=hubness)
    of_texts = bundle.means.target_text
    check(scores, [centred(x, of_texts) for x in (IMAGE, TEXT)], audio, centred(TEXTS, of_texts), hubness)


def test_unused_references_are_not_encoded(monkeypatch):
    """Unused texts of --references are reported."""

    def never(*_):
        raise AssertionError

    def notes(bundle, kind, hubness, *, centre=True, references=never):
        return search_scoring(library_of(AUDIO), bundle, references, kinds=[kind], centre=centre, hubness=hubness).notes

    centred_bundle = bundle_of("centred", CENTRED_MEANS, captions=50)
    unit_bundle = bundle_of("unit", CENTRED_MEANS, captions=50)
    for bundle in (centred_bundle, unit_bundle):
        for kind, hubness in (("image", "texts"), ("image", "none"), ("text", "none")):
            (note,) = notes(bundle, kind, hubness)
            assert note.startswith("--references ignored: ") and f"--hubness {hubness}" in note
    assert notes(bundle_of("unit"), "image", "texts", references=lambda: TEXTS) == ()  # used for the mean
    monkeypatch.setattr("c2c_jax.retrieval.search.translated_captions", never)
    for kind, hubness in (("image", "texts"), ("image", "none"), ("text", "none")):
        assert notes(centred_bundle, kind, hubness, references=None) == ()
        assert notes(unit_bundle, kind, hubness, references=None, centre=False) == ()
    assert notes(unit_bundle, "text", "none", references=None) == ()
    for kind, hubness in (("image", "all"), ("text", "texts")):
        assert notes(centred_bundle, kind, hubness, references=lambda: TEXTS) == ()
        with pytest.raises(AssertionError):
            notes(centred_bundle, kind, hubness, references=None)


def test_few_sounds():
    """Few sounds are centred with the bundle's mean of sounds, or not at all."""
    few, bundle = AUDIO[:31], bundle_of("centred", (*CENTRED_MEANS, "target_audio"), captions=50)
    scores, chosen = search_scores(bundle, audio=few)
    queries = [centred(x, bundle.means.target_text) for x in (IMAGE, TEXT)]
    check(scores, queries, centred(few, bundle.means.target_audio), captions_of(bundle))
    assert str(chosen) == description(CENTRED, BOTH)
    why = "not centred: the library has fewer than 32 sounds"
    scores, chosen = search_scores(None, TEXTS, audio=few)
    check(scores, [TEXT], few, TEXTS)
    assert str(chosen) == f"scores: texts by cosine minus hubness; {why}"
    bundle = bundle_of("centred", CENTRED_MEANS, captions=50)
    scores, chosen = search_scores(bundle, audio=few)
    check(scores, [IMAGE, TEXT], few, translated_captions(bundle))
    assert str(chosen) == description(
        "cosine", "cosine minus hubness", f"{why} and the translator stores no mean of sounds"
    )
    scores, chosen = search_scores(bundle, audio=AUDIO[:32])
    assert all(scoring.is_centred for scoring in chosen.by_kind.values())


def test_equal_sounds_are_sorted_by_name(monkeypatch):
    """Also across blocks."""
    monkeypatch.setattr(library, "BLOCK", 7)
    audio_library = library_of(np.tile(AUDIO[:4], (10, 1)))
    scoring = Scoring(
        query_mean_E=np.zeros(E, np.float32), candidate_mean_E=unit_mean(audio_library.blocks()), reference_RE=TEXTS
    )
    names = [int(path.stem) for _, path in audio_library.nearest(TEXT, 40, scoring)[0]]
    assert names == [first + 4 * n for first in names[::10] for n in range(10)]


def test_references_are_evenly_spaced_captions():
    assert evenly_spaced(5).tolist() == [0, 1, 2, 3, 4]
    assert (
        np.diff(evenly_spaced(3000)).min() >= 2
        and evenly_spaced(3000)[[0, -1]].tolist() == [0, 2999]
        and len(evenly_spaced(3000)) == 1024
    )
    bundle = bundle_of("unit", captions=3000)
    assert translated_captions(bundle).shape == (1024, E)
    few = dataclasses.replace(
        bundle, memory=dataclasses.replace(bundle.memory, source=bundle.memory.source[evenly_spaced(3000)])
    )
    np.testing.assert_array_equal(translated_captions(bundle), translated_captions(few))

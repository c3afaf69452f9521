"""Scores of queries and candidates against numpy by hand, and what a search takes its means and references from."""

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
from c2c_jax.spaces.space import SpaceId
from c2c_jax.translator.bundle import Bundle
from c2c_jax.translator.centring import ModalityMeans
from c2c_jax.translator.kinds import TranslatorSpec, build_translator
from c2c_jax.translator.memory import Memory, evenly_spaced

S, E = 8, 6
ADVICE = "pass --references FILE with 32 texts or more, one a line"


def vectors(seed: int, count: int, dim: int = E) -> np.ndarray:
    """Vectors of all lengths about a mean."""
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
    """Of vectors that are centred already: the cosine less 0.5 times the mean of the 2 largest to references."""
    score = unit(query) @ unit(audio).T
    if references is not None:
        score -= 0.5 * np.sort(unit(audio) @ unit(references).T, axis=1)[:, -2:].mean(axis=1)
    return score


def scores_of(scoring_: Scoring, query: np.ndarray, audio: np.ndarray) -> np.ndarray:
    candidates = scoring_.candidates(audio)
    score, index = top_k(scoring_.queries(query), candidates, len(audio), scoring_.penalty(candidates))
    return np.take_along_axis(score, np.argsort(index, axis=1), axis=1)


@pytest.mark.parametrize("is_centred", [False, True])
@pytest.mark.parametrize("has_references", [False, True])
def test_scores_by_hand(is_centred, has_references):
    query, audio, references = vectors(0, 5), vectors(1, 50), vectors(2, 40)
    means = {"query_mean_E": mean(query).astype(np.float32), "candidate_mean_E": mean(audio).astype(np.float32)}
    scoring_ = Scoring(**(means if is_centred else {}), reference_RE=references if has_references else None)
    expected = (query, audio, references)
    if is_centred:
        expected = centred(query, mean(query)), centred(audio, mean(audio)), centred(references, mean(query))
    expected = scores_by_hand(*expected[:2], expected[2] if has_references else None)
    np.testing.assert_allclose(scores_of(scoring_, query, audio), expected, atol=1e-5)
    assert str(scoring_) == ("centred cosine" if is_centred else "cosine") + (
        ", less hubness" if has_references else ""
    )
    assert (scoring_.is_centred, scoring_.is_less_hubness) == (is_centred, has_references)


def test_references_have_a_mean_of_their_own():
    query, audio, references = vectors(0, 5), vectors(1, 50), vectors(2, 40)
    means = {name: mean(x).astype(np.float32) for name, x in (("query", query), ("candidate", audio))}
    scoring_ = Scoring(
        query_mean_E=means["query"], candidate_mean_E=means["candidate"], reference_RE=references,
        reference_mean_E=mean(references).astype(np.float32),
    )  # fmt: skip
    expected = centred(query, mean(query)), centred(audio, mean(audio)), centred(references, mean(references))
    np.testing.assert_allclose(scores_of(scoring_, query, audio), scores_by_hand(*expected), atol=1e-5)
    plain = Scoring(reference_RE=references, reference_mean_E=mean(references).astype(np.float32))
    np.testing.assert_allclose(scores_of(plain, query, audio), scores_by_hand(query, audio, references), atol=1e-5)


def test_one_mean_alone_centres_nothing():
    for name in ("query_mean_E", "candidate_mean_E"):
        scoring_ = Scoring(**{name: mean(vectors(1, 50)).astype(np.float32)})
        assert str(scoring_) == "cosine" and not scoring_.is_centred
        np.testing.assert_array_equal(scoring_.queries(vectors(0, 5)), vectors(0, 5))
        np.testing.assert_array_equal(scoring_.candidates(vectors(0, 5)), vectors(0, 5))


def test_fewer_references_than_neighbours_are_all_of_them():
    audio, references = vectors(1, 20), vectors(2, 1)
    penalty = Scoring(reference_RE=references).penalty(audio)
    np.testing.assert_allclose(penalty, 0.5 * (unit(audio) @ unit(references).T).mean(axis=1), atol=1e-6)
    assert Scoring().penalty(audio) is None


def test_a_hub_loses_its_place():
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


# What a search takes its means and references from.


def library_of(x: np.ndarray) -> Library:
    """Rows in another order than names, and one row that no file has."""
    order = np.random.default_rng(0).permutation(len(x) + 1)
    rows = {f"{name:03}.wav": int(row) for name, row in enumerate(order[:-1])}
    stored = np.full((len(x) + 1, x.shape[1]), np.nan, np.float16)
    stored[order[:-1]] = x
    return Library(
        folder=Path("s"), index_folder=Path("i"), space=SpaceId(name="clap", dim=E, fingerprint="f"), files=[],
        vectors_NE=stored, rows=rows, pending=[], is_written=True,
    )  # fmt: skip


def bundle_of(input_norm: str, gap: tuple[str, ...] = (), captions: int = 0) -> Bundle:
    """An untrained translator with some means, and so many captions."""
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
        means=ModalityMeans(**{name: means[name] for name in gap}),
        memory=None if source is None else Memory(source=source, weight=0.0, temperature=0.1),
    )


def captions_of(bundle: Bundle) -> np.ndarray:
    """A bundle's captions translated, in the frame of the translator's outputs."""
    return unit(np.asarray(bundle.translator(jnp.asarray(bundle.memory.source, jnp.float32))))


AUDIO = vectors(3, 40).astype(np.float16)
TEXTS, IMAGE, TEXT = vectors(4, 45), vectors(5, 1), vectors(6, 1)
CENTRED_GAP = ("source_text", "target_text")


KINDS = "picture", "text"
CENTRED, BOTH = "centred cosine", "centred cosine, less hubness"


def search_scores(bundle, texts=None, audio=AUDIO, kinds=KINDS, **flags) -> tuple[np.ndarray, SearchScoring]:
    """Scores of the picture and the text, or of the text alone where there is no bundle, in the order of the sounds."""
    of = library_of(audio)
    kinds = kinds if bundle else ["text"]
    flags = {"centre": True, "hubness": "texts", **flags}
    scoring_ = search_scoring(of, bundle, None if texts is None else lambda: texts, kinds=kinds, **flags)
    assert list(scoring_.scoring_by_kind) == list(kinds)
    hits = [
        of.nearest({"picture": IMAGE, "text": TEXT}[kind], len(audio), scoring)[0]
        for kind, scoring in scoring_.scoring_by_kind.items()
    ]
    by_name = [[score for score, _ in sorted(of_query, key=lambda hit: hit[1])] for of_query in hits]
    return np.array(by_name), scoring_


def check(
    scores: np.ndarray, queries: list[np.ndarray], audio: np.ndarray, references: np.ndarray | None, hubness="texts"
) -> None:
    """The text comes last; the picture before it."""
    with_references = {"texts": [False, True], "all": [True, True], "none": [False, False]}[hubness][-len(queries) :]
    expected = [
        scores_by_hand(query, audio, references if has else None)
        for query, has in zip(queries, with_references, strict=True)
    ]
    np.testing.assert_allclose(scores, np.concatenate(expected), atol=2e-5)


def said(image_scoring: str, text: str, *notes: str) -> str:
    return "; ".join((f"scores: pictures by {image_scoring}", f"texts by {text}", *notes))


@pytest.mark.parametrize("hubness", ["texts", "all", "none"])
@pytest.mark.parametrize("block", [7, 1000])
def test_a_centred_translator(monkeypatch, block, hubness):
    """Pictures, texts and captions are among texts; sounds have the library's mean, though the bundle has one."""
    monkeypatch.setattr(library, "BLOCK", block)
    bundle = bundle_of("centred", (*CENTRED_GAP, "target_audio"), captions=50)
    scores, scoring_ = search_scores(bundle, hubness=hubness)
    queries = [centred(x, bundle.means.target_text) for x in (IMAGE, TEXT)]
    check(scores, queries, centred(AUDIO, mean(AUDIO)), captions_of(bundle), hubness)
    assert str(scoring_) == said(BOTH if hubness == "all" else CENTRED, CENTRED if hubness == "none" else BOTH)


@pytest.mark.parametrize("hubness", ["texts", "all", "none"])
def test_without_centring(hubness):
    bundle = bundle_of("centred", CENTRED_GAP, captions=50)
    scores, scoring_ = search_scores(bundle, centre=False, hubness=hubness)
    references = translated_captions(bundle)
    np.testing.assert_allclose(np.linalg.norm(references, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(centred(references, bundle.means.target_text), captions_of(bundle), atol=1e-4)
    check(scores, [IMAGE, TEXT], AUDIO, references, hubness)
    less = "cosine, less hubness"
    assert str(scoring_) == said(less if hubness == "all" else "cosine", "cosine" if hubness == "none" else less)


@pytest.mark.parametrize("hubness", ["texts", "all"])
@pytest.mark.parametrize("gap", [(), CENTRED_GAP, (*CENTRED_GAP, "target_audio")])
def test_a_translator_of_unit_vectors_with_captions(gap, hubness):
    """Pictures have the mean of the captions as they are translated, and moved where pictures are; texts have that of
    texts where it is known. Captions have their own, whichever kind of query they are references for."""
    bundle = bundle_of("unit", gap, captions=50)
    captions = captions_of(bundle)
    if "target_audio" in gap:
        captions = unit(captions - bundle.means.target_text + bundle.means.target_audio)
    of_texts = bundle.means.target_text if gap else mean(captions)
    scores, scoring_ = search_scores(bundle, hubness=hubness)
    queries = [centred(IMAGE, mean(captions)), centred(TEXT, of_texts)]
    check(scores, queries, centred(AUDIO, mean(AUDIO)), centred(captions, mean(captions)), hubness)
    assert str(scoring_) == said(BOTH if hubness == "all" else CENTRED, BOTH)
    scores, _ = search_scores(bundle, centre=False, hubness=hubness)
    check(scores, [IMAGE, TEXT], AUDIO, captions, hubness)


@pytest.mark.parametrize("gap", [CENTRED_GAP, (*CENTRED_GAP, "target_audio")])
def test_a_translator_of_unit_vectors_without_captions(gap):
    bundle = bundle_of("unit", gap)
    scores, scoring_ = search_scores(bundle)
    means = (
        bundle.means.target_audio if "target_audio" in gap else bundle.means.target_text,
        bundle.means.target_text,
    )
    queries = [centred(x, mean_E) for x, mean_E in zip((IMAGE, TEXT), means, strict=True)]
    check(scores, queries, centred(AUDIO, mean(AUDIO)), None)
    missing = f"hubness not subtracted: there are no reference queries; {ADVICE}"
    assert str(scoring_) == said(CENTRED, CENTRED, missing)
    assert str(search_scores(bundle, hubness="all")[1]) == str(scoring_)
    scores, scoring_ = search_scores(bundle, kinds=["picture"])
    check(scores, queries[:1], centred(AUDIO, mean(AUDIO)), None, "none")
    assert str(scoring_) == "scores: pictures by centred cosine"
    assert str(search_scores(bundle, kinds=["picture"], hubness="all")[1]) == f"{scoring_}; {missing}"
    assert str(search_scores(bundle, kinds=["text"])[1]) == f"scores: texts by centred cosine; {missing}"


@pytest.mark.parametrize("bundle", [None, bundle_of("unit"), bundle_of("none", captions=50)])
def test_where_nothing_is_known(bundle):
    """A translator of raw vectors has no use for captions of unit length."""
    scores, scoring_ = search_scores(bundle)
    check(scores, [TEXT] if bundle is None else [IMAGE, TEXT], AUDIO, None)
    scores = "scores: texts by cosine" if bundle is None else said("cosine", "cosine")
    assert str(scoring_) == (
        f"{scores}; not centred: the mean of queries is unknown; "
        f"hubness not subtracted: there are no reference queries; {ADVICE}"
    )
    assert str(search_scores(bundle, hubness="none")[1]) == (
        f"{scores}; not centred: the mean of queries is unknown; {ADVICE}"
    )


def test_texts_as_references():
    """Without a translator they give the queries' mean, too; of few texts it is not taken."""
    scores, scoring_ = search_scores(None, TEXTS)
    audio = centred(AUDIO, mean(AUDIO))
    check(scores, [centred(TEXT, mean(TEXTS))], audio, centred(TEXTS, mean(TEXTS)))
    assert str(scoring_) == f"scores: texts by {BOTH}"
    scores, scoring_ = search_scores(None, TEXTS[:31])
    check(scores, [TEXT], AUDIO, TEXTS[:31])
    assert (
        str(scoring_) == f"scores: texts by cosine, less hubness; not centred: the mean of queries is unknown; {ADVICE}"
    )


@pytest.mark.parametrize("hubness", ["texts", "all"])
def test_texts_as_references_beside_a_translator(hubness):
    bundle, audio = bundle_of("unit", captions=50), centred(AUDIO, mean(AUDIO))
    scores, scoring_ = search_scores(bundle, TEXTS, hubness=hubness)
    queries = [centred(IMAGE, mean(captions_of(bundle))), centred(TEXT, mean(TEXTS))]
    check(scores, queries, audio, centred(TEXTS, mean(TEXTS)), hubness)
    assert str(scoring_) == said(BOTH if hubness == "all" else CENTRED, BOTH)
    scores, _ = search_scores(bundle_of("unit"), TEXTS, hubness=hubness)
    check(scores, [centred(x, mean(TEXTS)) for x in (IMAGE, TEXT)], audio, centred(TEXTS, mean(TEXTS)), hubness)
    bundle = bundle_of("centred", CENTRED_GAP, captions=50)
    scores, _ = search_scores(bundle, TEXTS, hubness=hubness)
    of_texts = bundle.means.target_text
    check(scores, [centred(x, of_texts) for x in (IMAGE, TEXT)], audio, centred(TEXTS, of_texts), hubness)


def test_what_is_not_needed_is_not_computed(monkeypatch):
    """Texts of --references that serve neither as references nor for a mean are reported."""

    def never(*_):
        raise AssertionError

    def notes(bundle, kind, hubness, *, centre=True, references=never):
        return search_scoring(library_of(AUDIO), bundle, references, kinds=[kind], centre=centre, hubness=hubness).notes

    centred_one, unit_one = bundle_of("centred", CENTRED_GAP, captions=50), bundle_of("unit", CENTRED_GAP, captions=50)
    for bundle in (centred_one, unit_one):
        for kind, hubness in (("picture", "texts"), ("picture", "none"), ("text", "none")):
            (note,) = notes(bundle, kind, hubness)
            assert note.startswith("--references not used: ") and f"--hubness {hubness}" in note
    assert notes(bundle_of("unit"), "picture", "texts", references=lambda: TEXTS) == ()  # they give the mean
    monkeypatch.setattr("c2c_jax.retrieval.search.translated_captions", never)
    for kind, hubness in (("picture", "texts"), ("picture", "none"), ("text", "none")):
        assert notes(centred_one, kind, hubness, references=None) == ()
        assert notes(unit_one, kind, hubness, references=None, centre=False) == ()
    assert notes(unit_one, "text", "none", references=None) == ()
    for kind, hubness in (("picture", "all"), ("text", "texts")):
        assert notes(centred_one, kind, hubness, references=lambda: TEXTS) == ()
        with pytest.raises(AssertionError):
            notes(centred_one, kind, hubness, references=None)


def test_few_sounds():
    """They have the bundle's mean of sounds, or stay as they are."""
    few, bundle = AUDIO[:31], bundle_of("centred", (*CENTRED_GAP, "target_audio"), captions=50)
    scores, scoring_ = search_scores(bundle, audio=few)
    queries = [centred(x, bundle.means.target_text) for x in (IMAGE, TEXT)]
    check(scores, queries, centred(few, bundle.means.target_audio), captions_of(bundle))
    assert str(scoring_) == said(CENTRED, BOTH)
    why = "not centred: the library has fewer than 32 sounds"
    scores, scoring_ = search_scores(None, TEXTS, audio=few)
    check(scores, [TEXT], few, TEXTS)
    assert str(scoring_) == f"scores: texts by cosine, less hubness; {why}"
    bundle = bundle_of("centred", CENTRED_GAP, captions=50)
    scores, scoring_ = search_scores(bundle, audio=few)
    check(scores, [IMAGE, TEXT], few, translated_captions(bundle))
    assert str(scoring_) == said("cosine", "cosine, less hubness", f"{why} and the translator stores no mean of sounds")
    scores, scoring_ = search_scores(bundle, audio=AUDIO[:32])
    assert all(scoring.is_centred for scoring in scoring_.scoring_by_kind.values())


def test_equal_sounds_come_in_the_order_of_their_names(monkeypatch):
    """Over blocks."""
    monkeypatch.setattr(library, "BLOCK", 7)
    of = library_of(np.tile(AUDIO[:4], (10, 1)))
    scoring = Scoring(query_mean_E=np.zeros(E, np.float32), candidate_mean_E=unit_mean(of.blocks()), reference_RE=TEXTS)
    names = [int(path.stem) for _, path in of.nearest(TEXT, 40, scoring)[0]]
    assert names == [first + 4 * n for first in names[::10] for n in range(10)]


def test_of_many_captions_some_are_references():
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

"""Several sources as one stream: order, fractions, and duplicates against a plain set."""

import logging
import random
from collections import Counter

from c2c_jax.data.captions import BLOCK, CaptionSet, CaptionStream
from c2c_jax.data.sources import Source


class Texts(Source):
    """A source of given texts."""

    def __init__(self, texts, weight=None):
        super().__init__("texts", weight)
        self.texts = texts

    def rows(self):
        return iter(self.texts)


def test_one_after_another_and_duplicates_dropped_across_sources():
    stream = CaptionStream([Texts(["a", "b", "a"]), Texts(["B", "b", "c", "c"])], drop_duplicates=True)
    assert list(stream) == ["a", "b", "B", "c"]
    assert (stream.rows, stream.duplicates) == ([2, 2], [1, 2])
    unfiltered = CaptionStream([Texts(["a", "b", "a"]), Texts(["b"])], drop_duplicates=False)
    assert list(unfiltered) == ["a", "b", "a", "b"]
    assert (unfiltered.rows, unfiltered.duplicates) == ([3, 1], [0, 0])


def test_captions_read_earlier_count_as_seen():
    stream = CaptionStream([Texts(["a", "b", "c"])], drop_duplicates=True, earlier=["b", "x"])
    assert list(stream) == ["a", "c"]


def test_weights_are_shares_at_every_moment_until_the_first_source_ends():
    sources = [Texts([f"a{i}" for i in range(10_000)], 3.0), Texts([f"b{i}" for i in range(1_000)], 1.0)]
    mixed = list(CaptionStream(sources, drop_duplicates=True))
    for length in range(1, len(mixed) + 1):
        drawn = Counter(text[0] for text in mixed[:length])
        assert abs(drawn["a"] - 3 * length / 4) <= 1
    assert Counter(text[0] for text in mixed) == {"a": 3_003, "b": 1_000}  # three a after the last b, then b has none
    assert [text for text in mixed if text[0] == "b"] == sources[1].texts


def test_a_weight_of_one_asks_for_a_mixture_too():
    assert list(CaptionStream([Texts(["a", "b", "c"], 1.0), Texts(["x"])], drop_duplicates=True)) == ["a", "x", "b"]


def test_report(caplog):
    """Logged as a warning, since a row was skipped."""
    source = Texts(["a", "a"])
    source.skipped.add("no tab", "line 1,017")
    stream = CaptionStream([source], drop_duplicates=True)
    list(stream)
    line = "1 caption read from texts; 1 row skipped: 1 no tab (first at line 1,017); 1 duplicate dropped"
    stream.log_counts()
    assert caplog.record_tuples == [("c2c_jax.data.captions", logging.WARNING, line)]


def test_seen_equals_a_set():
    """Over many blocks of uneven sizes, so that runs of hashes are merged at every depth."""
    rng, caption_set, reference = random.Random(0), CaptionSet(), set()
    for _ in range(60):
        block = [str(rng.randrange(20_000)) for _ in range(rng.choice((1, 7, 100, 3_000)))]
        expected = []
        for text in block:
            expected.append(text not in reference)
            reference.add(text)
        assert caption_set.add(block) == expected
    lengths = [len(run) for run in caption_set._runs]
    assert sum(lengths) == len(reference) and len(lengths) <= 15
    assert all(longer >= 2 * shorter for longer, shorter in zip(lengths, lengths[1:], strict=False))


def test_duplicates_beyond_a_block():
    texts = [str(i) for i in range(BLOCK + 10)] + ["5", str(BLOCK + 3), "new"]
    assert list(CaptionStream([Texts(texts)], drop_duplicates=True)) == [*texts[: BLOCK + 10], "new"]

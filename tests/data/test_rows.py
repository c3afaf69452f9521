"""Rows that are too long, quotes that do not match, files that are not UTF-8: what is skipped is counted."""

import json
import resource

import numpy as np
import pytest

from c2c_jax.data.caption_files import LONG_ROW, MAX_ROW_BYTES, UNMATCHED, Csv, Jsonl, Tsv, Txt
from c2c_jax.data.sources import LONG_CAPTION, MAX_CAPTION_BYTES
from c2c_jax.errors import CaptionError
from c2c_jax.io.rows import BLOCK_BYTES


def rows_of(kind, path, content: bytes, *field: str) -> tuple[list[str], dict[str, int], dict[str, str]]:
    path.write_bytes(content)
    source = opened(kind, path, *field)
    try:
        captions = list(source.rows())
    except CaptionError as error:
        if "no usable caption" not in str(error):
            raise
        captions = []
    return captions, source.skipped.counts, source.skipped.first


def opened(kind, path, *field: str):
    return kind(":".join([kind.form.partition(":")[0], str(path), *field]))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "c"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_format_reads_every_line_end(file, end):
    def joined(*lines: str) -> bytes:
        return end.join([*lines, ""]).encode()

    assert rows_of(Txt, file, joined("a", "b\x85c\u2028d", "e"))[:2] == (["a", "b\x85c\u2028d", "e"], {})
    assert rows_of(Tsv, file, joined("a\tu", "b", "c\tu"))[:2] == (["a", "c"], {"no tab": 1})
    assert rows_of(Csv, file, joined("id,t", '1,"a, b"', '2,"c', 'd"', "3"), "t")[:2] == (
        ["a, b", "c d"], {"too few columns": 1},
    )  # fmt: skip
    lines = [json.dumps({"t": text}) for text in ("a", "b\r\nc", "d\re")]
    assert rows_of(Jsonl, file, joined(*lines, "{"), "t")[:2] == (["a", "b c", "d e"], {"not JSON": 1})


@pytest.mark.parametrize("shift", range(5))
def test_line_ends_on_the_border_of_two_reads(file, shift):
    lines = ["y" * (1 + (BLOCK_BYTES - shift) % 1002), *["x" * 1000] * 2200]
    captions, counts, _ = rows_of(Txt, file, "\r\n".join(lines).encode())
    assert captions == lines and not counts


def test_a_line_of_200_mb_is_counted_and_never_held(file):
    with open(file, "wb") as written:
        written.write(b"one\tu\n")
        for _ in range(200):
            written.write(b"x" * 10**6)
        written.write(b"\tu\ntwo\tu\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    source = opened(Tsv, file)
    assert list(source.rows()) == ["one", "two"]
    assert (source.skipped.counts, source.skipped.first) == ({LONG_ROW: 1}, {LONG_ROW: "line 2"})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_captions_up_to_the_limit(file):
    """The limit is in bytes: é has two."""
    longest, too_long = "é" * (MAX_CAPTION_BYTES // 2), "é" * (MAX_CAPTION_BYTES // 2) + "x"
    for read, content, field in (
        (Txt, f"{longest}\n{too_long}\nc\n", ()),
        (Tsv, f"{longest}\tu\n{too_long}\tu\nc\tu\n", ()),
        (Csv, f'id,t\n1,{longest}\n2,"{too_long}"\n3,c\n', ("t",)),
        (Jsonl, "".join(json.dumps({"t": text}) + "\n" for text in (longest, too_long, "c")), ("t",)),
    ):
        captions, counts, _ = rows_of(read, file, content.encode(), *field)
        assert captions == [longest, "c"] and counts == {LONG_CAPTION: 1}, read


@pytest.mark.parametrize("behind", [3, 20_000])
def test_a_stray_quote_loses_its_own_row_alone(file, behind):
    rows = "".join(f"{number},cat {number}\n" for number in range(behind))
    content = f'id,t\n1,a\n2,"dog\n{rows}5,"x, y"\n6,"she said ""hi"""\n'
    captions, counts, first = rows_of(Csv, file, content.encode(), "t")
    assert captions == ["a", *(f"cat {number}" for number in range(behind)), "x, y", 'she said "hi"']
    assert counts == {UNMATCHED: 1} and first == {UNMATCHED: "line 3"}
    assert rows_of(Csv, file, f'id,t\n1,a\n2,"dog\n{rows}'.encode(), "t")[0][1:] == captions[1:-2]


def test_a_long_row_within_quotes(file):
    for size in (200_000, 2 * MAX_ROW_BYTES):
        content = b'id,t\n1,"' + b"x" * size + b'"\n2,b\n'
        assert rows_of(Csv, file, content, "t")[:2] == (["b"], {LONG_ROW: 1})
    content = b'id,t\n1,"' + b"x\n" * 70_000 + b'"\n2,b\n'
    captions, counts, _ = rows_of(Csv, file, content, "t")
    assert captions == ["b"] and counts == {UNMATCHED: 2, "too few columns": 69_999}
    with pytest.raises(CaptionError, match="no readable header row"):
        rows_of(Csv, file, b'id,"t' + b"x" * MAX_ROW_BYTES + b"\n1,a\n", "t")


def test_blank_lines_are_counted_without_a_list_of_them(file):
    captions, counts, first = rows_of(Txt, file, b"one\n" + b"\n" * 10**6 + b"two\n\n\n")
    assert (captions, counts, first) == (["one", "two"], {"empty caption": 10**6}, {"empty caption": "line 2"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,t\n1,a\n".encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        ("id,t\n1,a\n".encode("utf-16-be"), "it is UTF-16; save it as UTF-8"),
        ("id,t\n1,a\n".encode("utf-16-le"), "it is UTF-16; save it as UTF-8"),
        ("id,t\n1,a\n".encode("utf-32"), "it is UTF-32; save it as UTF-8"),
        (b"\x1f\x8b\x08\x00none", "it is compressed by gzip; unpack it"),
        (b"PK\x03\x04none", "it is a zip archive or a spreadsheet"),
        (b"PAR1\x15\x04", "it is a Parquet file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "it is a pointer of Git LFS"),
        (b"<!DOCTYPE html>\n<p>404\n", "it is a web page"),
        (bytes(64), "it begins with zeros only"),
    ],
)
def test_what_is_not_utf_8_is_named(file, content, message):
    for read, field in ((Txt, ()), (Tsv, ()), (Csv, ("t",)), (Jsonl, ("t",))):
        with pytest.raises(CaptionError, match=message):
            rows_of(read, file, content, *field)


def test_other_encodings_are_counted(file):
    content = b"caf\xe9\tu\na dog\tu\n"
    assert rows_of(Tsv, file, content)[:2] == (["a dog"], {"not UTF-8": 1})


def test_hostile_json_lines(file):
    lines = ["[" * 100_000, '{"t":' * 1000 + "1" + "}" * 1000, '{"t": ' + "1" * 5000 + "}", "null", "5", '{"t": {}}']
    captions, counts, _ = rows_of(Jsonl, file, "\n".join([*lines, '{"t": "ok"}']).encode(), "t")
    assert captions == ["ok"] and sum(counts.values()) == len(lines)


def test_random_bytes_are_read_or_counted(file):
    rng = np.random.default_rng(0)
    for size in rng.integers(1, 5000, 40).tolist():
        content = rng.integers(0, 256, size, np.uint8).tobytes()
        for read, field in ((Txt, ()), (Tsv, ()), (Jsonl, ("t",)), (Csv, ("t",))):
            for row in rows_of(read, file, b"id,t\n" + content, *field)[0]:
                assert "\n" not in row and "\r" not in row

"""Captions from text files and from prepared TFDS data: every row is kept or counted as skipped."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from c2c_jax.data.captions import CaptionStream, open_sources
from c2c_jax.data.sources import Source
from c2c_jax.data.tfds_sets import ConceptualCaptions
from c2c_jax.errors import CaptionError

ROOT = Path(__file__).parents[2]
TRAIN = "Train_GCC-training.tsv"
VALIDATION = "Validation_GCC-1.1.0-Validation.tsv"
SOURCE = "tfds:conceptual_captions:validation"
# Good rows with every kind of bad row between them, an end of file that belongs to no row, and Windows line ends.
MIXED = (
    b"\xef\xbb\xbfa dog barks\thttp://a/1.jpg\r\n"
    b"no address here\r\n"
    b"  rain on a tin roof \thttp://a/2.jpg\textra\r\n"
    b"\thttp://a/3.jpg\r\n"
    b"\r\n"
    b"caf\xe9\thttp://a/4.jpg\r\n"
    b"nor here\r\n"
    b"caf\xc3\xa9 noise\thttp://a/5.jpg\r\n"
    b"\r\n \t\r\n\n"
)
MIXED_TEXTS = ["a dog barks", "rain on a tin roof", "café noise"]
MIXED_COUNTS = {"no tab": 2, "empty caption": 2, "not UTF-8": 1}
MIXED_FIRST = {"no tab": "line 2", "empty caption": "line 4", "not UTF-8": "line 6"}
MIXED_SKIPPED = (
    "5 rows skipped: 2 no tab (first at line 2), 2 empty caption (first at line 4), 1 not UTF-8 (first at line 6)"
)


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def opened(spec: str, data_dir: Path | str = "", manual_dir: Path | str = "") -> Source:
    (source,) = open_sources(spec, str(data_dir), str(manual_dir))
    return source


def texts_of(spec: str, data_dir: Path | str = "", manual_dir: Path | str = "") -> list[str]:
    return list(opened(spec, data_dir, manual_dir).rows())


def message_of(spec: str, data_dir: Path | str = "", manual_dir: Path | str = "") -> str:
    """Returns the error message for a source."""
    with pytest.raises(CaptionError) as caught:
        texts_of(spec, data_dir, manual_dir)
    message = str(caught.value)
    assert "\n" not in message
    return message


def prepared_folder(data_dir: Path) -> Path:
    return data_dir / "conceptual_captions" / "1.0.0"


def test_tsv_keeps_good_rows_and_accounts_for_the_rest(tmp_path):
    source = f"tsv:{write(tmp_path / 'c.tsv', MIXED)}"
    captions = opened(source)
    assert list(captions.rows()) == MIXED_TEXTS
    assert captions.spec == source
    assert captions.skipped.counts == MIXED_COUNTS
    assert captions.skipped.first == MIXED_FIRST
    assert str(captions.skipped) == MIXED_SKIPPED


@pytest.mark.parametrize(
    ("content", "texts", "malformed"),
    [
        (b"one\ntwo", ["one", "two"], {}),
        (b"one\ntwo\n", ["one", "two"], {}),
        (b"one\r\ntwo\r\n\r\n", ["one", "two"], {}),
        (b"\xef\xbb\xbfone\n", ["one"], {}),
        (b"one\n\n \ntwo\n\n", ["one", "two"], {"empty caption": 2}),
        (b"a\ttab stays\n", ["a\ttab stays"], {}),
        (b" outer space goes \n", ["outer space goes"], {}),
        ("a\u2028b\u2029c\x0bd\x85e\x0cf\x1cg\n".encode(), ["a\u2028b\u2029c\x0bd\x85e\x0cf\x1cg"], {}),
        (b"one\rtwo\rthree\r", ["one", "two", "three"], {}),
        (b"one\rtwo\nthree\r\nfour\r\r", ["one", "two", "three", "four"], {}),
        (b"one\r\r\n\ntwo", ["one", "two"], {"empty caption": 2}),
        ("one\n\u00a0\u2003\n".encode(), ["one"], {"empty caption": 1}),
        (b"\xed\xa0\x80\n\xff\nok\n", ["ok"], {"not UTF-8": 2}),
        (b"same\nsame\n", ["same", "same"], {}),
    ],
)
def test_txt_rows(tmp_path, content, texts, malformed):
    captions = opened(f"txt:{write(tmp_path / 'c.txt', content)}")
    assert list(captions.rows()) == texts
    assert captions.skipped.counts == malformed


def test_tsv_rows_end_at_line_ends_only(tmp_path):
    path = write(tmp_path / "c.tsv", "a\u2028b\x0bc\x85d\thttp://x\ne\thttp://y\n".encode())
    assert texts_of(f"tsv:{path}") == ["a\u2028b\x0bc\x85d", "e"]
    path = write(tmp_path / "old_mac.tsv", b"a dog\tu\rrain\tv\rwind\tw\r")
    assert texts_of(f"tsv:{path}") == ["a dog", "rain", "wind"]


def test_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "c.txt", b"one\n")
    assert texts_of("txt:~/c.txt") == ["one"]


def test_prepared_set_has_the_rows_and_keeps_the_counts(tmp_path):
    manual = tmp_path / "manual"
    tsv = write(manual / VALIDATION, MIXED)
    first = opened(SOURCE, tmp_path / "d", manual)
    assert list(first.rows()) == MIXED_TEXTS
    assert str(first.skipped) == MIXED_SKIPPED
    assert first.stamp() == hashlib.sha256(MIXED).hexdigest() == opened(f"tsv:{tsv}").stamp()
    tsv.unlink()
    again = opened(SOURCE, tmp_path / "d", manual)
    assert (list(again.rows()), again.skipped, again.stamp()) == (MIXED_TEXTS, first.skipped, first.stamp())


def test_both_splits_are_prepared_and_the_manual_folder_has_a_default(tmp_path):
    write(tmp_path / "downloads" / "manual" / TRAIN, b"bad\nt1\tu\nt2\tu\n")
    write(tmp_path / "downloads" / "manual" / VALIDATION, b"v1\tu\n\tu\n")
    train, validation = opened("tfds:conceptual_captions:train", tmp_path), opened(SOURCE, tmp_path)
    assert (list(train.rows()), train.skipped.counts) == (["t1", "t2"], {"no tab": 1})
    assert (list(validation.rows()), validation.skipped.counts) == (["v1"], {"empty caption": 1})


def test_builder_keeps_file_order_over_shards_and_carries_addresses(tmp_path):
    write(tmp_path / "manual" / VALIDATION, b"".join(b"row %d\thttp://x/%d\n" % (i, i) for i in range(1000)))
    builder = tfds.builder("conceptual_captions", data_dir=tmp_path, file_format="array_record")
    assert isinstance(builder, ConceptualCaptions)
    config = tfds.download.DownloadConfig(manual_dir=tmp_path / "manual", try_download_gcs=False, num_shards=3)
    builder.download_and_prepare(download_config=config)
    assert len(builder.info.splits["validation"].shard_lengths) == 3
    assert builder.as_data_source(split="validation")[998] == {"caption": b"row 998", "url": b"http://x/998"}
    assert texts_of(SOURCE, tmp_path) == [f"row {i}" for i in range(1000)]


def test_builder_alone_names_the_files_it_wants(tmp_path):
    write(tmp_path / "manual" / "other.tsv", b"a\tb\n")
    builder = ConceptualCaptions(data_dir=tmp_path, file_format="array_record")
    config = tfds.download.DownloadConfig(manual_dir=tmp_path / "manual", try_download_gcs=False)
    with pytest.raises(CaptionError, match=f"{TRAIN} and/or {VALIDATION}"):
        builder.download_and_prepare(download_config=config)


def test_changed_tsv_is_refused_until_one_of_the_two_goes(tmp_path):
    tsv = write(tmp_path / "downloads" / "manual" / VALIDATION, b"one\tu\n")
    texts_of(SOURCE, tmp_path)
    tsv.write_bytes(b"two\tu\n")
    message = message_of(SOURCE, tmp_path)
    assert message.startswith(f"{prepared_folder(tmp_path)} was prepared from another version of {tsv}")
    shutil.rmtree(prepared_folder(tmp_path))
    assert texts_of(SOURCE, tmp_path) == ["two"]


def test_split_that_was_not_prepared(tmp_path):
    manual = tmp_path / "downloads" / "manual"
    write(manual / VALIDATION, b"one\tu\n")
    texts_of(SOURCE, tmp_path)
    assert message_of("tfds:conceptual_captions:train", tmp_path) == (
        f"the set prepared in {prepared_folder(tmp_path)} has no split 'train', only ['validation']: "
        f"put {TRAIN} with the others into {manual} and delete that folder to prepare it again"
    )


@pytest.mark.parametrize("keep_bytes", [None, 2000, 70000])
def test_damaged_prepared_set(tmp_path, keep_bytes):
    rows = b"".join(hashlib.sha512(b"%d" % i).hexdigest().encode() + b"\tu\n" for i in range(2000))
    write(tmp_path / "downloads" / "manual" / VALIDATION, rows)
    texts_of(SOURCE, tmp_path)
    (shard,) = prepared_folder(tmp_path).glob("*.array_record*")
    content = shard.read_bytes()
    shard.unlink()
    if keep_bytes:
        assert keep_bytes < len(content)
        shard.write_bytes(content[:keep_bytes])
    message = message_of(SOURCE, tmp_path)
    assert message.startswith(f"the set prepared in {prepared_folder(tmp_path)} is damaged: ")
    assert message.endswith("; delete that folder to prepare it again")


def test_preparation_without_a_usable_row_leaves_no_set(tmp_path):
    tsv = write(tmp_path / "downloads" / "manual" / VALIDATION, b"none\nnor this\n")
    expected = (
        f"no usable caption in {tsv}: 2 rows skipped: 2 no tab (first at line 1); "
        "expected one caption<TAB>url per line, in UTF-8"
    )
    assert message_of(SOURCE, tmp_path) == expected
    assert not (tmp_path / "conceptual_captions").exists()
    tsv.write_bytes(b"one\tu\n")
    assert texts_of(SOURCE, tmp_path) == ["one"]


def test_killed_preparation_is_not_taken_for_whole(tmp_path):
    tsv = write(tmp_path / "downloads" / "manual" / VALIDATION, b"a caption\thttp://x\n" * 50000)
    code = (
        f"from c2c_jax.data.captions import open_sources; list(open_sources({SOURCE!r}, {str(tmp_path)!r})[0].rows())"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    sets = tmp_path / "conceptual_captions"
    while not list(sets.glob("incomplete.*")):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert sorted(entry.name.split(".")[0] for entry in sets.iterdir()) == ["", "incomplete"]
    tsv.write_bytes(b"one\tu\n")
    assert texts_of(SOURCE, tmp_path) == ["one"]
    assert [entry.name for entry in sets.iterdir()] == ["1.0.0"]


def test_preparing_and_reading_needs_no_tensorflow_and_is_quiet(tmp_path):
    write(tmp_path / "downloads" / "manual" / VALIDATION, MIXED)
    code = (
        "import sys; from c2c_jax.data.captions import CaptionStream, open_sources; "
        f"stream = CaptionStream(open_sources({SOURCE!r}, {str(tmp_path)!r}), drop_duplicates=False); list(stream); "
        "print(*stream.report(), sep=chr(10)); "
        "print([name for name in sys.modules if name.split('.')[0] in ('tensorflow', 'torch')])"
    )
    for preparing in (True, False):
        command = [sys.executable, "-W", "error", "-c", code]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert run.stdout == f"3 captions read from {SOURCE}; {MIXED_SKIPPED}\n[]\n"
        # Only TFDS's progress bars, and only in the first run.
        assert ("Generating splits" in run.stderr) == preparing
        shown = [line for line in run.stderr.replace("\x1b[A", "").replace("\r", "\n").split("\n") if line.strip()]
        assert all(line.lstrip().startswith(("Generating", "Shuffling")) for line in shown)


def test_unknown_sources():
    for spec in ("captions.tsv", "xml:a.xml", "", "txt", "tsv:a.tsv + b.tsv"):
        message = message_of_spec(spec)
        assert message.startswith(f"unknown caption source {spec.rpartition(' + ')[2]!r}; known are txt:PATH, tsv:PATH")
    assert message_of("tfds:conceptual_captions:test") == (
        "no split 'test' in conceptual_captions; its splits are train, validation"
    )
    for spec in ("tfds:conceptual_captions", "tfds:", "tfds:coco@2017:train:text"):
        assert message_of_spec(spec) == f"cannot read {spec!r}; write tfds:NAME[/CONFIG]:SPLIT:FIELD"
    assert message_of_spec("tfds:coco:train") == "'tfds:coco:train' names no field; write tfds:coco:train:FIELD"
    assert message_of_spec("csv:a.csv") == "'csv:a.csv' names no column; write csv:PATH:COLUMN"
    assert message_of_spec("0*txt:a.txt") == "the weight of txt:a.txt is 0; it must be above 0"
    assert message_of_spec("1.2.3*txt:a.txt") == "'1.2.3*txt:a.txt' does not begin with a weight, such as 0.5*"


def message_of_spec(spec: str) -> str:
    with pytest.raises(CaptionError) as caught:
        open_sources(spec)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"\n\n", "it is empty"),
        (b"\xff\n\xfe\n", "2 rows skipped: 2 not UTF-8 (first at line 1)"),
    ],
)
def test_file_without_a_usable_row(tmp_path, content, why):
    path = write(tmp_path / "c.txt", content)
    assert message_of(f"txt:{path}") == f"no usable caption in txt:{path}: {why}"


def test_unreadable_files(tmp_path):
    give = "pass a UTF-8 text file"
    missing = tmp_path / "missing.txt"
    assert message_of(f"txt:{missing}") == f"expected a file of captions at {missing}, found no file; {give}"
    assert message_of(f"tsv:{tmp_path}") == f"expected a file of captions at {tmp_path}, found a folder; {give}"
    os.mkfifo(tmp_path / "pipe.txt")
    assert "found a named pipe" in message_of(f"txt:{tmp_path / 'pipe.txt'}")
    utf16 = write(tmp_path / "c.txt", "one\ntwo\n".encode("utf-16"))
    assert message_of(f"txt:{utf16}") == f"cannot read captions from {utf16}: it is UTF-16; save it as UTF-8"


def test_missing_tsv_says_what_where_and_how(tmp_path):
    assert message_of(SOURCE, tmp_path, tmp_path / "m") == (
        f"Conceptual Captions not found: put {TRAIN} and/or {VALIDATION} from "
        f"https://ai.google.com/research/ConceptualCaptions/download into {tmp_path / 'm'}, "
        "or pass a file of caption<TAB>url rows as tsv:PATH"
    )


@pytest.mark.skipif("C2C_SHARED_DATA" not in os.environ, reason="needs C2C_SHARED_DATA")
def test_real_validation_split(tmp_path):
    folder = Path(os.environ["C2C_SHARED_DATA"])
    rows = (folder / VALIDATION).read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    expected = [row.split("\t")[0] for row in rows]
    assert len(expected) == 15833
    for source in (opened(f"tsv:{folder / VALIDATION}"), opened(SOURCE, tmp_path, folder)):
        assert list(source.rows()) == expected
        assert source.skipped.counts == {}
    stream = CaptionStream([opened(f"tsv:{folder / VALIDATION}")], drop_duplicates=True)
    assert list(stream) == list(dict.fromkeys(expected))
    assert stream.duplicates == [len(expected) - len(set(expected))] == [290]


def test_a_count_of_5000_digits():
    with pytest.raises(CaptionError, match="write miniworld:"):
        open_sources(f"miniworld:{'9' * 5000}")

"""Captions from plain files and from the prepared TFDS set: every row kept or accounted for."""

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

from c2c_jax.data.captions import Captions, fingerprint, load_captions
from c2c_jax.data.conceptual_captions import ConceptualCaptions
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
MIXED_MALFORMED = {"no tab": 2, "empty caption": 2, "not UTF-8": 1}
MIXED_FIRST_LINES = {"no tab": 2, "empty caption": 4, "not UTF-8": 6}
MIXED_LEFT_OUT = (
    "5 rows left out: 2 no tab (first at line 2), 2 empty caption (first at line 4), 1 not UTF-8 (first at line 6)"
)


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def message_of(source: str, data_dir: Path | None = None, manual_dir: Path | None = None) -> str:
    """The one line load_captions refuses with."""
    with pytest.raises(CaptionError) as caught:
        load_captions(source, data_dir and str(data_dir), manual_dir and str(manual_dir))
    message = str(caught.value)
    assert "\n" not in message
    return message


def prepared_folder(data_dir: Path) -> Path:
    return data_dir / "conceptual_captions" / "1.0.0"


def test_tsv_keeps_good_rows_and_accounts_for_the_rest(tmp_path):
    source = f"tsv:{write(tmp_path / 'c.tsv', MIXED)}"
    captions = load_captions(source)
    assert captions.texts == MIXED_TEXTS
    assert captions.source == source
    assert captions.malformed == MIXED_MALFORMED
    assert captions.first_lines == MIXED_FIRST_LINES
    assert captions.report() == f"3 captions read from {source}; {MIXED_LEFT_OUT}"


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
        ("a\u2028b\u2029c\x0bd\x85e\x0cf\x1cg\rh\n".encode(), ["a\u2028b\u2029c\x0bd\x85e\x0cf\x1cg\rh"], {}),
        ("one\n\u00a0\u2003\n".encode(), ["one"], {"empty caption": 1}),
        (b"\xed\xa0\x80\n\xff\nok\n", ["ok"], {"not UTF-8": 2}),
        (b"same\nsame\n", ["same", "same"], {}),
    ],
)
def test_txt_rows(tmp_path, content, texts, malformed):
    captions = load_captions(f"txt:{write(tmp_path / 'c.txt', content)}")
    assert captions.texts == texts
    assert captions.malformed == malformed


def test_tsv_rows_end_at_newline_only(tmp_path):
    path = write(tmp_path / "c.tsv", "a\u2028b\x0bc\x85d\thttp://x\ne\thttp://y\n".encode())
    assert load_captions(f"tsv:{path}").texts == ["a\u2028b\x0bc\x85d", "e"]


def test_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "c.txt", b"one\n")
    assert load_captions("txt:~/c.txt").texts == ["one"]


def test_report_of_one_and_of_thousands():
    assert Captions("txt:a", "", ["x"], {}, {}).report() == "1 caption read from txt:a; no row left out"
    many = Captions("txt:a", "", ["x"] * 15833, {"no tab": 1}, {"no tab": 1017})
    assert many.report() == "15,833 captions read from txt:a; 1 row left out: 1 no tab (first at line 1,017)"


def test_fingerprint_is_sha256_of_the_texts_in_order():
    assert fingerprint(["a", "bé"]) == hashlib.sha256("a\nbé\n".encode()).hexdigest()
    # Across the block boundary, too.
    many = [str(i) for i in range(70000)]
    assert fingerprint(many) == hashlib.sha256("".join(f"{i}\n" for i in range(70000)).encode()).hexdigest()


def test_fingerprint_tells_texts_apart():
    variants = [["ab", "c"], ["a", "bc"], ["abc"], ["c", "ab"], ["ab", "C"], ["ab"], ["ab", "c", "c"], ["ab c"]]
    assert len({fingerprint(texts) for texts in variants}) == len(variants)


def test_prepared_set_has_the_rows_and_keeps_the_counts(tmp_path):
    manual = tmp_path / "manual"
    tsv = write(manual / VALIDATION, MIXED)
    first = load_captions(SOURCE, str(tmp_path / "d"), str(manual))
    assert first.texts == MIXED_TEXTS
    assert first.report() == f"3 captions read from {SOURCE}; {MIXED_LEFT_OUT}"
    assert first.fingerprint == load_captions(f"tsv:{tsv}").fingerprint
    tsv.unlink()
    assert load_captions(SOURCE, str(tmp_path / "d"), str(manual)) == first


def test_both_splits_are_prepared_and_the_manual_folder_has_a_default(tmp_path):
    write(tmp_path / "downloads" / "manual" / TRAIN, b"bad\nt1\tu\nt2\tu\n")
    write(tmp_path / "downloads" / "manual" / VALIDATION, b"v1\tu\n\tu\n")
    train = load_captions("tfds:conceptual_captions:train", str(tmp_path))
    validation = load_captions(SOURCE, str(tmp_path))
    assert (train.texts, train.malformed) == (["t1", "t2"], {"no tab": 1})
    assert (validation.texts, validation.malformed) == (["v1"], {"empty caption": 1})


def test_builder_keeps_file_order_over_shards_and_carries_addresses(tmp_path):
    write(tmp_path / "manual" / VALIDATION, b"".join(b"row %d\thttp://x/%d\n" % (i, i) for i in range(1000)))
    builder = tfds.builder("conceptual_captions", data_dir=tmp_path, file_format="array_record")
    assert isinstance(builder, ConceptualCaptions)
    config = tfds.download.DownloadConfig(manual_dir=tmp_path / "manual", try_download_gcs=False, num_shards=3)
    builder.download_and_prepare(download_config=config)
    assert len(builder.info.splits["validation"].shard_lengths) == 3
    assert builder.as_data_source(split="validation")[998] == {"caption": b"row 998", "url": b"http://x/998"}
    assert load_captions(SOURCE, str(tmp_path)).texts == [f"row {i}" for i in range(1000)]


def test_builder_alone_names_the_files_it_wants(tmp_path):
    write(tmp_path / "manual" / "other.tsv", b"a\tb\n")
    builder = ConceptualCaptions(data_dir=tmp_path, file_format="array_record")
    config = tfds.download.DownloadConfig(manual_dir=tmp_path / "manual", try_download_gcs=False)
    with pytest.raises(CaptionError, match=f"{TRAIN} and/or {VALIDATION}"):
        builder.download_and_prepare(download_config=config)


def test_changed_tsv_is_refused_until_one_of_the_two_goes(tmp_path):
    tsv = write(tmp_path / "downloads" / "manual" / VALIDATION, b"one\tu\n")
    load_captions(SOURCE, str(tmp_path))
    tsv.write_bytes(b"two\tu\n")
    message = message_of(SOURCE, tmp_path)
    assert message.startswith(f"{tsv} is not the file {prepared_folder(tmp_path)} was prepared from")
    shutil.rmtree(prepared_folder(tmp_path))
    assert load_captions(SOURCE, str(tmp_path)).texts == ["two"]


def test_split_that_was_not_prepared(tmp_path):
    manual = tmp_path / "downloads" / "manual"
    write(manual / VALIDATION, b"one\tu\n")
    load_captions(SOURCE, str(tmp_path))
    assert message_of("tfds:conceptual_captions:train", tmp_path) == (
        f"the set prepared in {prepared_folder(tmp_path)} has no split 'train', only ['validation']: "
        f"put {TRAIN} with the others into {manual} and delete that folder to prepare it anew"
    )


@pytest.mark.parametrize("keep_bytes", [None, 2000, 70000])
def test_damaged_prepared_set(tmp_path, keep_bytes):
    rows = b"".join(hashlib.sha512(b"%d" % i).hexdigest().encode() + b"\tu\n" for i in range(2000))
    write(tmp_path / "downloads" / "manual" / VALIDATION, rows)
    load_captions(SOURCE, str(tmp_path))
    (shard,) = prepared_folder(tmp_path).glob("*.array_record*")
    content = shard.read_bytes()
    shard.unlink()
    if keep_bytes:
        assert keep_bytes < len(content)
        shard.write_bytes(content[:keep_bytes])
    message = message_of(SOURCE, tmp_path)
    assert message.startswith(f"the set prepared in {prepared_folder(tmp_path)} is damaged: ")
    assert message.endswith("; delete that folder to prepare it anew")


def test_preparation_without_a_usable_row_leaves_no_set(tmp_path):
    tsv = write(tmp_path / "downloads" / "manual" / VALIDATION, b"none\nnor this\n")
    expected = (
        f"no usable caption in {tsv}: 2 rows left out: 2 no tab (first at line 1); "
        "expected one caption<TAB>url a line, in UTF-8"
    )
    assert message_of(SOURCE, tmp_path) == expected
    assert list((tmp_path / "conceptual_captions").iterdir()) == []
    tsv.write_bytes(b"one\tu\n")
    assert load_captions(SOURCE, str(tmp_path)).texts == ["one"]


def test_killed_preparation_is_not_taken_for_whole(tmp_path):
    tsv = write(tmp_path / "downloads" / "manual" / VALIDATION, b"a caption\thttp://x\n" * 50000)
    code = f"from c2c_jax.data.captions import load_captions; load_captions({SOURCE!r}, {str(tmp_path)!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    sets = tmp_path / "conceptual_captions"
    while not list(sets.glob("incomplete.*")):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert [entry.name.split(".")[0] for entry in sets.iterdir()] == ["incomplete"]
    tsv.write_bytes(b"one\tu\n")
    assert load_captions(SOURCE, str(tmp_path)).texts == ["one"]


def test_preparing_and_reading_needs_no_tensorflow_and_is_quiet(tmp_path):
    write(tmp_path / "downloads" / "manual" / VALIDATION, MIXED)
    code = (
        "import sys; from c2c_jax.data.captions import load_captions; "
        f"print(load_captions({SOURCE!r}, {str(tmp_path)!r}).report()); "
        "print([name for name in sys.modules if name.split('.')[0] in ('tensorflow', 'torch')])"
    )
    for preparing in (True, False):
        command = [sys.executable, "-W", "error", "-c", code]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert run.stdout == f"3 captions read from {SOURCE}; {MIXED_LEFT_OUT}\n[]\n"
        # Only TFDS's progress bars, and only in the first run.
        assert ("Generating splits" in run.stderr) == preparing
        shown = [line for line in run.stderr.replace("\x1b[A", "").replace("\r", "\n").split("\n") if line.strip()]
        assert all(line.lstrip().startswith(("Generating", "Shuffling")) for line in shown)


def test_unknown_sources():
    known = "known: tfds:conceptual_captions:SPLIT, tsv:PATH or txt:PATH"
    assert message_of("csv:a.csv") == f"unknown caption source 'csv:a.csv'; {known}"
    assert message_of("captions.tsv") == f"unknown caption source 'captions.tsv'; {known}"
    assert message_of("tfds:coco:train") == f"unknown TFDS captions 'coco' in 'tfds:coco:train'; {known}"
    assert message_of("tfds:conceptual_captions:test") == (
        "no split 'test' in conceptual_captions; there are train, validation"
    )
    assert message_of("tfds:conceptual_captions") == ("no split '' in conceptual_captions; there are train, validation")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty; expected one caption a line, in UTF-8"),
        (b"\n\n", "the file is empty; expected one caption a line, in UTF-8"),
        (
            b"\xff\n\xfe\n",
            "2 rows left out: 2 not UTF-8 (first at line 1); expected one caption a line, in UTF-8",
        ),
    ],
)
def test_file_without_a_usable_row(tmp_path, content, why):
    path = write(tmp_path / "c.txt", content)
    assert message_of(f"txt:{path}") == f"no usable caption in {path}: {why}"


def test_unreadable_files(tmp_path):
    give = "give a UTF-8 text file"
    missing = tmp_path / "missing.txt"
    assert message_of(f"txt:{missing}") == f"cannot read captions from {missing}: No such file or directory; {give}"
    assert message_of(f"tsv:{tmp_path}") == f"cannot read captions from {tmp_path}: Is a directory; {give}"
    utf16 = write(tmp_path / "c.txt", "one\ntwo\n".encode("utf-16"))
    assert message_of(f"txt:{utf16}") == f"cannot read captions from {utf16}: it is UTF-16; save it as UTF-8"


def test_missing_tsv_says_what_where_and_how(tmp_path):
    assert message_of(SOURCE, tmp_path, tmp_path / "m") == (
        f"Conceptual Captions not found: put {TRAIN} and/or {VALIDATION} from "
        f"https://ai.google.com/research/ConceptualCaptions/download into {tmp_path / 'm'}, "
        "or name a file of caption<TAB>url rows as tsv:PATH"
    )


@pytest.mark.skipif("C2C_SHARED_DATA" not in os.environ, reason="needs C2C_SHARED_DATA")
def test_real_validation_split(tmp_path):
    folder = Path(os.environ["C2C_SHARED_DATA"])
    rows = (folder / VALIDATION).read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    expected = [row.split("\t")[0] for row in rows]
    assert len(expected) == 15833
    plain = load_captions(f"tsv:{folder / VALIDATION}")
    prepared = load_captions(SOURCE, str(tmp_path), str(folder))
    assert plain.texts == expected
    assert prepared.texts == expected
    assert plain.malformed == prepared.malformed == {}
    assert plain.fingerprint == prepared.fingerprint

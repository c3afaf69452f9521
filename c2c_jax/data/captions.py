"""All sources of captions behind one function: the prepared Conceptual Captions set and plain files."""

import contextlib
import dataclasses
import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from c2c_jax.data.conceptual_captions import (
    TSV_FILES,
    ConceptualCaptions,
    describe_left_out,
    file_sha256,
    missing_tsv,
    read_rows,
)
from c2c_jax.errors import CaptionError

SOURCES = "tfds:conceptual_captions:SPLIT, tsv:PATH or txt:PATH"
# Records read and texts hashed at a time: large enough that Python's cost per block vanishes.
BLOCK = 65536


@dataclasses.dataclass
class Captions:
    """The captions of one source, in its order, with what had to be left out.

    source: the spec as given, e.g. `tsv:captions.tsv`.
    fingerprint: SHA-256 in hex of all texts in order; it depends on nothing else.
    texts: the captions, without outer whitespace, none empty.
    malformed: reason ("not UTF-8", "no tab", "empty caption") to the number of rows left out for it.
    first_lines: reason to the number of the first such line in the source's file, counted from 1.
    """

    source: str
    fingerprint: str
    texts: Sequence[str]
    malformed: dict[str, int]
    first_lines: dict[str, int]

    def report(self) -> str:
        """One line for people: how many captions from where, how many rows left out and why."""
        plural = "s" if len(self.texts) > 1 else ""
        left_out = describe_left_out(self.malformed, self.first_lines)
        return f"{len(self.texts):,} caption{plural} read from {self.source}; {left_out}"


def load_captions(source: str, data_dir: str | None = None, manual_dir: str | None = None) -> Captions:
    """Reads all captions of `source`; rows that cannot be used are counted in the result, not raised.

    source: `tfds:conceptual_captions:SPLIT` (prepared at first use, without TensorFlow, and reused), `tsv:PATH`
        (the first of two or more tab-separated columns) or `txt:PATH` (one caption a line).
    data_dir: where TFDS keeps prepared sets; None is TFDS's own default.
    manual_dir: where Google's TSV files lie; None is `data_dir/downloads/manual`.

    Errors: CaptionError for a source, split or file that is not there, a file without a usable row, and a prepared
    set that is damaged or whose TSV file has changed since.
    """
    kind, _, rest = source.partition(":")
    malformed: dict[str, int] = {}
    first_lines: dict[str, int] = {}
    if kind in ("tsv", "txt"):
        rows = read_rows(Path(rest).expanduser(), kind == "tsv", malformed, first_lines)
        texts = [caption for caption, _ in rows]
    elif kind == "tfds":
        name, _, split = rest.partition(":")
        if name != ConceptualCaptions.name:
            raise CaptionError(f"unknown TFDS captions {name!r} in {source!r}; known: {SOURCES}")
        builder = _prepared(split, data_dir, manual_dir)
        texts = _read_prepared(builder, split)
        malformed, first_lines = (builder.info.metadata[split][key] for key in ("malformed", "first_lines"))
    else:
        raise CaptionError(f"unknown caption source {source!r}; known: {SOURCES}")
    return Captions(source, fingerprint(texts), texts, malformed, first_lines)


def captions_stamp(source: str, data_dir: str | None = None, manual_dir: str | None = None) -> str:
    """SHA-256 of the file that a source's captions come from: tells a changed file without parsing its captions.

    Arguments and errors as `load_captions`; a TFDS set that is not there yet is prepared.
    """
    kind, _, rest = source.partition(":")
    if kind == "tfds":
        _, _, split = rest.partition(":")
        return _prepared(split, data_dir, manual_dir).info.metadata[split]["sha256"]
    try:
        return file_sha256(Path(rest).expanduser())
    except OSError as error:
        raise CaptionError(f"cannot read captions from {rest}: {error.strerror}; give a UTF-8 text file") from error


def fingerprint(texts: Sequence[str]) -> str:
    r"""SHA-256 in hex of the texts in order, each ended by \n, which none holds since it ends their rows."""
    digest = hashlib.sha256()
    for start in range(0, len(texts), BLOCK):
        digest.update("".join(f"{text}\n" for text in texts[start : start + BLOCK]).encode("utf-8"))
    return digest.hexdigest()


def _prepared(split: str, data_dir: str | None, manual_dir: str | None) -> ConceptualCaptions:
    """The builder of a set on disk that has `split` and still fits its TSV file, where that is there."""
    if split not in TSV_FILES:
        raise CaptionError(f"no split {split!r} in conceptual_captions; there are {', '.join(TSV_FILES)}")
    builder = ConceptualCaptions(data_dir=data_dir and os.path.expanduser(data_dir), file_format="array_record")
    manual = Path(os.path.expanduser(manual_dir or builder.data_dir_root / "downloads" / "manual"))
    tsv = manual / TSV_FILES[split]
    if not builder.data_path.exists():
        if not tsv.is_file():
            raise CaptionError(missing_tsv(manual))
        config = tfds.download.DownloadConfig(manual_dir=manual, try_download_gcs=False)
        # TFDS prints two lines about downloads there are none of; its progress bars go to stderr.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_config=config)
    if split not in builder.info.splits:
        raise CaptionError(
            f"the set prepared in {builder.data_dir} has no split {split!r}, only {list(builder.info.splits)}: "
            f"put {tsv.name} with the others into {manual} and delete that folder to prepare it anew"
        )
    if tsv.is_file() and file_sha256(tsv) != builder.info.metadata[split]["sha256"]:
        raise CaptionError(
            f"{tsv} is not the file {builder.data_dir} was prepared from: delete that folder to prepare it anew, "
            f"or take the file away to go on with the prepared captions"
        )
    return builder


def _read_prepared(builder: ConceptualCaptions, split: str) -> list[str]:
    """The captions of a prepared split, in order.

    Parses the records itself, with TFDS's own message class: decoding them through TFDS is seven times slower.
    """
    records = builder.as_data_source(split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    texts: list[str] = []
    for start in range(0, len(records), BLOCK):
        try:
            block = records.__getitems__(range(start, min(start + BLOCK, len(records))))
        except RuntimeError as error:
            raise CaptionError(
                f"the set prepared in {builder.data_dir} is damaged: {error}; delete that folder to prepare it anew"
            ) from error
        for record in block:
            features = tf_example_pb2.Example.FromString(record).features.feature
            texts.append(features["caption"].bytes_list.value[0].decode("utf-8"))
    return texts

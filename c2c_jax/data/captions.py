"""All sources of captions behind one grammar: files, TFDS sets, Hugging Face datasets, the mini world."""

import dataclasses
import glob
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from tensorflow_datasets.core import read_only_builder
from tensorflow_datasets.proto import tf_example_pb2

from c2c_jax.data.conceptual_captions import TSV_FILES, ConceptualCaptions, missing_tsv
from c2c_jax.data.rows import LeftOut, file_sha256, read_csv, read_jsonl, read_tsv, read_txt, texts_of
from c2c_jax.errors import CaptionError, one_line
from c2c_jax.io.files import matching, user_path
from c2c_jax.io.tfds import prepare
from c2c_jax.miniworld.captions import STYLES, captions

KNOWN = (
    "tfds:NAME[/CONFIG]:SPLIT:FIELD, hf:NAME[@CONFIG]:SPLIT:FIELD, tsv:PATH, txt:PATH, csv:PATH:COLUMN, "
    "jsonl:PATH:FIELD or miniworld:[SPLIT:]COUNT[:STYLE], several joined by ' + ', each with a WEIGHT* before it if "
    "wanted"
)
BLOCK = 65536  # records read at a time: large enough that Python's cost per block vanishes
# A slice of a split has a colon of its own: train[:1000].
_SET = re.compile(r"(?P<name>[^:@]+)(?:@(?P<config>[^:]+))?:(?P<split>(?:[^:\[]|\[[^\]]*\])+)(?::(?P<field>.+))?")


class Source:
    """One source of captions. spec: as given, weight aside. weight: its part of a mixture; None: it was given none.

    left_out: the rows of the last reading that are no captions.
    """

    def __init__(self, spec: str, weight: float | None = None):
        self.spec, self.weight = spec, weight
        self.left_out = LeftOut()

    def stamp(self) -> str:
        """What tells changed content without parsing its captions: a SHA-256 in hex, or the library's own mark."""
        raise NotImplementedError

    def rows(self) -> Iterator[str]:
        """The captions in order, without outer whitespace, none empty, none with a line end; fills `left_out`.

        Raises CaptionError for what is not there or cannot be read.
        """
        raise NotImplementedError


class Files(Source):
    """`tsv:PATH` (first of two or more columns), `txt:PATH`, `csv:PATH:COLUMN`, `jsonl:PATH:FIELD`; PATH may be a
    glob, whose files are read in the order of their names."""

    FORMS = {"tsv": "caption<TAB>url a line", "txt": "caption a line", "csv": "record a row", "jsonl": "object a line"}

    def __init__(self, spec: str, weight: float | None = None):
        super().__init__(spec, weight)
        self.kind, _, path = spec.partition(":")
        self.field = ""
        if self.kind in ("csv", "jsonl"):
            path, _, self.field = path.rpartition(":")
            if not path:
                raise CaptionError(f"{spec!r} names no {'column' if self.kind == 'csv' else 'field'}; known: {KNOWN}")
        self.path = os.path.expanduser(path)

    def paths(self) -> list[Path]:
        if not glob.has_magic(self.path) or os.path.exists(self.path):
            return [Path(self.path)]
        found = sorted(matching(self.path), key=str)
        if not found:
            raise CaptionError(f"cannot read captions from {self.path}: no file has such a name")
        return found

    def stamp(self) -> str:
        digests = [file_sha256(path) for path in self.paths()]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def rows(self) -> Iterator[str]:
        self.left_out, paths, good = LeftOut(), self.paths(), 0
        for path in paths:
            for caption in self._read(path, f" of {path.name}" if len(paths) > 1 else ""):
                good += 1
                yield caption
        if not good:
            why = str(self.left_out) if self.left_out.counts else "the file is empty"
            raise CaptionError(
                f"no usable caption in {self.path}: {why}; expected one {self.FORMS[self.kind]}, in UTF-8"
            )

    def _read(self, path: Path, of: str) -> Iterator[str]:
        if self.kind == "tsv":
            return (caption for caption, _ in read_tsv(path, self.left_out, of))
        if self.kind == "txt":
            return read_txt(path, self.left_out, of)
        read = read_csv if self.kind == "csv" else read_jsonl
        return read(path, self.field, self.left_out, of)


class TFDS(Source):
    """`tfds:NAME[/CONFIG]:SPLIT:FIELD`: a set prepared as ArrayRecord, read without TensorFlow.

    FIELD is the feature's name, with `/` into nested ones (`captions/text`); each text of a sequence is a row.
    `tfds:conceptual_captions:SPLIT` is prepared at first use from Google's TSV files, `tfds:miniworld/captions:SPLIT`
    out of nothing.
    data_dir: where TFDS keeps prepared sets. manual_dir: where Google's files lie. "": TFDS's own defaults.
    """

    def __init__(self, spec: str, weight: float | None = None, data_dir: str = "", manual_dir: str = ""):
        super().__init__(spec, weight)
        match = _SET.fullmatch(spec.removeprefix("tfds:"))
        if not match or match["config"]:
            raise CaptionError(f"cannot read {spec!r}; known: {KNOWN}")
        self.name, self.split, self.field = match["name"], match["split"], match["field"] or ""
        self.data_dir, self.manual_dir = data_dir, manual_dir
        if self.name == ConceptualCaptions.name or self.name.startswith("miniworld/"):
            self.field = self.field or "caption"
        elif not self.field:
            raise CaptionError(f"{spec!r} names no field; write tfds:{self.name}:{self.split}:FIELD")

    def stamp(self) -> str:
        builder = self._builder()
        if self.name == ConceptualCaptions.name and self.split in TSV_FILES:
            return _made_from(builder, self.split).sha256
        splits = sorted((name, split.num_bytes, split.shard_lengths) for name, split in builder.info.splits.items())
        return hashlib.sha256(repr((builder.info.full_name, splits)).encode()).hexdigest()

    def rows(self) -> Iterator[str]:
        """Parses the records with TFDS's own message class: decoding them through TFDS is seven times slower, and
        would decode pictures that nobody asked for."""
        builder = self._builder()
        self.left_out = LeftOut()
        if self.name == ConceptualCaptions.name and self.split in TSV_FILES:
            self.left_out = _made_from(builder, self.split).left_out
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        try:
            records: Any = builder.as_data_source(split=self.split, deserialize_method=raw)
        except (ValueError, NotImplementedError) as error:  # an unknown split, or files of another format
            cause = one_line(error)
            raise CaptionError(f"{self.spec}: {cause}; splits are {', '.join(builder.info.splits)}") from error
        good = 0
        for start in range(0, len(records), BLOCK):
            try:
                block = records.__getitems__(range(start, min(start + BLOCK, len(records))))
            except RuntimeError as error:
                raise _damaged(builder, error) from error
            for number, record in enumerate(block, start):
                try:
                    captions = list(self._captions(record, number))
                except DecodeError as error:
                    raise _damaged(builder, error) from error
                good += len(captions)
                yield from captions
        if not good:
            raise CaptionError(f"no usable caption in {self.spec}: {self.left_out}")

    def _captions(self, record: bytes, number: int) -> Iterator[str]:
        features = tf_example_pb2.Example.FromString(record).features.feature
        if self.field not in features:
            texts = ", ".join(sorted(name for name, value in features.items() if value.bytes_list.value))
            raise CaptionError(f"{self.spec}: records have no field {self.field!r}; those with bytes are {texts}")
        for value in features[self.field].bytes_list.value:
            yield from texts_of(value.decode("utf-8", "surrogateescape"), self.left_out, f"record {number:,}")

    def _builder(self) -> Any:
        data_dir = str(user_path(self.data_dir)) if self.data_dir else None
        if self.name == ConceptualCaptions.name:
            return _prepared(self.split, data_dir, self.manual_dir)
        if self.name.startswith("miniworld/"):
            from c2c_jax.miniworld.dataset import prepared

            return prepared(self.name.removeprefix("miniworld/"), data_dir)
        try:
            return read_only_builder.builder_from_files(
                self.name.partition("/")[0], config=self.name.partition("/")[2] or None, data_dir=data_dir
            )
        except tfds.core.DatasetNotFoundError:
            folder = data_dir or "TFDS's own folder"
            raise CaptionError(
                f"no set {self.name} is prepared in {folder}: prepare it with tfds.builder({self.name!r}, "
                f"data_dir=..., file_format='array_record').download_and_prepare(), or name its --config.data.data_dir"
            ) from None


@dataclasses.dataclass(frozen=True)
class _MadeFrom:
    """What a split of Conceptual Captions was prepared from."""

    sha256: str
    left_out: LeftOut


def _made_from(builder: ConceptualCaptions, split: str) -> _MadeFrom:
    try:
        return msgspec.convert((builder.info.metadata or {}).get(split), _MadeFrom)
    except msgspec.ValidationError as error:
        raise _damaged(builder, error) from None


def _damaged(builder: Any, error: Exception) -> CaptionError:
    cause = " ".join(str(error).split())
    return CaptionError(
        f"the set prepared in {builder.data_dir} is damaged: {cause}; delete that folder to prepare it again"
    )


def _prepared(split: str, data_dir: str | None, manual_dir: str) -> ConceptualCaptions:
    """The builder of Conceptual Captions on disk that has `split` and still fits its TSV file, where that is there."""
    name = re.split(r"[\[+]", split)[0]
    if name not in TSV_FILES:
        raise CaptionError(f"no split {split!r} in conceptual_captions; there are {', '.join(TSV_FILES)}")
    builder = ConceptualCaptions(data_dir=data_dir, file_format="array_record")
    manual = user_path(str(manual_dir or builder.data_dir_root / "downloads" / "manual"))
    tsv = manual / TSV_FILES[name]
    if not builder.data_path.exists():
        if not tsv.is_file():
            raise CaptionError(missing_tsv(manual))
        prepare(builder, tfds.download.DownloadConfig(manual_dir=manual, try_download_gcs=False))
    if name not in builder.info.splits:
        raise CaptionError(
            f"the set prepared in {builder.data_dir} has no split {name!r}, only {list(builder.info.splits)}: "
            f"put {tsv.name} with the others into {manual} and delete that folder to prepare it again"
        )
    if tsv.is_file() and file_sha256(tsv) != _made_from(builder, name).sha256:
        raise CaptionError(
            f"{tsv} is not the file {builder.data_dir} was prepared from: delete that folder to prepare it again, "
            f"or take the file away to go on with the prepared captions"
        )
    return builder


class HuggingFace(Source):
    """`hf:NAME[@CONFIG]:SPLIT:FIELD`: a dataset of the hub, of its cache, or a local folder, by the `datasets` library.

    FIELD is a column of texts or of lists of texts, each of which is a row.
    """

    def __init__(self, spec: str, weight: float | None = None):
        super().__init__(spec, weight)
        match = _SET.fullmatch(spec.removeprefix("hf:"))
        if not match or not match["field"]:
            raise CaptionError(f"cannot read {spec!r}; write hf:NAME[@CONFIG]:SPLIT:FIELD")
        self.name, self.config = match["name"], match["config"]
        self.split, self.field = match["split"], match["field"]
        self._dataset: Any = None

    def stamp(self) -> str:
        return self._loaded()._fingerprint

    def rows(self) -> Iterator[str]:
        dataset = self._loaded()
        self.left_out, number, good = LeftOut(), 0, 0
        for block in dataset.select_columns(self.field).iter(batch_size=1024):
            for value in block[self.field]:
                for caption in texts_of(value, self.left_out, f"record {number:,}"):
                    good += 1
                    yield caption
                number += 1
        if not good:
            raise CaptionError(f"no usable caption in {self.spec}: {self.left_out}")

    def _loaded(self) -> Any:
        if self._dataset is not None:
            return self._dataset
        try:
            import datasets
        except ImportError:
            raise CaptionError(f"{self.spec} needs the datasets library: pip install 'c2c_jax[hf]'") from None
        name = os.path.expanduser(self.name)
        try:
            dataset = datasets.load_dataset(name, self.config, split=self.split, trust_remote_code=False)
        except Exception as error:  # the library raises two dozen kinds, and says in the first line what is wrong
            raise CaptionError(f"{self.spec}: {one_line(error):.500}") from error
        if self.field not in dataset.column_names:
            raise CaptionError(
                f"{self.spec}: there is no column {self.field!r}; its columns are {', '.join(dataset.column_names)}"
            )
        self._dataset = dataset
        return dataset


class Miniworld(Source):
    """`miniworld:[SPLIT:]COUNT[:STYLE]`: captions of the mini world, made as they are read. SPLIT: train unless given.
    STYLE: picture, sound or mixed; all three unless given."""

    FORM = re.compile(
        r"miniworld:(?:(?P<split>train|validation|test):)?(?P<count>[1-9][0-9]{0,11})(?::(?P<style>\w+))?"
    )

    def __init__(self, spec: str, weight: float | None = None):
        super().__init__(spec, weight)
        match = self.FORM.fullmatch(spec)
        if not match or match["style"] not in (None, *STYLES):
            raise CaptionError(
                f"cannot read {spec!r}; write miniworld:[train|validation|test:]COUNT[:{'|'.join(STYLES)}]"
            )
        self.split, self.count = match["split"] or "train", int(match["count"])
        self.styles = (match["style"],) if match["style"] else STYLES

    def stamp(self) -> str:
        """Of the first captions, which another grammar would not give."""
        first = captions(self.split, min(self.count, 4096), styles=self.styles)
        return hashlib.sha256("\n".join((self.spec, *first)).encode()).hexdigest()

    def rows(self) -> Iterator[str]:
        self.left_out = LeftOut()
        return captions(self.split, self.count, styles=self.styles)


def open_sources(spec: str, data_dir: str = "", manual_dir: str = "") -> list[Source]:
    """The sources that a spec names, not yet read. Raises CaptionError for a spec outside the grammar (`KNOWN`).

    data_dir: where TFDS keeps prepared sets. manual_dir: where Google's TSV files lie. "": TFDS's own defaults.
    """
    sources: list[Source] = []
    for part in spec.split(" + "):
        weight, name = re.fullmatch(r"(?:([0-9.]+)\*(?=\w+:))?(.*)", part.strip(), re.DOTALL).groups()  # type: ignore[union-attr]
        try:
            share = None if weight is None else float(weight)
        except ValueError:
            raise CaptionError(f"{weight!r} in {part!r} is no weight") from None
        if share is not None and not share > 0:
            raise CaptionError(f"weight {weight} of {name} must be above 0")
        kind = name.partition(":")[0]
        if kind in Files.FORMS:
            sources.append(Files(name, share))
        elif kind == "tfds":
            sources.append(TFDS(name, share, data_dir, manual_dir))
        elif kind == "hf":
            sources.append(HuggingFace(name, share))
        elif kind == "miniworld":
            sources.append(Miniworld(name, share))
        else:
            raise CaptionError(f"unknown caption source {name!r}; known: {KNOWN}")
    return sources

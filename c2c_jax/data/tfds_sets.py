"""TFDS data sets on disk, prepared at first use where that needs no network. Imports TFDS, which takes a second.

Once this module is imported, `tfds.builder("conceptual_captions")` knows Google's Conceptual Captions.
"""

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder

from c2c_jax.data.caption_files import file_sha256, tsv_rows
from c2c_jax.data.sources import Skipped, captions_in
from c2c_jax.errors import CaptionError
from c2c_jax.io.files import user_path
from c2c_jax.io.tfds import prepare

TSV_FILES = {"train": "Train_GCC-training.tsv", "validation": "Validation_GCC-1.1.0-Validation.tsv"}
OFFERED_AT = "https://ai.google.com/research/ConceptualCaptions/download"


class ConceptualCaptions(tfds.core.GeneratorBasedBuilder):
    """TFDS builder for Google's TSV files in TFDS's manual folder: `train`, `validation` or both.

    Record i of a split is the i-th good row of its file. `info.metadata[split]` has the fields of `MadeFrom`.

    Raises CaptionError if neither file is there, or one has no usable row.
    Source: Sharma et al., "Conceptual Captions", ACL 2018.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Put {' and/or '.join(TSV_FILES.values())} from {OFFERED_AT} into the manual folder."
    )
    # Nothing is downloaded, so there are no checksums; TFDS would look for them with importlib_resources, a package
    # it needs for that but does not install on this Python.
    url_infos = None

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Captions of images on the web, and the images' addresses (GCC, CC3M).",
            homepage=OFFERED_AT,
            features=tfds.features.FeaturesDict({"caption": tfds.features.Text(), "url": tfds.features.Text()}),
            metadata=tfds.core.MetadataDict(),
            # Keeps the order of the file: line numbers, records and rows of an embedding store then go together.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        found = {split: Path(dl_manager.manual_dir) / name for split, name in TSV_FILES.items()}
        found = {split: path for split, path in found.items() if path.is_file()}
        if not found:
            raise CaptionError(_missing_tsv(dl_manager.manual_dir))
        return {split: self._generate_examples(split, path) for split, path in found.items()}

    def _generate_examples(self, split: str, path: Path) -> Iterator[tuple[int, dict[str, str]]]:
        skipped, row = Skipped(), 0
        for number, value, url in tsv_rows(path):
            for caption in captions_in(value, skipped, f"line {number:,}"):
                yield row, {"caption": caption, "url": url}
                row += 1
        if not row:
            raise CaptionError(f"no usable caption in {path}: {skipped}; expected one caption<TAB>url a line, in UTF-8")
        # TFDS writes the metadata after the last record, so these counts are on disk for every later run.
        self.info.metadata[split] = {"sha256": file_sha256(path), "left_out": dataclasses.asdict(skipped)}


@dataclasses.dataclass(frozen=True)
class PreparedFrom:
    """The TSV file that a split of Conceptual Captions was prepared from. left_out: its skipped rows."""

    sha256: str
    left_out: Skipped


def prepared_from(builder: Any, split: str) -> PreparedFrom | None:
    """The file that a whole split was prepared from; None for a slice of a split and for other data sets."""
    if not isinstance(builder, ConceptualCaptions) or split not in TSV_FILES:
        return None
    try:
        return msgspec.convert((builder.info.metadata or {}).get(split), PreparedFrom)
    except msgspec.ValidationError as error:
        raise damaged(builder, error) from None


def damaged(builder: Any, error: Exception) -> CaptionError:
    """The error to raise for a data set whose files cannot be read."""
    cause = " ".join(str(error).split())
    return CaptionError(
        f"the set prepared in {builder.data_dir} is damaged: {cause}; delete that folder to prepare it again"
    )


def open_dataset(name: str, split: str, data_dir: str, manual_dir: str) -> Any:
    """The TFDS builder of a data set on disk; Conceptual Captions and the mini world are prepared if they are missing.

    name: `NAME` or `NAME/CONFIG`. split: of Conceptual Captions; it must be prepared. data_dir, manual_dir: as in
    `Source`. Raises CaptionError if the data set is not there.
    """
    folder = str(user_path(data_dir)) if data_dir else None
    if name == ConceptualCaptions.name:
        return _conceptual_captions(split, folder, manual_dir)
    dataset, _, config = name.partition("/")
    if dataset == "miniworld" and config:
        from c2c_jax.miniworld.dataset import prepared

        return prepared(config, folder)
    try:
        return read_only_builder.builder_from_files(dataset, config=config or None, data_dir=folder)
    except tfds.core.DatasetNotFoundError:
        raise CaptionError(
            f"no set {name} is prepared in {folder or 'the default folder of TFDS'}: prepare it with "
            f"tfds.builder({name!r}, data_dir=..., file_format='array_record').download_and_prepare(), or name its "
            "--config.data.data_dir"
        ) from None


def _conceptual_captions(split: str, data_dir: str | None, manual_dir: str) -> ConceptualCaptions:
    """The builder with `split` prepared. Raises CaptionError if the TSV file is there and is another one now."""
    name = re.split(r"[\[+]", split)[0]
    if name not in TSV_FILES:
        raise CaptionError(f"no split {split!r} in conceptual_captions; there are {', '.join(TSV_FILES)}")
    builder = ConceptualCaptions(data_dir=data_dir, file_format="array_record")
    manual = user_path(str(manual_dir or builder.data_dir_root / "downloads" / "manual"))
    tsv = manual / TSV_FILES[name]
    if not builder.data_path.exists():
        if not tsv.is_file():
            raise CaptionError(_missing_tsv(manual))
        prepare(builder, tfds.download.DownloadConfig(manual_dir=manual, try_download_gcs=False))
    if name not in builder.info.splits:
        raise CaptionError(
            f"the set prepared in {builder.data_dir} has no split {name!r}, only {list(builder.info.splits)}: "
            f"put {tsv.name} with the others into {manual} and delete that folder to prepare it again"
        )
    made = prepared_from(builder, name)
    if made and tsv.is_file() and file_sha256(tsv) != made.sha256:
        raise CaptionError(
            f"{builder.data_dir} was prepared from another file than {tsv}: delete that folder to prepare it again, "
            f"or move the file away to use the prepared captions"
        )
    return builder


def _missing_tsv(manual_dir: os.PathLike) -> str:
    train, validation = TSV_FILES.values()
    return (
        f"Conceptual Captions not found: put {train} and/or {validation} from {OFFERED_AT} into {manual_dir}, "
        f"or name a file of caption<TAB>url rows as tsv:PATH"
    )

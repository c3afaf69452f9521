"""Opens TFDS data sets on disk, and prepares them at first use if that needs no network. Importing TFDS takes a second.

Importing this module registers Google's Conceptual Captions as `tfds.builder("conceptual_captions")`.
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
    """TFDS builder for Conceptual Captions: splits `train`, `validation` or both, from TSV files in the manual folder.

    Record i of a split is the i-th usable row of its file. `info.metadata[split]` has the fields of `PreparedFrom`.

    Raises CaptionError if neither file is there, or one has no usable row.
    Source: Sharma et al., "Conceptual Captions", ACL 2018.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Put {' and/or '.join(TSV_FILES.values())} from {OFFERED_AT} into the manual folder."
    )
    # Nothing is downloaded, so there are no checksums. Without this, TFDS would look for them with importlib_resources,
    # which it does not install on this Python.
    url_infos = None

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Captions of images on the web, and the images' addresses (GCC, CC3M).",
            homepage=OFFERED_AT,
            features=tfds.features.FeaturesDict({"caption": tfds.features.Text(), "url": tfds.features.Text()}),
            metadata=tfds.core.MetadataDict(),
            # Keeps the order of the file, so that line numbers, records and rows of an embedding store agree.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        paths = {split: Path(dl_manager.manual_dir) / name for split, name in TSV_FILES.items()}
        paths = {split: path for split, path in paths.items() if path.is_file()}
        if not paths:
            raise CaptionError(_missing_tsv(dl_manager.manual_dir))
        return {split: self._generate_examples(split, path) for split, path in paths.items()}

    def _generate_examples(self, split: str, path: Path) -> Iterator[tuple[int, dict[str, str]]]:
        skipped, row = Skipped(), 0
        for number, value, url in tsv_rows(path):
            for caption in captions_in(value, skipped, f"line {number:,}"):
                yield row, {"caption": caption, "url": url}
                row += 1
        if not row:
            raise CaptionError(
                f"no usable caption in {path}: {skipped}; expected one caption<TAB>url per line, in UTF-8"
            )
        # TFDS writes the metadata after the last record, so later runs can read these counts.
        self.info.metadata[split] = {"sha256": file_sha256(path), "left_out": dataclasses.asdict(skipped)}


@dataclasses.dataclass(frozen=True)
class PreparedFrom:
    """The TSV file that a split of Conceptual Captions was prepared from. left_out: its skipped rows."""

    sha256: str
    left_out: Skipped


def prepared_from(builder: Any, split: str) -> PreparedFrom | None:
    """Reads which file a whole split was prepared from; None for a slice of a split and for other data sets."""
    if not isinstance(builder, ConceptualCaptions) or split not in TSV_FILES:
        return None
    try:
        return msgspec.convert((builder.info.metadata or {}).get(split), PreparedFrom)
    except msgspec.ValidationError as error:
        raise damage_error(builder, error) from None


def damage_error(builder: Any, error: Exception) -> CaptionError:
    """Makes the error for a data set whose files cannot be read."""
    cause = " ".join(str(error).split())
    return CaptionError(
        f"the set prepared in {builder.data_dir} is damaged: {cause}; delete that folder to prepare it again"
    )


def open_dataset(name: str, split: str, data_dir: str, manual_dir: str) -> Any:
    """Opens the TFDS builder of a data set on disk. Conceptual Captions and the mini world are prepared if missing.

    name: `NAME` or `NAME/CONFIG`. split: must exist in Conceptual Captions; ignored for other data sets. data_dir,
    manual_dir: as in `Source`. Raises CaptionError if the data set is missing.
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
            f"tfds.builder({name!r}, data_dir=..., file_format='array_record').download_and_prepare(), or pass its "
            "folder as --config.data.data_dir"
        ) from None


def _conceptual_captions(split: str, data_dir: str | None, manual_dir: str) -> ConceptualCaptions:
    """Opens the builder, with `split` prepared. Raises CaptionError if the TSV file exists but has changed."""
    name = re.split(r"[\[+]", split)[0]
    if name not in TSV_FILES:
        raise CaptionError(f"no split {split!r} in conceptual_captions; its splits are {', '.join(TSV_FILES)}")
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
    origin = prepared_from(builder, name)
    if origin and tsv.is_file() and file_sha256(tsv) != origin.sha256:
        raise CaptionError(
            f"{builder.data_dir} was prepared from another version of {tsv}: delete that folder to prepare it "
            f"again, or move the file away to use the prepared captions"
        )
    return builder


def _missing_tsv(manual_dir: os.PathLike) -> str:
    train, validation = TSV_FILES.values()
    return (
        f"Conceptual Captions not found: put {train} and/or {validation} from {OFFERED_AT} into {manual_dir}, "
        f"or pass a file of caption<TAB>url rows as tsv:PATH"
    )

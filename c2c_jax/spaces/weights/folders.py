"""Finds checkpoint folders on this machine, in the package or on the hub, and reads the weight files in them."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from c2c_jax.errors import AbsentError, CheckpointError
from c2c_jax.io.files import is_regular, local_path, open_regular
from c2c_jax.io.hub import HubError, hub_snapshot, is_hub_name
from c2c_jax.io.json import read_json_as
from c2c_jax.io.names import is_path_only, split_suffix
from c2c_jax.io.resolve import embedded_folder
from c2c_jax.io.tensors import read_safetensors
from c2c_jax.io.text import printable
from c2c_jax.io.torch_files import read_torch
from c2c_jax.io.weight_files import fetch_advice

# Weight files of Hugging Face folders, in order of preference.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
MAX_INDEX_BYTES = 2**24
# Other weight files, for messages: other precisions, other libraries, interrupted downloads.
OTHER_WEIGHTS = r"\.(?:safetensors|bin|pt|pth|ckpt|h5|msgpack|gguf|onnx)(?:\.\w+)?$"
FILE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")  # of files, for messages


def checkpoint_folder(name: str, *, download: bool = True) -> Path:
    """The local folder of one model, downloaded from the hub if it is not on this machine.

    name: a local folder, a hub name (`openai/clip-vit-base-patch32`), or a checkpoint of the package
    (`miniworld/clip`), each optionally with `:SUBFOLDER`. download: whether missing files may be downloaded.
    Raises CheckpointError if there is no such folder, its subclass AbsentError if files are missing and cannot be
    downloaded.
    """
    if (folder := local_path(name, CheckpointError)).is_dir():
        return folder
    base, subfolder = split_suffix(name)
    if not base:
        base, subfolder = name, ""
    if (embedded := embedded_folder(base)) is not None:
        folder = embedded / subfolder
    elif (local := local_path(base, CheckpointError)).is_dir():
        folder = local / subfolder
    else:
        folder = _hub_snapshot(base, subfolder, download) / subfolder
    if not local_path(folder, CheckpointError).is_dir():
        raise CheckpointError(f"{base} has no folder {subfolder!r}; NAME:SUBFOLDER names one model inside it")
    return folder


def _hub_snapshot(name: str, subfolder: str, download: bool) -> Path:
    """Local snapshot of a hub repository's configs, tokenizers and weights (safetensors, otherwise .bin)."""
    # The tokenizer of a model in a subfolder is in the sibling folder `tokenizer`.
    prefixes = [f"{subfolder}/", "tokenizer/"] if subfolder else [""]
    if name.endswith(FILE_SUFFIXES):
        advice = "download it and pass its path"
        if re.match(r"630k|music_", file := Path(name).name) and name.endswith(".pt"):
            advice = (
                f"for laion_clap checkpoints, run `hf download lukewys/laion_clap {file} --local-dir FOLDER` "
                "on a machine with network access and pass the path of the file"
            )
        raise CheckpointError(f"there is no file {printable(name)}; {advice}")
    if is_path_only(name):
        raise CheckpointError(
            f"the folder {printable(name)} does not exist; pass a checkpoint folder or a hub name OWNER/NAME"
        )
    if not is_hub_name(name):
        raise CheckpointError(
            f"{printable(name)} is neither a local folder nor a hub name; pass a checkpoint folder or a hub name "
            "OWNER/NAME"
        )
    try:
        for suffix in ("*.safetensors", "*.bin"):
            patterns = [place + pattern for place in prefixes for pattern in ("*.json", "*.txt", suffix)]
            folder = hub_snapshot(name, patterns, download=download)
            if any((folder / prefixes[0]).rglob(suffix)):
                return folder
        if not download:
            raise HubError("its weights are not in the hub's cache")
    except HubError as reason:
        options = " ".join(f"--include '{place}*'" for place in prefixes)
        raise AbsentError(
            f"{name} is neither a local folder nor available from the hub: {reason}; run `hf download {name} {options} "
            "--local-dir FOLDER` on a machine with network access and pass FOLDER instead"
        ) from None
    return folder


def digest_of(files: Mapping[str, Path]) -> str:
    """SHA-256 over the names and contents of files, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(files):
        with open_regular(files[name], "a file of a checkpoint", CheckpointError, "fetch it again") as file:
            digest.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class _Index:
    weight_map: dict[str, str]


def files_named(folder: Path, names: Sequence[str]) -> list[Path]:
    """The first of the named weight files that a folder has; for an index, also the shards that it lists. Raises
    CheckpointError if there is none, or if a shard is missing."""
    for name in names:
        path = folder / name
        if not is_regular(path):
            continue
        if not name.endswith(".index.json"):
            return [path]
        shards = sorted(set(read_json_as(_Index, path, max_bytes=MAX_INDEX_BYTES).weight_map.values()))
        for shard in shards:
            if not shard or Path(shard).name != shard or "\\" in shard:
                raise CheckpointError(
                    f"{path} lists {shard[:80]!r}; expected names of files beside it: {fetch_advice(path)}"
                )
            if not is_regular(folder / shard):
                raise CheckpointError(f"{folder} lacks {shard}, which {name} lists; {fetch_advice(folder / shard)}")
        return [path, *(folder / shard for shard in shards)]
    candidates = (
        [path.name for path in folder.iterdir() if re.search(OTHER_WEIGHTS, path.name)] if folder.is_dir() else []
    )
    others = f"; found {', '.join(sorted(candidates)[:4])}" if candidates else ""
    raise CheckpointError(f"{folder} holds no weights: expected one of {', '.join(names)}{others}")


def read_tensors(folder: Path, skip: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Reads all tensors of a Hugging Face folder. skip: patterns of names that are not needed; these are empty."""
    tensors: dict[str, np.ndarray] = {}
    for path in files_named(folder, WEIGHT_FILES):
        if path.name.endswith(".index.json"):
            continue
        new_tensors = (read_safetensors if path.suffix == ".safetensors" else read_torch)(path, skip)
        if duplicates := sorted(tensors.keys() & new_tensors.keys()):
            raise CheckpointError(f"{path} repeats tensor {duplicates[0]} of another shard; {fetch_advice(path)}")
        tensors.update(new_tensors)
    return tensors

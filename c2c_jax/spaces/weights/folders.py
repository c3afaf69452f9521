"""Checkpoint folders: found on this machine, in the package or in the hub's cache; and the weight files in them."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import huggingface_hub
import numpy as np
from huggingface_hub.errors import HFValidationError

from c2c_jax.errors import AbsentError, CheckpointError
from c2c_jax.io.console import printable
from c2c_jax.io.files import is_regular, local_path, open_regular
from c2c_jax.io.json import read_json_as
from c2c_jax.io.tensors import fetch_advice, read_safetensors, read_torch

# The names under which Hugging Face folders keep weights, in the order in which they are preferred.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
MAX_INDEX_BYTES = 2**24
# What else may be named like weights: other precisions, other libraries, and downloads that were interrupted.
OTHER_WEIGHTS = r"\.(?:safetensors|bin|pt|pth|ckpt|h5|msgpack|gguf|onnx)(?:\.\w+)?$"
FILE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")  # of a file's name, which no folder or repository has
# Checkpoints in the package are named like repositories of the hub, by this owner.
EMBEDDED_OWNER, EMBEDDED = "miniworld", Path(__file__).parents[2] / "miniworld" / "checkpoints"


def checkpoint_folder(name: str, *, download: bool = True) -> Path:
    """The local folder of one model, downloaded from the hub if it is not on this machine.

    name: a local folder, a hub name (`openai/clip-vit-base-patch32`), or one that comes with the package
    (`miniworld/clip`); each may have `:SUBFOLDER` behind it.
    download: whether the hub may be asked for what its cache lacks.
    Raises CheckpointError where there is no such folder, its subclass AbsentError where the cache lacks the files and
    the hub is not asked or cannot be reached.
    """
    if (folder := local_path(name, CheckpointError)).is_dir():
        return folder
    base, _, subfolder = name.rpartition(":")
    if not base:
        base, subfolder = name, ""
    if (embedded := embedded_folder(base)) is not None:
        folder = embedded / subfolder
    elif (local := local_path(base, CheckpointError)).is_dir():
        folder = local / subfolder
    else:
        folder = _hub_snapshot(base, subfolder, download) / subfolder
    if not local_path(folder, CheckpointError).is_dir():
        raise CheckpointError(f"{base} has no folder {subfolder!r}; NAME:SUBFOLDER names one model inside of it")
    return folder


def embedded_folder(name: str) -> Path | None:
    """The folder of a checkpoint that comes with the package, None for another name. Raises CheckpointError for an
    unknown one of the package's owner."""
    owner, _, model = name.partition("/")
    if owner != EMBEDDED_OWNER or not model:
        return None
    there = sorted(f"{owner}/{path.name}" for path in EMBEDDED.iterdir() if path.is_dir())
    if name not in there:
        raise CheckpointError(f"no checkpoint {printable(name)} comes with c2c_jax; there are {', '.join(there)}")
    return EMBEDDED / model


def _hub_snapshot(name: str, subfolder: str, download: bool) -> Path:
    """The local snapshot of a hub repository's configs, tokenizers and weights (safetensors, or else .bin)."""
    # A model in a subfolder keeps its tokenizer beside it, in the sibling folder `tokenizer`.
    places = [f"{subfolder}/", "tokenizer/"] if subfolder else [""]
    if name.endswith(FILE_SUFFIXES):
        advice = "download it, and pass its path"
        if re.match(r"630k|music_", file := Path(name).name) and name.endswith(".pt"):
            advice = (
                f"for laion_clap checkpoints, run `hf download lukewys/laion_clap {file} --local-dir FOLDER` "
                "on a machine with network access and pass the path of the file"
            )
        raise CheckpointError(f"there is no file {printable(name)}; {advice}")
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(
            f"the folder {printable(name)} does not exist; pass a checkpoint folder or a hub name OWNER/NAME"
        )
    try:
        for suffix in ("*.safetensors", "*.bin"):
            patterns = [place + pattern for place in places for pattern in ("*.json", "*.txt", suffix)]
            folder = Path(
                huggingface_hub.snapshot_download(name, allow_patterns=patterns, local_files_only=not download)
            )
            if any((folder / places[0]).rglob(suffix)):
                return folder
        if not download:
            raise FileNotFoundError(name)
    except HFValidationError:
        raise CheckpointError(
            f"{printable(name)} is neither a local folder nor a hub name; pass a checkpoint folder or a hub name "
            "OWNER/NAME"
        ) from None
    except OSError as error:
        wanted = " ".join(f"--include '{place}*'" for place in places)
        raise AbsentError(
            f"{name} is neither a local folder nor in the hub cache, and downloading it failed "
            f"({type(error).__name__}); run `hf download {name} {wanted} --local-dir FOLDER` on a machine with network "
            "access and pass FOLDER instead"
        ) from None
    return folder


def digest_of(files: Mapping[str, Path]) -> str:
    """SHA-256 over the names and contents of files, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(files):
        with open_regular(files[name], "a file of a checkpoint", CheckpointError, "fetch it again") as file:
            digest.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class _Index:
    weight_map: dict[str, str]


def files_named(folder: Path, names: Sequence[str]) -> list[Path]:
    """The first of some weight files that a folder has, and the shards that it lists if it ends in `.index.json`.
    Raises CheckpointError where there is none, or a shard is missing."""
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
    there = [path.name for path in folder.iterdir() if re.search(OTHER_WEIGHTS, path.name)] if folder.is_dir() else []
    found = f"; found {', '.join(sorted(there)[:4])}" if there else ""
    raise CheckpointError(f"{folder} holds no weights: expected one of {', '.join(names)}{found}")


def read_tensors(folder: Path, passed_over: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Every tensor of a Hugging Face folder by its name, as `io.tensors` reads them.

    passed_over: patterns of names whose values are not needed: these are empty.
    """
    tensors: dict[str, np.ndarray] = {}
    for path in files_named(folder, WEIGHT_FILES):
        if path.name.endswith(".index.json"):
            continue
        more = (read_safetensors if path.suffix == ".safetensors" else read_torch)(path, passed_over)
        if twice := sorted(tensors.keys() & more.keys()):
            raise CheckpointError(f"{path} holds {twice[0]}, as another shard does; {fetch_advice(path)}")
        tensors.update(more)
    return tensors

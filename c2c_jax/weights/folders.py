"""Where checkpoints lie: folders, hub names, and the tensors in their files."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub
import numpy as np
import safetensors
from huggingface_hub.errors import HFValidationError

from c2c_jax.errors import AbsentError, CheckpointError

# The names under which Hugging Face folders keep weights, in the order in which they are preferred.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
TEXT_FILES = ("*.json", "*.txt")
# What comes with the package is named like a repository of the hub, by this owner.
EMBEDDED_OWNER, EMBEDDED = "miniworld", Path(__file__).parent.parent / "miniworld" / "checkpoints"

Sizes = TypeVar("Sizes")


def checkpoint_folder(name: str, *, download: bool = True) -> Path:
    """The local folder of one model, downloaded from the hub if it is not on this machine.

    name: a local folder, a hub name (`openai/clip-vit-base-patch32`), or one that comes with the package
    (`miniworld/clip`); each may have `:SUBFOLDER` behind it.
    download: whether the hub may be asked for what its cache lacks.
    Raises CheckpointError where there is no such folder, its subclass AbsentError where the cache lacks the files and
    the hub is not asked or cannot be reached.
    """
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    base, _, subfolder = name.rpartition(":")
    if not base:
        base, subfolder = name, ""
    if (embedded := embedded_folder(base)) is not None:
        folder = embedded / subfolder
    elif Path(base).expanduser().is_dir():
        folder = Path(base).expanduser() / subfolder
    else:
        # A model in a subfolder keeps its tokenizer beside it, in the sibling folder `tokenizer`.
        places = [f"{subfolder}/", "tokenizer/"] if subfolder else [""]
        folder = hub_snapshot(base, places, download=download) / subfolder
    if not folder.is_dir():
        raise CheckpointError(f"{base} has no folder {subfolder!r}; NAME:SUBFOLDER names one model inside of it")
    return folder


def embedded_folder(name: str) -> Path | None:
    """The folder of a checkpoint that comes with the package, None for another name. Raises CheckpointError for one of
    the package's owner that there is not."""
    owner, _, model = name.partition("/")
    if owner != EMBEDDED_OWNER or not model:
        return None
    there = sorted(f"{owner}/{path.name}" for path in EMBEDDED.iterdir() if path.is_dir())
    if name not in there:
        raise CheckpointError(f"no checkpoint {name} comes with c2c_jax; there are {', '.join(there)}")
    return EMBEDDED / model


def hub_snapshot(name: str, places: list[str], *, download: bool = True) -> Path:
    """The local snapshot of a hub repository's configs, tokenizers and weights (safetensors, or else .bin).

    places: prefixes inside the repository to fetch from, each "" or ending in "/". download and errors: as for
    `checkpoint_folder`.
    """
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(f"there is no folder {name}; pass a checkpoint folder or a hub name OWNER/NAME")
    try:
        for suffix in ("*.safetensors", "*.bin"):
            patterns = [place + pattern for place in places for pattern in (*TEXT_FILES, suffix)]
            snapshot = huggingface_hub.snapshot_download(name, allow_patterns=patterns, local_files_only=not download)
            folder = Path(snapshot)
            if any((folder / places[0]).rglob(suffix)):
                break
        else:
            if not download:
                raise FileNotFoundError(name)
    except HFValidationError:
        raise CheckpointError(
            f"there is no folder {name}, and it is no hub name; pass a checkpoint folder or a hub name OWNER/NAME"
        ) from None
    except OSError as error:
        wanted = " ".join(f"--include '{place}*'" for place in places)
        missing = ", ".join(
            f"{places[0]}{file}" for file in ("config.json", "model.safetensors (or pytorch_model.bin)")
        )
        if places == [""]:
            missing = "all its files"
        raise AbsentError(
            f"checkpoint {name} is no folder here and the hub did not give it ({type(error).__name__}); missing are "
            f"{missing} and the tokenizer's; run `hf download {name} {wanted} --local-dir FOLDER` where there is a "
            "network and pass FOLDER instead"
        ) from None
    return folder


def read_json(path: Path) -> dict:
    """A JSON object from a file; CheckpointError where it is missing or not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; {path.parent} is not a whole checkpoint folder") from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}); fetch the file again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object; fetch the file again")
    return content


def sizes_from(kind: type[Sizes], config: Any) -> Sizes:
    """A dataclass of sizes whose fields are named as transformers names them, filled from its config object.

    transformers' reading of config.json is the one that knows the defaults which published files leave out.
    """
    return kind(**{field.name: getattr(config, field.name) for field in dataclasses.fields(kind)})  # type: ignore[arg-type]


def digest_of(files: Mapping[str, Path]) -> str:
    """SHA-256 over the names and contents of files, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(files):
        with open(files[name], "rb") as file:
            digest.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a Hugging Face folder: one file, or an index and its shards."""
    for name in WEIGHT_FILES:
        path = folder / name
        if not path.is_file():
            continue
        if not name.endswith(".index.json"):
            return [path]
        return [path, *(folder / shard for shard in sorted(set(read_json(path)["weight_map"].values())))]
    raise CheckpointError(f"{folder} holds no weights: expected one of {', '.join(WEIGHT_FILES)}")


def read_tensors(folder: Path, passed_over: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Every tensor of a Hugging Face folder by its name. `.bin` files are read with `weights_only=True`.

    passed_over: patterns of names whose values are not needed; of safetensors files they are not read, but empty.
    """
    tensors: dict[str, np.ndarray] = {}
    for path in weight_files(folder):
        if path.suffix == ".safetensors":
            tensors.update(read_safetensors(path, passed_over))
        elif path.suffix == ".bin":
            tensors.update(_read_torch(path))
    return tensors


def read_safetensors(path: Path, passed_over: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Every tensor of one safetensors file, see `read_tensors`; CheckpointError where it is missing, cut short or of
    another format."""
    try:
        with safetensors.safe_open(path, "np") as file:
            needless = {key for key in file.keys() if any(re.fullmatch(pattern, key) for pattern in passed_over)}
            return {key: np.empty(0) if key in needless else file.get_tensor(key) for key in file.keys()}
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}); fetch it again") from None


def _read_torch(path: Path) -> Mapping[str, np.ndarray]:
    import pickle

    import torch  # needed for old .bin files only

    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        cause = str(error).splitlines()[0]
        raise CheckpointError(f"{path} is not a whole file of plain tensors ({cause}); fetch it again") from None
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise CheckpointError(f"{path} holds something else than a state dict of tensors")
    return {
        key: value.float().numpy() if value.is_floating_point() else value.numpy() for key, value in tensors.items()
    }

"""AudioLDM folders in diffusers' layout: what must be in them, and their parts, loaded strictly."""

import contextlib
import logging
import pickle
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers.utils.logging
from safetensors import SafetensorError

from c2c_jax.errors import CheckpointError, one_line
from c2c_jax.weights.folders import digest_of, read_json

CONFIGS = ("scheduler/scheduler_config.json", "unet/config.json", "vae/config.json", "vocoder/config.json")
TEXT_CONFIGS = ("text_encoder/config.json",)
# What diffusers and transformers raise over damaged or foreign files.
LOADING_ERRORS = (OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError, struct.error)
# Buffers that old files carry and today's classes make themselves.
BUFFERS = r".*(?:position_ids|token_type_ids|num_batches_tracked)"

# Logger and pattern of its messages, which come again as this module's CheckpointError. What the libraries say of
# weights in the files that no module takes is not silenced.
SILENCED = {
    "diffusers.models.modeling_utils": "newly initialized",
    "transformers.modeling_utils": "MISSING|MISMATCH",
}


def check_layout(folder: Path) -> None:
    """Raises CheckpointError unless a folder holds every part of AudioLDM that makes sound, by the names of its files.
    The text tower is another matter: see `check_text`."""
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}: download cvssp/audioldm-s-full-v2 and name its folder")
    _require(folder, ["model_index.json", *CONFIGS], ["unet", "vae", "vocoder"])
    kind = read_json(folder / "model_index.json").get("_class_name")
    if kind != "AudioLDMPipeline":
        raise CheckpointError(f"{folder}/model_index.json has _class_name {kind}: expected AudioLDMPipeline")


def check_text(folder: Path) -> None:
    """Raises CheckpointError unless an AudioLDM folder holds its CLAP text tower and that one's tokenizer."""
    files = list(TEXT_CONFIGS)
    # Without its words the tokenizer would load all the same, and turn every text into nothing.
    if not (folder / "tokenizer/tokenizer.json").is_file():
        files += ["tokenizer/vocab.json", "tokenizer/merges.txt"]
    _require(folder, files, ["text_encoder"])


def _require(folder: Path, files: list[str], weights_of: list[str]) -> None:
    missing = [name for name in files if not (folder / name).is_file()]
    for part in weights_of:
        if not any((folder / part).glob("*.safetensors")) and not any((folder / part).glob("*.bin")):
            missing.append(f"weights of {part}")
    if missing:
        raise CheckpointError(f"{folder} is no whole AudioLDM checkpoint, it lacks {', '.join(missing)}: fetch these")
    for name in files:
        if name.endswith("config.json"):
            read_json(folder / name)


def digest(folder: Path) -> str:
    """SHA-256 over the names and contents of what makes the sound: UNet, VAE, vocoder and noise levels."""
    files = [path for part in ("scheduler", "unet", "vae", "vocoder") for path in sorted((folder / part).iterdir())]
    return digest_of({str(path.relative_to(folder)): path for path in files if path.is_file()})


def load_model(kind: Any, folder: Path, dtype: torch.dtype, **options: Any) -> Any:
    """Loads one network, safetensors before .bin, every tensor from the files."""
    model, report = load_part(
        kind,
        folder,
        use_safetensors=any(folder.glob("*.safetensors")),
        dtype=dtype,
        ignore_mismatched_sizes=True,  # reported below with the rest
        output_loading_info=True,
        **options,
    )
    unfilled = [*report["missing_keys"], *(key[0] for key in report["mismatched_keys"])]
    if unfilled:
        raise CheckpointError(
            f"{folder} lacks {len(unfilled)} weights or has them in other shapes ({sorted(unfilled)[0]}): fetch it anew"
        )
    extra = [key for key in report["unexpected_keys"] if not re.fullmatch(BUFFERS, key)]
    if extra:
        raise CheckpointError(
            f"{folder} has {len(extra)} weights that {kind.__name__} knows nothing of ({sorted(extra)[0]}): "
            "it is of another model; fetch it anew"
        )
    return model.eval()


def load_part(kind: Any, folder: Path, **options: Any) -> Any:
    """`from_pretrained` of diffusers and transformers from local files, with their errors in one line."""
    try:
        return kind.from_pretrained(folder, local_files_only=True, **options)
    except pickle.UnpicklingError as error:  # torch's own message advises to trust the file
        raise CheckpointError(f"{folder} has a .bin file that holds more than tensors: take safetensors") from error
    except LOADING_ERRORS as error:
        raise CheckpointError(f"{folder} cannot be loaded ({one_line(error)}): fetch it anew") from error


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Keeps the messages of SILENCED and transformers' bar of loaded weights off the terminal."""

    def unknown(record: logging.LogRecord) -> bool:
        return re.search(SILENCED[record.name], record.getMessage()) is None

    for name in SILENCED:
        logging.getLogger(name).addFilter(unknown)
    hook = transformers.utils.logging.set_tqdm_hook(
        lambda bar, args, kwargs: bar(*args, **{**kwargs, "disable": True}),
    )
    try:
        yield
    finally:
        transformers.utils.logging.set_tqdm_hook(hook)
        for name in SILENCED:
            logging.getLogger(name).removeFilter(unknown)

"""Loads the parts of AudioLDM folders in diffusers' layout, strictly: no weight missing, left over or damaged."""

import contextlib
import inspect
import logging
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import transformers
import transformers.utils.logging
from diffusers import ModelMixin
from torch.nn.modules.module import register_module_parameter_registration_hook

from c2c_jax.errors import CheckpointError, one_line
from c2c_jax.generation.configs import check_fields
from c2c_jax.io.json import read_json
from c2c_jax.io.tensors import fetch_advice, open_torch, tensor_shapes
from c2c_jax.spaces.weights.clap import text_config
from c2c_jax.spaces.weights.folders import WEIGHT_FILES, digest_of, files_named

CONFIGS = ("scheduler/scheduler_config.json", "unet/config.json", "vae/config.json", "vocoder/config.json")
# The names of weight files in diffusers' folders; other files, such as those of a LoRA, are not the model's.
DIFFUSERS_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
)
# Fields of transformers' configs that no network needs, by which a file could ask for code or for any memory.
UNUSED = {
    "auto_map", "num_labels", "id2label", "label2id", "quantization_config", "attn_implementation",
    "_attn_implementation", "experts_implementation", "_experts_implementation", "custom_pipelines", "_name_or_path",
}  # fmt: skip
# Buffers in old files, which today's classes compute.
BUFFERS = r".*(?:position_ids|token_type_ids|num_batches_tracked)"

# Loggers, and patterns of messages that `load_model` reports as CheckpointError instead, or that are about token ids in
# old configs, which work. Messages about weights that no module takes are not silenced.
SILENCED = {
    "transformers.configuration_utils": "within the vocabulary",
    "diffusers.models.modeling_utils": "newly initialized",
    "transformers.modeling_utils": "MISSING|MISMATCH",
}


def check_layout(folder: Path) -> None:
    """Raises CheckpointError unless a folder holds every part of AudioLDM that makes sound, by the names of its files.
    For the text tower see `check_text`."""
    if not folder.is_dir():
        raise CheckpointError(
            f"the folder {folder} does not exist: download cvssp/audioldm-s-full-v2 and pass its folder"
        )
    _require(folder, ["model_index.json", *CONFIGS], ["unet", "vae", "vocoder"])
    kind = read_json(folder / "model_index.json").get("_class_name")
    if kind != "AudioLDMPipeline":
        raise CheckpointError(f"{folder}/model_index.json has _class_name {str(kind)[:60]}: expected AudioLDMPipeline")


def check_text(folder: Path) -> None:
    """Raises CheckpointError unless an AudioLDM folder holds its CLAP text tower and its tokenizer."""
    files = ["text_encoder/config.json"]
    # transformers loads a tokenizer without its vocabulary too, which encodes every text as nothing.
    if not (folder / "tokenizer/tokenizer.json").is_file():
        files += ["tokenizer/vocab.json", "tokenizer/merges.txt"]
    _require(folder, files, ["text_encoder"])


def _require(folder: Path, files: list[str], weights_of: list[str]) -> None:
    missing = [name for name in files if not (folder / name).is_file()]
    for part in weights_of:
        if not any((folder / part / name).is_file() for name in (*DIFFUSERS_FILES, *WEIGHT_FILES)):
            missing.append(f"weights of {part}")
    if missing:
        raise CheckpointError(f"{folder} is an incomplete AudioLDM checkpoint: download {', '.join(missing)}")
    for name in files:
        if name.endswith("config.json"):
            read_json(folder / name)


def digest(folder: Path) -> str:
    """SHA-256 over the names and contents of what makes the sound: UNet, VAE, vocoder and noise levels."""
    files = [path for part in ("scheduler", "unet", "vae", "vocoder") for path in sorted((folder / part).iterdir())]
    return digest_of({str(path.relative_to(folder)): path for path in files if path.is_file()})


def load_model(kind: Any, folder: Path, dtype: torch.dtype, bounds: type | None = None) -> Any:
    """Loads one network, every tensor from the folder's files. bounds: see `check_fields`. Raises CheckpointError,
    before memory is taken, for a config that asks for more than the files hold, and for files that are damaged or of
    another model."""
    is_diffusers = issubclass(kind, ModelMixin)
    files = files_named(folder, DIFFUSERS_FILES if is_diffusers else WEIGHT_FILES)
    files = [path for path in files if not path.name.endswith(".index.json")]
    shapes = {name: shape for path in files for name, shape in tensor_shapes(path).items()}
    config = _checked_config(kind, folder, shapes, bounds)
    options = {"ignore_mismatched_sizes": True, "output_loading_info": True, "dtype": dtype}  # reported below
    try:
        if is_diffusers:
            is_safe = files[0].suffix == ".safetensors"
            model, report = kind.from_pretrained(
                folder, local_files_only=True, use_safetensors=is_safe, low_cpu_mem_usage=False, **options
            )
        else:  # not from the folder, where other files than these could have a say
            tensors = {name: tensor for path in files for name, tensor in _torch_tensors(path).items()}
            model, report = kind.from_pretrained(
                None, config=config, state_dict=tensors, local_files_only=True, trust_remote_code=False, **options
            )
    except Exception as error:  # diffusers and transformers raise exceptions of many kinds over foreign files
        raise CheckpointError(f"{folder} cannot be loaded ({one_line(error)}): fetch it again") from None
    unfilled = [*report["missing_keys"], *(key[0] for key in report["mismatched_keys"])]
    if unfilled:
        raise CheckpointError(
            f"{folder} lacks {len(unfilled)} weights or has other shapes ({sorted(unfilled)[0]}): fetch it again"
        )
    extra = [key for key in report["unexpected_keys"] if not re.fullmatch(BUFFERS, key)]
    if extra:
        raise CheckpointError(
            f"{folder} has {len(extra)} weights that {kind.__name__} knows nothing of ({sorted(extra)[0]}): "
            "it is of another model; fetch it again"
        )
    if damaged := [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]:
        raise CheckpointError(f"{folder}: {damaged[0]} has values that are not finite in {dtype}: fetch it again")
    return model.eval()


def _checked_config(kind: Any, folder: Path, shapes: Mapping[str, tuple[int, ...]], bounds: type | None) -> Any:
    """The config of a network for transformers, None for diffusers. The network is built on torch's "meta" device,
    which takes no memory for weights: it may have a few more and larger ones than the files hold, which `load_model`
    reports, but not any number."""
    content, is_diffusers = read_json(folder / "config.json"), issubclass(kind, ModelMixin)
    if is_diffusers and content.get("quantization_config") is not None:
        raise CheckpointError(f"{folder} is quantised, which is not read: fetch it in float32 or float16")
    limits = [2 * len(shapes) + 64, 2 * sum(map(math.prod, shapes.values())) + 2**16]

    def registered(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        limits[0] -= 1
        limits[1] -= 0 if parameter is None else parameter.numel()
        if min(limits) < 0:
            raise ValueError("a larger model than its weights")

    hook = register_module_parameter_registration_hook(registered)
    try:
        if bounds:
            check_fields(content, bounds, kind)
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            if is_diffusers:
                known = inspect.signature(kind.__init__).parameters
                kind(**{name: value for name, value in content.items() if name in known})
                return None
            if kind is transformers.ClapTextModelWithProjection:
                text_config(content)
            config = kind.config_class.from_dict({name: x for name, x in content.items() if name not in UNUSED})
            kind(config)
            return config
    except Exception as error:  # the classes check their arguments little, and raise exceptions of all kinds
        raise CheckpointError(
            f"{folder / 'config.json'} does not describe the {kind.__name__} beside it ({one_line(error)}): fetch both "
            "again"
        ) from None
    finally:
        hook.remove()


def _torch_tensors(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except Exception as error:
            raise CheckpointError(f"{path} cannot be loaded ({one_line(error)}); {fetch_advice(path)}") from None
    return {name: tensor.clone() for name, tensor in open_torch(path).items()}


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

"""Loads the networks of AudioLDM folders in diffusers' layout; missing, unknown and damaged weights are errors."""

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
from c2c_jax.io.tensors import tensor_shapes
from c2c_jax.io.torch_files import read_torch
from c2c_jax.io.weight_files import fetch_advice
from c2c_jax.spaces.weights.clap import text_config
from c2c_jax.spaces.weights.folders import WEIGHT_FILES, digest_of, files_named

CONFIGS = ("scheduler/scheduler_config.json", "unet/config.json", "vae/config.json", "vocoder/config.json")
# Names of weight files in diffusers' folders. Other files, such as LoRA weights, are ignored.
DIFFUSERS_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
)
# Fields of transformers' configs that are removed, because they could run code or allocate unbounded memory.
UNUSED = {
    "auto_map", "num_labels", "id2label", "label2id", "quantization_config", "attn_implementation",
    "_attn_implementation", "experts_implementation", "_experts_implementation", "custom_pipelines", "_name_or_path",
}  # fmt: skip
# Buffers in old files; the current classes compute them.
BUFFERS = r".*(?:position_ids|token_type_ids|num_batches_tracked)"

# Loggers, and patterns of the messages to silence: those that `load_model` raises as CheckpointError, and harmless ones
# about token ids in old configs. Messages about unexpected weights are not silenced.
SILENCED = {
    "transformers.configuration_utils": "within the vocabulary",
    "diffusers.models.modeling_utils": "newly initialized",
    "transformers.modeling_utils": "MISSING|MISMATCH",
}


def check_layout(folder: Path) -> None:
    """Raises CheckpointError unless a folder has the files of all AudioLDM networks except the text tower; for that see
    `check_text`."""
    if not folder.is_dir():
        raise CheckpointError(
            f"the folder {folder} does not exist: download cvssp/audioldm-s-full-v2 and pass its folder"
        )
    _require(folder, ["model_index.json", *CONFIGS], ["unet", "vae", "vocoder"])
    kind = read_json(folder / "model_index.json").get("_class_name")
    if kind != "AudioLDMPipeline":
        raise CheckpointError(f"{folder}/model_index.json has _class_name {str(kind)[:60]}: expected AudioLDMPipeline")


def check_text(folder: Path) -> None:
    """Raises CheckpointError unless an AudioLDM folder has the files of its CLAP text tower and tokenizer."""
    files = ["text_encoder/config.json"]
    # Without a vocabulary, transformers loads a tokenizer that encodes every text as an empty sequence.
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
    """Returns a SHA-256 of the names and contents of the files of UNet, VAE, vocoder and scheduler."""
    files = [path for part in ("scheduler", "unet", "vae", "vocoder") for path in sorted((folder / part).iterdir())]
    return digest_of({path.relative_to(folder).as_posix(): path for path in files if path.is_file()})


def load_model(kind: Any, folder: Path, dtype: torch.dtype, bounds: type | None = None) -> Any:
    """Loads a network of class `kind` from a folder. bounds: see `check_fields`.

    Raises CheckpointError if files are damaged or of another model, or, before memory is allocated, if the config
    describes a much larger network than the files.
    """
    is_diffusers = issubclass(kind, ModelMixin)
    files = files_named(folder, DIFFUSERS_FILES if is_diffusers else WEIGHT_FILES)
    files = [path for path in files if not path.name.endswith(".index.json")]
    shapes = {name: shape for path in files for name, shape in tensor_shapes(path).items()}
    config = _checked_config(kind, folder, shapes, bounds)
    options = {"ignore_mismatched_sizes": True, "output_loading_info": True, "dtype": dtype}  # checked below
    try:
        if is_diffusers:
            is_safe = files[0].suffix == ".safetensors"
            model, report = kind.from_pretrained(
                folder, local_files_only=True, use_safetensors=is_safe, low_cpu_mem_usage=False, **options
            )
        else:  # not from the folder, whose other files could take effect
            tensors = {name: tensor for path in files for name, tensor in _torch_tensors(path).items()}
            model, report = kind.from_pretrained(
                None, config=config, state_dict=tensors, local_files_only=True, trust_remote_code=False, **options
            )
    except Exception as error:  # diffusers and transformers raise exceptions of many types
        raise CheckpointError(f"{folder} cannot be loaded ({one_line(error)}): fetch it again") from None
    unfilled = [*report["missing_keys"], *(key[0] for key in report["mismatched_keys"])]
    if unfilled:
        raise CheckpointError(
            f"{folder}: {len(unfilled)} weights are missing or have the wrong shape ({sorted(unfilled)[0]}): "
            "fetch it again"
        )
    extra = [key for key in report["unexpected_keys"] if not re.fullmatch(BUFFERS, key)]
    if extra:
        raise CheckpointError(
            f"{folder} has {len(extra)} weights that {kind.__name__} does not have ({sorted(extra)[0]}): "
            "it is another model; fetch it again"
        )
    if damaged := [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]:
        raise CheckpointError(f"{folder}: {damaged[0]} has values that are not finite in {dtype}: fetch it again")
    return model.eval()


def _checked_config(kind: Any, folder: Path, shapes: Mapping[str, tuple[int, ...]], bounds: type | None) -> Any:
    """Checks a network's config.json. Returns a config for transformers classes, None for diffusers classes.

    Builds the network on torch's "meta" device, which allocates no weights, and raises CheckpointError if it is much
    larger than the files. Small differences are left to `load_model`.
    """
    content, is_diffusers = read_json(folder / "config.json"), issubclass(kind, ModelMixin)
    if is_diffusers and content.get("quantization_config") is not None:
        raise CheckpointError(f"{folder} is quantised, which is not supported: fetch it in float32 or float16")
    limits = [2 * len(shapes) + 64, 2 * sum(map(math.prod, shapes.values())) + 2**16]

    def count_parameter(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        limits[0] -= 1
        limits[1] -= 0 if parameter is None else parameter.numel()
        if min(limits) < 0:
            raise ValueError("the model is larger than its weights")

    hook = register_module_parameter_registration_hook(count_parameter)
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
    except Exception as error:  # the classes raise exceptions of many types
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
    return {name: torch.from_numpy(tensor) for name, tensor in read_torch(path).items()}


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Hides the log messages of SILENCED and transformers' progress bars."""

    def keep(record: logging.LogRecord) -> bool:
        return re.search(SILENCED[record.name], record.getMessage()) is None

    for name in SILENCED:
        logging.getLogger(name).addFilter(keep)
    hook = transformers.utils.logging.set_tqdm_hook(
        lambda bar, args, kwargs: bar(*args, **{**kwargs, "disable": True}),
    )
    try:
        yield
    finally:
        transformers.utils.logging.set_tqdm_hook(hook)
        for name in SILENCED:
            logging.getLogger(name).removeFilter(keep)

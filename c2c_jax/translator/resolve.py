"""Finds the translator bundle that a RUN argument names."""

import re
from pathlib import Path

from c2c_jax.errors import BundleError
from c2c_jax.io.files import describe_path, is_regular
from c2c_jax.spaces.weights.folders import embedded_folder

BUNDLE_FILES = ("config.json", "model.safetensors")
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
TIMEOUT = 10.0  # seconds to wait for the hub's first answer
EXPECTED = "pass the work directory of a run, a bundle folder, miniworld/translator, or a hub name OWNER/NAME"


def bundle_folder(run: Path) -> Path:
    """The bundle folder that a RUN argument names.

    run: the work directory of a run; a bundle folder; a translator of the package (`miniworld/translator`); or a hub
    repository OWNER/NAME, which is downloaded if it is not in the cache.
    Raises BundleError if there is no bundle, CheckpointError for an unknown translator of the package.
    """
    run = Path(run)
    if (kind := describe_path(run)) == "a folder":
        for folder in (run / "bundle", run):
            if all(is_regular(folder / name) for name in BUNDLE_FILES):
                return folder
        raise BundleError(
            f"{run} contains no translator bundle (config.json and model.safetensors): {EXPECTED}; a run writes its "
            "bundle after the first validation"
        )
    if kind != "no file":
        raise BundleError(f"expected a run or a translator bundle at {run}, found {kind}: {EXPECTED}")
    name = run.as_posix()
    if (embedded := embedded_folder(name)) is not None:
        return embedded
    if not _HUB_NAME.fullmatch(name):
        raise BundleError(f"{run} is neither a local run or bundle nor a hub name: {EXPECTED}")
    return _from_hub(name)


def is_local(run: Path) -> bool:
    """Whether a RUN argument names a local folder, not a translator of the package or the hub."""
    return describe_path(Path(run)) == "a folder"


def run_name(run: Path) -> str:
    """The name of a run for people: the last component of a local folder, otherwise the RUN argument itself."""
    if not is_local(run):
        return Path(run).as_posix()
    folder = Path(run).resolve()
    return folder.parent.name if folder.name == "bundle" else folder.name


def _from_hub(name: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    def files(from_cache: bool) -> Path:
        paths = [huggingface_hub.hf_hub_download(name, file, local_files_only=from_cache) for file in BUNDLE_FILES]
        return Path(paths[0]).parent

    try:
        return files(from_cache=True)
    except HFValidationError:
        raise BundleError(f"{name} is neither a local run or bundle nor a hub name: {EXPECTED}") from None
    except LocalEntryNotFoundError:
        why = "HF_HUB_OFFLINE is set and it is not in the hub's cache"
    if not huggingface_hub.is_offline_mode():
        try:
            huggingface_hub.HfApi().model_info(name, timeout=TIMEOUT)  # fails faster than a download, which retries
            return files(from_cache=False)
        except Exception as cause:  # errors of the hub and of its HTTP library
            why = f"download failed ({type(cause).__name__}: {' '.join(str(cause).split())[:120]})"
    raise BundleError(f"{name} is neither a local run or bundle nor available from the hub: {why}; {EXPECTED}")

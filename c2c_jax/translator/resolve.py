"""What a RUN argument stands for: the one folder of a translator bundle."""

import re
from pathlib import Path

from c2c_jax.errors import BundleError
from c2c_jax.io.files import describe_path, is_regular
from c2c_jax.spaces.weights.folders import embedded_folder

BUNDLE_FILES = ("config.json", "model.safetensors")
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
TIMEOUT = 10.0  # seconds that the hub has for its first answer
EXPECTED = "pass the work directory of a run, a bundle folder, miniworld/translator, or a hub name OWNER/NAME"


def bundle_folder(run: Path) -> Path:
    """The bundle folder that a RUN argument names.

    run: the work directory of a run, whose `bundle` is used; a bundle folder; a translator that comes with the package
    (`miniworld/translator`); or a hub repository OWNER/NAME, read from the hub's cache, or downloaded unless
    HF_HUB_OFFLINE is set.
    Raises BundleError if there is no such run or no bundle in it, CheckpointError for an unknown name of the
    package's.
    """
    run = Path(run)
    if (found := describe_path(run)) == "a folder":
        for folder in (run / "bundle", run):
            if all(is_regular(folder / name) for name in BUNDLE_FILES):
                return folder
        raise BundleError(
            f"{run} contains no translator bundle (config.json and model.safetensors): {EXPECTED}; a run writes its "
            "bundle after the first validation"
        )
    if found != "no file":
        raise BundleError(f"expected a run or a translator bundle at {run}, found {found}: {EXPECTED}")
    name = run.as_posix()
    if (embedded := embedded_folder(name)) is not None:
        return embedded
    if not _HUB_NAME.fullmatch(name):
        raise BundleError(f"{run} is neither a local run or bundle nor a hub name: {EXPECTED}")
    return _from_hub(name)


def is_local(run: Path) -> bool:
    """Whether a RUN argument names a folder of this machine, and not one of the package or the hub."""
    return describe_path(Path(run)) == "a folder"


def run_name(run: Path) -> str:
    """The name of a run for people: of a work directory or bundle folder its last component, else the name itself."""
    if not is_local(run):
        return Path(run).as_posix()
    place = Path(run).resolve()
    return place.parent.name if place.name == "bundle" else place.name


def _from_hub(name: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    def files(from_cache: bool) -> Path:
        paths = [huggingface_hub.hf_hub_download(name, one, local_files_only=from_cache) for one in BUNDLE_FILES]
        return Path(paths[0]).parent

    try:
        return files(from_cache=True)
    except HFValidationError:
        raise BundleError(f"{name} is neither a local run or bundle nor a hub name: {EXPECTED}") from None
    except LocalEntryNotFoundError:
        why = "HF_HUB_OFFLINE is set and the hub's cache does not hold it"
    if not huggingface_hub.is_offline_mode():
        try:
            huggingface_hub.HfApi().model_info(name, timeout=TIMEOUT)  # a download would retry for a while
            return files(from_cache=False)
        except Exception as cause:  # the hub's own errors, and those of the libraries below it
            why = f"download failed ({type(cause).__name__}: {' '.join(str(cause).split())[:120]})"
    raise BundleError(f"{name} is neither a local run or bundle nor available from the hub: {why}; {EXPECTED}")

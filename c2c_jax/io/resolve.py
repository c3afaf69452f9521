"""Finds the folder of a translator bundle or checkpoint by its name."""

from pathlib import Path

from c2c_jax.errors import BundleError, BundleNotFoundError, C2CError, CheckpointError
from c2c_jax.io.files import describe_path, is_regular, user_path
from c2c_jax.io.hub import HubError, hub_files, is_hub_name
from c2c_jax.io.text import printable

BUNDLE_FILES = ("config.json", "model.safetensors")
EXPECTED = "pass the work directory of a run, a bundle folder, miniworld/translator, or a hub name OWNER/NAME"
# Checkpoints in the package have names like hub repositories of this owner.
EMBEDDED_OWNER, EMBEDDED = "miniworld", Path(__file__).parents[1] / "miniworld" / "checkpoints"


def bundle_folder(run: str | Path, revision: str | None = None) -> Path:
    """The bundle folder of a translator that is given by name.

    run: the work directory of a run; a bundle folder; a translator of the package (`miniworld/translator`); or a hub
    repository, OWNER/NAME or OWNER/NAME@REVISION. revision: a branch, tag or commit of the hub repository; None: the
    main branch. Without a revision, a cached copy is used and the hub is not asked; OWNER/NAME@main gets the newest
    version; see `hub_files`.
    Raises BundleNotFoundError if there is no bundle, BundleError for a revision of anything but a hub repository.
    """
    path = user_path(str(run))
    if (kind := describe_path(path)) == "a folder":
        _refuse_revision(revision, f"{run} is a local folder")
        return _bundle_in(path)
    if kind != "no file":
        raise BundleNotFoundError(f"expected a run or a translator bundle at {run}, found {kind}: {EXPECTED}")
    name, at, suffix = path.as_posix().partition("@")
    if at:
        if revision is not None:
            raise BundleError(f"{run} already names a revision: do not pass revision {revision!r:.60} as well")
        revision = suffix
    if (embedded := embedded_folder(name, BundleNotFoundError)) is not None:
        _refuse_revision(revision, f"{name} is part of the package")
        return _bundle_in(embedded)
    if "/" not in name or not is_hub_name(name) or revision == "":
        raise BundleNotFoundError(f"{run} is neither a local run or bundle nor a hub name: {EXPECTED}")
    try:
        return hub_files(name, BUNDLE_FILES, revision)
    except HubError as reason:
        raise BundleNotFoundError(
            f"{run} is neither a local run or bundle nor available from the hub: {reason}; {EXPECTED}"
        ) from reason


def _bundle_in(run: Path) -> Path:
    for folder in (run / "bundle", run):
        if all(is_regular(folder / name) for name in BUNDLE_FILES):
            return folder
    raise BundleNotFoundError(
        f"{run} contains no translator bundle (config.json and model.safetensors): {EXPECTED}; a run writes its "
        "bundle after the first validation"
    )


def _refuse_revision(revision: str | None, reason: str) -> None:
    if revision is not None:
        raise BundleError(f"{reason}, so it has no revision {revision!r:.60}")


def is_local(run: str | Path) -> bool:
    """Whether a name of a translator is a local folder, not a translator of the package or the hub."""
    return describe_path(user_path(str(run))) == "a folder"


def run_name(run: str | Path) -> str:
    """The display name of a run: the last component of a local folder, otherwise the name as given."""
    path = user_path(str(run))
    if not is_local(path):
        return path.as_posix()
    folder = path.resolve()
    return folder.parent.name if folder.name == "bundle" else folder.name


def embedded_folder(name: str, error: type[C2CError] = CheckpointError) -> Path | None:
    """The folder of a checkpoint or translator of the package; None for other names. Raises `error` for an unknown name
    of the package's owner."""
    owner, _, model = name.partition("/")
    if owner != EMBEDDED_OWNER or not model:
        return None
    candidates = sorted(f"{owner}/{path.name}" for path in EMBEDDED.iterdir() if path.is_dir())
    if name not in candidates:
        raise error(f"c2c_jax has no checkpoint {printable(name)}; it has {', '.join(candidates)}")
    return EMBEDDED / model

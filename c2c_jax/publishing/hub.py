"""The upload to the Hugging Face hub."""

from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HFValidationError

from c2c_jax.errors import ExportError, one_line


def require_access(name: str) -> None:
    """Raises ExportError where an upload to this repository cannot begin: a name that is none, offline, no token."""
    try:
        huggingface_hub.utils.validate_repo_id(name)
    except HFValidationError:
        raise ExportError(f"--push {name}: that is no hub name; pass OWNER/NAME") from None
    if huggingface_hub.is_offline_mode():
        raise ExportError(f"--push {name}: HF_HUB_OFFLINE is set, so the hub may not be asked; unset it to upload")
    if huggingface_hub.get_token() is None:
        raise ExportError(f"--push {name}: there is no Hugging Face token; run `hf auth login`, or set HF_TOKEN")


def upload(folder: Path, name: str, *, private: bool) -> str:
    """Uploads a folder to a model repository, which is made where there is none; gives its address.

    private: the repository is made so; one that is there already and public is an error, and nothing is uploaded.
    Raises ExportError where the hub does not take it.
    """
    api = huggingface_hub.HfApi()
    try:
        repository = api.create_repo(name, private=private or None, exist_ok=True)
        if private and not api.model_info(repository.repo_id).private:
            raise ExportError(
                f"--push {name}: the repository exists and is public; pass another, or leave --private out"
            )
        api.upload_folder(repo_id=repository.repo_id, folder_path=folder, commit_message="Translator, by c2c export")
    except ExportError:
        raise
    except Exception as error:  # the hub's own kinds, and those of whatever carries its requests
        raise ExportError(f"--push {name}: the hub did not take it ({one_line(error)})") from error
    return str(repository)

"""Uploads a folder to the Hugging Face hub."""

from pathlib import Path

import huggingface_hub

from c2c_jax.errors import ExportError, one_line
from c2c_jax.io.hub import is_hub_name, offline_variable


def require_access(name: str) -> None:
    """Raises ExportError if an upload cannot start: for an invalid name, offline, or without a token."""
    if not is_hub_name(name) or "/" not in name:
        raise ExportError(f"--push {name}: this is not a valid hub name; pass OWNER/NAME")
    if variable := offline_variable():
        raise ExportError(f"--push {name}: {variable} is set; unset it to upload")
    if huggingface_hub.get_token() is None:
        raise ExportError(f"--push {name}: there is no Hugging Face token; run `hf auth login`, or set HF_TOKEN")


def upload(folder: Path, name: str, *, private: bool) -> str:
    """Uploads a folder to a model repository, which is created if needed. Returns its address.

    private: whether the repository must be private; nothing is uploaded to an existing public one.
    Raises ExportError if the hub refuses the upload.
    """
    api = huggingface_hub.HfApi()
    try:
        repository = api.create_repo(name, private=private or None, exist_ok=True)
        if private and not api.model_info(repository.repo_id).private:
            raise ExportError(
                f"--push {name}: the repository exists and is public; pass another name, or leave --private out"
            )
        api.upload_folder(repo_id=repository.repo_id, folder_path=folder, commit_message="Translator, by c2c export")
    except ExportError:
        raise
    except Exception as error:  # errors of the hub and of its HTTP library
        raise ExportError(f"--push {name}: the hub refused the upload ({one_line(error)})") from error
    return str(repository)

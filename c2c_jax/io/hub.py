"""Finds files of Hugging Face hub repositories in the hub's cache, and downloads them."""

import functools
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id

from c2c_jax.errors import one_line

TIMEOUT = 10.0  # seconds to wait for the hub's first answer if its cache lacks the files
CHECK_TIMEOUT = 3.0  # seconds to wait for it if the cache has them
_COMMIT = re.compile(r"[0-9a-f]{40}")

logger = logging.getLogger(__name__)


class HubError(Exception):
    """Files that are neither in the hub's cache nor can be downloaded. The message gives the reason."""


def is_hub_name(name: str) -> bool:
    """Whether a hub repository can have this name."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def offline_variable() -> str | None:
    """The environment variable that forbids requests to the hub; None if they are allowed."""
    if not huggingface_hub.is_offline_mode():
        return None
    return "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"


def hub_files(name: str, files: Sequence[str], revision: str | None = None) -> Path:
    """The local folder with the given files of a hub repository, all of one commit.

    revision: a branch, tag or commit; None: the main branch. The hub is asked for the revision's newest commit, and
    files that its cache lacks are downloaded. If the hub does not answer within CHECK_TIMEOUT, the cached files are
    used and a warning is logged. No request is made for a cached commit given by its 40 hexadecimal digits, or if
    HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set.
    Raises HubError if the cache lacks the files and they cannot be downloaded.
    """

    def find(revision: str | None, from_cache: bool) -> Path:
        first, *others = files
        folder = Path(huggingface_hub.hf_hub_download(name, first, revision=revision, local_files_only=from_cache))
        for file in others:  # of the first one's commit, even if the branch moves meanwhile
            huggingface_hub.hf_hub_download(name, file, revision=folder.parent.name, local_files_only=from_cache)
        return folder.parent

    return _newest(name, revision, find)


def hub_snapshot(name: str, patterns: Sequence[str], *, download: bool = True) -> Path:
    """The local folder with all files of a hub repository's main branch that match one of the patterns.

    Like `hub_files`, but the cached folder may lack some of them. download: whether requests to the hub are allowed.
    Raises HubError if there is no cached folder and the files cannot be downloaded.
    """

    def find(revision: str | None, from_cache: bool) -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=list(patterns), local_files_only=from_cache
            )
        )

    if download:
        return _newest(name, None, find, is_complete=False)
    try:
        return find(None, True)
    except LocalEntryNotFoundError:
        raise HubError("it is not in the hub's cache") from None


def _newest(
    name: str, revision: str | None, find: Callable[[str | None, bool], Path], is_complete: bool = True
) -> Path:
    """The folder of a revision's newest commit, or if the hub does not answer, of the cached one.

    find: takes a revision and whether to search the cache only; returns the commit's folder. is_complete: whether a
    folder found in the cache has all files.
    """
    cached: Path | None = None
    try:
        cached = find(revision, True)
    except LocalEntryNotFoundError:
        pass
    variable = offline_variable()
    if cached is not None and (variable or (revision and _COMMIT.fullmatch(revision))):
        return cached
    if variable:
        raise HubError(f"{variable} is set and it is not in the hub's cache")
    try:
        # A request with a timeout and without repetitions fails faster than a download.
        timeout = TIMEOUT if cached is None else CHECK_TIMEOUT
        commit = huggingface_hub.HfApi().model_info(name, revision=revision, timeout=timeout).sha
        is_cached = cached is not None and cached.name == commit
        if cached is not None and is_cached and is_complete:
            return cached
        return find(commit if is_cached else revision, False)  # a download by branch records its commit in the cache
    except Exception as error:  # errors of the hub and of its HTTP library
        reason = one_line(error)[:200]
        if cached is None:
            raise HubError(f"download failed ({reason})") from error
        _warn(name, reason)
        return cached


@functools.cache  # once for each name and reason
def _warn(name: str, reason: str) -> None:
    logger.warning("%s: the hub did not give its newest version (%s); using the cached one", name, reason)

"""Finds files of Hugging Face hub repositories in the hub's cache, and downloads them."""

import functools
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import huggingface_hub

from c2c_jax.errors import one_line

TIMEOUT = 10.0  # seconds to wait for the hub's first answer if its cache lacks the files
CHECK_TIMEOUT = 3.0  # seconds to wait for it if the cache has them
_COMMIT = re.compile(r"[0-9a-f]{40}")

logger = logging.getLogger(__name__)


class HubError(Exception):
    """Files are not in the hub's cache and cannot be downloaded. The message gives the reason."""


def is_hub_name(name: str) -> bool:
    """Whether a hub repository can have this name."""
    from huggingface_hub.errors import HFValidationError  # imports an HTTP library, which local names do not need
    from huggingface_hub.utils import validate_repo_id

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

    revision: a branch, tag or commit; None: the main branch as it was first downloaded. No request is made if the cache
    has the files and no branch or tag is named. For a branch or tag, the hub is asked for the newest commit; if it does
    not answer within CHECK_TIMEOUT, the cached files are used and a warning is logged. With HF_HUB_OFFLINE or
    TRANSFORMERS_OFFLINE, no request is ever made.
    Raises HubError if the cache lacks the files and they cannot be downloaded.
    """

    def find(revision: str | None, from_cache: bool) -> Path:
        first, *others = files
        path = huggingface_hub.hf_hub_download(name, first, revision=revision, local_files_only=from_cache)
        folder = Path(path).parent  # named after its commit
        for file in others:  # of the same commit, even if the branch moves meanwhile
            huggingface_hub.hf_hub_download(name, file, revision=folder.name, local_files_only=from_cache)
        return folder

    return _folder(name, revision, find)


def hub_snapshot(name: str, patterns: Sequence[str], *, download: bool = True) -> Path:
    """The local folder with all files of a hub repository's main branch that match one of the patterns.

    The hub is always asked, because a cached folder may lack some of them; if it does not answer within CHECK_TIMEOUT,
    the cached folder is returned and a warning is logged. download: whether requests to the hub are allowed.
    Raises HubError if there is no cached folder and the files cannot be downloaded.
    """

    def find(revision: str | None, from_cache: bool) -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=list(patterns), local_files_only=from_cache
            )
        )

    if download:
        return _folder(name, None, find, is_complete=False)
    if (cached := _cached(None, find)) is None:
        raise HubError("it is not in the hub's cache")
    return cached


def _cached(revision: str | None, find: Callable[[str | None, bool], Path]) -> Path | None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return find(revision, True)
    except LocalEntryNotFoundError:
        return None


def _folder(
    name: str, revision: str | None, find: Callable[[str | None, bool], Path], is_complete: bool = True
) -> Path:
    """The folder of a commit, or of the newest commit of a branch or tag, from the cache or downloaded; see
    `hub_files`.

    find: takes a revision and whether to search the cache only; returns the commit's folder. is_complete: whether a
    folder found in the cache has all files; if not, the hub is always asked.
    """
    cached, variable = _cached(revision, find), offline_variable()
    is_fixed = _COMMIT.fullmatch(revision) if revision else is_complete
    if cached is not None and (variable or is_fixed):
        return cached
    if variable:
        raise HubError(f"it is not in the hub's cache, and {variable} forbids downloads")
    try:
        # A request with a timeout and without retries fails faster than a download.
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
    logger.warning("%s: cannot ask the hub for a newer version (%s); using the cached one", name, reason)

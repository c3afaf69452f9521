"""Limits, checks and error messages that all readers of weight files share."""

import re
from collections.abc import Collection
from pathlib import Path

from c2c_jax.errors import CheckpointError
from c2c_jax.io.files import describe_placeholder

MAX_TENSORS = 2**14  # in a file; AudioLDM's largest has about 3,000
MAX_NAME = 512  # characters
HEAD = 512  # bytes that identify a file


def fetch_advice(path: Path) -> str:
    """Advice for error messages about a damaged checkpoint file."""
    return f"fetch it again, e.g. with `hf download OWNER/NAME {path.name} --local-dir {path.parent}`"


def damaged(path: Path, problem: str) -> CheckpointError:
    """Makes the error for a damaged file. problem: words that follow the path in the message."""
    return CheckpointError(f"{path} {problem}; {fetch_advice(path)}")


def truncated(path: Path, size: int) -> CheckpointError:
    """Makes the error for a file that ends too early. size: its size in bytes."""
    return damaged(path, f"is a partial download: {size:,} bytes")


def check_names(path: Path, names: Collection[str]) -> None:
    """Raises CheckpointError for more than MAX_TENSORS tensors, or names of more than MAX_NAME characters."""
    longest = max(map(len, names), default=0)
    if len(names) > MAX_TENSORS or longest > MAX_NAME:
        limits = f"expected {MAX_TENSORS:,} and {MAX_NAME} at most"
        raise damaged(path, f"has {len(names):,} tensors with names of up to {longest:,} characters; {limits}")


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins as safetensors do, with a header length of at most 2^40 and `{`."""
    return head[5:9] == b"\0\0\0{"


def not_weights(path: Path, head: bytes, kind: str) -> CheckpointError:
    """Makes the error for a file whose first bytes are not those of weights; it says what the file is instead.

    head: its first HEAD bytes. kind: the format expected, "safetensors" or "torch".
    """
    advice = fetch_advice(path)
    if content := describe_placeholder(head):
        pass
    elif len(head) < HEAD and re.fullmatch(rb"[\x20-\x7e\s]+", head):
        content = f"holds the text {head[:80].decode('ascii').strip()!r}"
    elif kind == "torch" and is_safetensors(head):
        content, advice = "is a safetensors file by its content", f"rename it to end in .safetensors, or {advice}"
    elif kind == "safetensors" and (head[:2] == b"PK" or head[:1] == b"\x80"):
        content, advice = "is a torch file by its content", f"rename it to end in .bin, or {advice}"
    else:
        content = f"is not a whole {kind} file"
    return CheckpointError(f"{path} {content}; expected weights: {advice}")

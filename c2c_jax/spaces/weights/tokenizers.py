"""Reads tokenizers of checkpoint folders with transformers, within size limits and without remote code."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from c2c_jax.errors import CheckpointError, one_line
from c2c_jax.io.extras import import_transformers
from c2c_jax.io.files import open_regular, path_exists
from c2c_jax.io.json import read_json_as

if TYPE_CHECKING:  # transformers imports torch: it is loaded only where texts are read
    from transformers import PreTrainedTokenizerBase

MAX_BYTES = 2**24  # of one file; published ones of CLIP and RoBERTa have up to 4 MB
MIN_TOKENS = 3  # of a text: start token, one word, end token


def read_tokenizer(folder: Path, kind: str = "AutoTokenizer", **options: Any) -> "PreTrainedTokenizerBase":
    """Reads the tokenizer in a folder. kind: its class in transformers. options: for `from_pretrained`.

    Raises CheckpointError if it cannot be read or cannot tokenise a text.
    """
    transformers = import_transformers()
    for path in sorted(folder.glob("*.json")):
        if "token" in path.name or path.name == "vocab.json":
            read_json_as(dict[str, msgspec.Raw], path, max_bytes=MAX_BYTES)  # checks size and syntax only
    if path_exists(merges := folder / "merges.txt"):
        with open_regular(merges, "a tokenizer's merges", CheckpointError, "fetch it again") as file:
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                raise CheckpointError(f"{merges} is larger than {MAX_BYTES:,} bytes; fetch it again")
    try:
        tokenizer = getattr(transformers, kind).from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
        msgspec.convert(tokenizer.model_max_length, Annotated[int, msgspec.Meta(ge=MIN_TOKENS)])
        tokenizer(["a"], truncation=True, max_length=MIN_TOKENS, padding=False)
    except BaseException as error:  # also pyo3's PanicException, which is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise
        raise CheckpointError(f"the tokenizer in {folder} cannot be read ({one_line(error)}); fetch it again") from None
    return tokenizer

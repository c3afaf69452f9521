"""Reads the preprocessor file of a checkpoint folder, which configures the conversion of images or sounds."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec

from c2c_jax.errors import CheckpointError
from c2c_jax.io.files import is_regular, path_exists
from c2c_jax.io.json import read_json

FILE = "preprocessor_config.json"
PROCESSOR_FILE = "processor_config.json"  # written by transformers 5 instead of FILE

P = TypeVar("P", bound="Preprocessor")


class Preprocessor:
    """Base class of `ImagePreprocessor` and `AudioPreprocessor`, which reads their fields from files.

    KIND: name for messages. PARTS: names of its section in `processor_config.json`. DEFAULTED: fields whose null
    means their default, as in transformers.
    """

    KIND: ClassVar[str]
    PARTS: ClassVar[tuple[str, ...]]
    DEFAULTED: ClassVar[tuple[str, ...]]

    @classmethod
    def read(cls: type[P], folder: Path) -> P:
        """Reads the preprocessor of a checkpoint folder, from the same file as transformers. Raises CheckpointError if
        it is missing or has invalid values."""
        advice = f"{folder} is not a whole checkpoint folder: fetch it again"
        if path_exists(combined := folder / PROCESSOR_FILE):
            content = read_json(combined, CheckpointError, advice)
            for part in cls.PARTS:
                if isinstance(fields := content.get(part), dict):
                    return cls.from_dict(fields, combined)
        path = folder / FILE
        if not is_regular(path):
            raise CheckpointError(f"{path} is missing, and {PROCESSOR_FILE} has no {cls.PARTS[0]}; {advice}")
        return cls.from_dict(read_json(path, CheckpointError, advice), path)

    @classmethod
    def from_dict(cls: type[P], content: Mapping[str, Any], path: Path = Path(FILE)) -> P:
        """Builds the preprocessor from a file's content. Unknown fields are ignored; null for a step `do_…` means
        False. path: the file, for messages. Raises CheckpointError for invalid values."""
        steps = {name: False for name, value in content.items() if value is None and name.startswith("do_")}
        given = {name: value for name, value in content.items() if value is not None or name not in cls.DEFAULTED}
        try:
            return msgspec.convert({**given, **steps}, cls)
        except msgspec.MsgspecError as error:
            raise CheckpointError(
                f"{path} cannot be used as an {cls.KIND} preprocessor ({error}); fetch it again"
            ) from None

    def to_dict(self) -> dict[str, Any]:
        """The content of a preprocessor_config.json for transformers."""
        fields = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {name: value for name, value in fields.items() if value is not None}

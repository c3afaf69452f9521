"""The package's exceptions. Every message says what was expected, what was found and what to do next."""


class C2CError(Exception):
    """Base of all errors that a user can fix. The command line prints it on one line and exits with code 2."""


class ConfigError(C2CError):
    """An unknown config field or flag, or an invalid value."""


class MissingExtraError(C2CError, ImportError):
    """A package that is needed is not installed; the message names the extra that installs it."""


class CheckpointError(C2CError):
    """A pretrained checkpoint that is missing or incomplete, or has unexpected tensors, shapes or a wrong
    architecture."""


class AbsentError(CheckpointError):
    """A checkpoint that is not on this machine but may be on the hub."""


class CaptionError(C2CError):
    """A caption source that is missing, empty or unreadable."""


class ImageError(C2CError):
    """An image that is missing, empty, damaged or too large to read."""


class AudioError(C2CError):
    """A sound file that is missing, empty, silent, damaged or in a format that cannot be read."""


class ManifestError(C2CError):
    """A list of images and sounds with wrong columns, no usable rows, or missing files."""


class StoreError(C2CError):
    """An embedding store that is damaged, unfinished or made from other spaces or captions."""


class BundleError(C2CError, ValueError):
    """A translator bundle that cannot be read, or does not fit the spaces it is used between."""


class BundleNotFoundError(BundleError, FileNotFoundError):
    """A translator bundle that is neither on this machine nor available from the hub."""


class ExportError(C2CError):
    """A bundle that cannot be exported: an unusable folder, no access to the hub, or an export whose outputs differ."""


class VectorError(C2CError):
    """An array of vectors with a wrong shape or type, or with vectors that are zero or not finite."""


class TrainingError(C2CError):
    """A training run that cannot start or continue."""


class GenerationError(C2CError):
    """A request that the sound generator cannot fulfil."""


class ReportError(C2CError):
    """An input of a report that is missing, damaged or malformed."""


def one_line(error: BaseException) -> str:
    """An exception as `Type: message` on a single line; the message is cut to 400 characters."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 400 else f'{text[:400]}…'}"

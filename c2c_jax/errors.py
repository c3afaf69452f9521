"""The one exception family. Every message says what was expected, what was found and what to do next."""


class C2CError(Exception):
    """Base of all errors a user can mend; the command line prints it in one line and exits with 2."""


class ConfigError(C2CError):
    """A config field that does not exist, or a value that cannot work."""


class CheckpointError(C2CError):
    """A pretrained checkpoint that is missing, incomplete or of other names, shapes or kind than expected."""


class AbsentError(CheckpointError):
    """A checkpoint that could be on the hub, and is not on this machine."""


class CaptionError(C2CError):
    """A caption source that is missing, empty or unreadable."""


class ImageError(C2CError):
    """A picture that is missing, empty, damaged or too large to read."""


class AudioError(C2CError):
    """A sound file that is missing, empty, silent, damaged or in a format that cannot be read."""


class ManifestError(C2CError):
    """A list of pictures and sounds with wrong columns, no usable row, or files that are not there."""


class StoreError(C2CError):
    """An embedding store that is damaged, unfinished or made from other spaces or captions."""


class BundleError(C2CError):
    """A translator bundle that cannot be read, or does not fit the spaces it is used between."""


class ExportError(C2CError):
    """A bundle that cannot be published: no place for it, no access to the hub, or an export that does not agree."""


class TrainingError(C2CError):
    """A training run that cannot start or go on."""


class GenerationError(C2CError):
    """A request the sound generator cannot meet."""


class ReportError(C2CError):
    """Something that was to be shown on a page and is missing, damaged or of another form."""


def one_line(error: BaseException) -> str:
    """A library's message on one line of at most 400 characters, its kind before it."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 400 else f'{text[:400]}…'}"

"""Checks of texts that users type, made before they are tokenised, and texts made safe to print."""

import re

from c2c_jax.errors import ConfigError

MAX_LETTERS = 10_000  # text encoders read 77 to 512 tokens
UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def require_text(text: str, role: str) -> None:
    """Raises ConfigError for a text that is empty, longer than MAX_LETTERS, contains a NUL, or is not UTF-8.

    role: how messages begin, such as "--text".
    """
    if not text.strip():
        raise ConfigError(f"{role} is empty: pass a text")
    if len(text) > MAX_LETTERS:
        raise ConfigError(f"{role} has {len(text):,} characters: pass at most {MAX_LETTERS:,}")
    if "\0" in text:
        raise ConfigError(f"{role} contains a NUL character: remove it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(f"{role} is not UTF-8: give it in the terminal's encoding") from None


def printable(text: object, unsafe: re.Pattern[str] = UNSAFE) -> str:
    """Returns text on one line, with control, direction and undecodable characters as escapes (`\\n`, `\\x1b`).

    unsafe: matches each character to escape.
    """
    return unsafe.sub(_escaped, str(text))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # Python decodes bytes of a file name that are not UTF-8 to these
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape").decode("ascii")

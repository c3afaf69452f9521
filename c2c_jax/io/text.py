"""Checks of texts that users type, made before they are tokenised."""

from c2c_jax.errors import ConfigError

MAX_LETTERS = 10_000  # text encoders read 77 to 512 tokens


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

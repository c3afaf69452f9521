"""Names and values in Markdown, so that nothing in them becomes markup."""

import re

from c2c_jax.io.console import printable

_MARKUP = re.compile(r"([!-,/:-@\[-^`{-~])")  # ASCII punctuation but -, . and _
_WWW = re.compile(r"www\.", re.IGNORECASE)  # what GitHub makes a link of


def plain(text: object) -> str:
    """Text on one line, its punctuation escaped."""
    return _WWW.sub(lambda found: f"{found[0][:-1]}\\.", _MARKUP.sub(r"\\\1", printable(text)))


def code(text: object) -> str:
    """Text on one line as a span of code, which may stand in a table."""
    line = printable(text).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if line.startswith("`") or line.endswith("`") or not line.strip() else ""
    return f"{fence}{pad}{line}{pad}{fence}"

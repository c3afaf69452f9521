"""Names and values in Markdown and in its code, so that nothing in them becomes markup."""

import json
import re

from c2c_jax.io.console import printable

_MARKUP = re.compile(r"([!-,/:-@\[-^`{-~])")  # ASCII punctuation except -, . and _
_WWW = re.compile(r"www\.", re.IGNORECASE)  # which GitHub turns into a link


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


def literal(text: str) -> str:
    """A Python string literal of the text, in UTF-8. Characters that are invisible, or change the direction of others,
    are escaped."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in quoted)

"""Escapes names and values for Markdown and for code in it."""

import json
import re

from c2c_jax.io.console import printable

_MARKUP = re.compile(r"([!-,/:-@\[-^`{-~])")  # ASCII punctuation except -, . and _
_WWW = re.compile(r"www\.", re.IGNORECASE)  # which GitHub turns into a link


def plain(text: object) -> str:
    """Text on one line with escaped punctuation."""
    return _WWW.sub(lambda match: f"{match[0][:-1]}\\.", _MARKUP.sub(r"\\\1", printable(text)))


def code(text: object) -> str:
    """Text on one line as a code span, also for tables."""
    line = printable(text).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if line.startswith("`") or line.endswith("`") or not line.strip() else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def literal(text: str) -> str:
    """The text as a Python string literal. Invisible characters and those that change the writing direction are
    escaped."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in quoted)

"""An extension of mkdocstrings that shows arguments in the package's docstrings as lists, for the Python API page.

A docstring describes its arguments in sentences, `source: raw vectors [N, S]. target: ...`. The page shows them as a
list. The package's exceptions and files of `docs/` that a docstring names become links.
"""

import re
from collections.abc import Iterable
from typing import Any

import griffe

from c2c_jax import errors


class ArgumentLists(griffe.Extension):
    """Rewrites the docstrings of functions and classes as Markdown."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Rewrites the docstring of a function; its arguments are its parameters."""
        _rewrite(func, [parameter.name.lstrip("*") for parameter in func.parameters])

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Rewrites the docstring of a class; its arguments are those of its constructor, and its attributes."""
        _rewrite(cls, [*(parameter.name for parameter in cls.parameters), *cls.attributes])

    def on_attribute(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Rewrites the docstring of an attribute or property."""
        _rewrite(attr, [])


def _rewrite(described: griffe.Function | griffe.Class | griffe.Attribute, names: Iterable[str]) -> None:
    if described.docstring is None:
        return
    paragraphs = re.split(r"\n\n+", described.docstring.value)
    text = "\n\n".join(_with_list(paragraph, set(names)) for paragraph in paragraphs)
    text = re.sub(r"\b[A-Z]\w+Error\b", lambda name: _error_link(name[0]), text)
    described.docstring.value = re.sub(r"\bdocs/([\w-]+)\.md", r"[\1.md](\1.md)", text)


def _error_link(name: str) -> str:
    return f"[{name}][c2c_jax.errors.{name}]" if hasattr(errors, name) else name


def _with_list(paragraph: str, names: set[str]) -> str:
    """A paragraph in which every sentence that begins with `NAME: ` or `NAME, NAME: ` starts a list item. `Raises` ends
    the list."""
    if not names or paragraph.startswith(" "):  # indented: code
        return paragraph
    name = "|".join(map(re.escape, sorted(names)))
    start = rf"((?:{name})(?:, (?:{name}))*): "
    text = ""
    for part in re.split(rf"(?:^|(?<=[.;)]) )(?={start}|Raises )", " ".join(paragraph.split()))[::2]:
        item = re.sub(rf"^{start}", r"* **\1**: ", part)
        text += ("\n" if item.startswith("* ") and text.rpartition("\n")[2].startswith("* ") else "\n\n") + item
    return text.strip()

"""Generates the tables of the reference pages from the package: an mkdocs hook, named in `mkdocs.yml`.

A line `<!-- generated: NAME -->` in a page of `docs/` is replaced by the Markdown that the function NAME returns.
"""

import argparse
import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from c2c_jax import recipes as recipe_package
from c2c_jax.cli.main import EXIT_CODES, VERBS
from c2c_jax.config import DATASET_PRESETS, Config, flat_fields
from c2c_jax.training.objectives import OBJECTIVES
from c2c_jax.translator.kinds import KINDS

MARKER = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fills the generated parts of a page. mkdocs calls this for every page."""
    return MARKER.sub(lambda match: GENERATORS[match[1]](), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Keeps browsers from breaking lines inside flags in running text. mkdocs calls this for every page."""
    return re.sub(
        r"(?<!</span>)<code>[^<]*</code>",
        lambda code: re.sub(r"--[\w.-]+", r'<span class="flag">\g<0></span>', code[0]),
        html,
    )


def commands() -> str:
    """A section for each command of `c2c`: its description, flags and examples."""
    return "\n\n".join([*map(_command, VERBS), "## Exit codes", _sentence(EXIT_CODES.partition(":")[2])])


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help of a fixed width, independent of the terminal."""

    def __init__(self, prog: str):
        super().__init__(prog, width=80)


def _command(name: str) -> str:
    module = VERBS[name]
    first, *rest = inspect.getdoc(module).splitlines()  # type: ignore[union-attr]
    parser = argparse.ArgumentParser(prog=f"c2c {name}", add_help=False, formatter_class=_Formatter)
    module.add_arguments(parser)
    return "\n\n".join([f"## c2c {name}", _text(first), *_flags(parser, "###"), *_epilog("\n".join(rest))])


def _flags(parser: argparse.ArgumentParser, heading: str) -> Iterator[str]:
    """The usage line of a parser and a table of its flags, and those of its subcommands."""
    indent = len("usage: ")
    usage = parser.format_usage()[indent:].rstrip().replace(f"\n{' ' * indent}", "\n")
    yield f"```output\n{usage}\n```"
    formatter = parser._get_formatter()
    rows = []
    for group in parser._action_groups:
        for action in group._group_actions:
            is_hidden = action.help == argparse.SUPPRESS or "--help" in action.option_strings
            if isinstance(action, argparse._SubParsersAction) or is_hidden:
                continue
            values = formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
            flag = ", ".join(action.option_strings)
            shown = f"`{f'{flag} {values}'.strip()}`" if flag else f"`{values}`"
            rows.append((shown, _text(formatter._expand_help(action)) if action.help else ""))
    if rows:
        yield _table(("argument", "meaning"), rows)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help for choice in action._choices_actions}
            for name, subparser in action.choices.items():
                yield f"{heading} {subparser.prog}"
                yield _sentence(_text(helps[name] or ""))
                yield from _flags(subparser, f"{heading}#")


def _epilog(text: str) -> Iterator[str]:
    """The paragraphs after a command's flags; the block that begins with `examples:` becomes a code block."""
    for block in re.split(r"\n\n+", text.strip()):
        first, _, rest = block.partition("\n")
        if first == "examples:":
            yield f"```\n{inspect.cleandoc(rest)}\n```"
        else:
            yield _text(block)


def configuration() -> str:
    """A table for each section of the config, for each translator kind and for each objective."""
    sections = [field for field in dataclasses.fields(Config) if dataclasses.is_dataclass(field.type)]
    plain = [field for field in dataclasses.fields(Config) if field not in sections]
    parts = ["## The run", _summary(Config), _fields(plain, "")]
    for section in sections:
        parts += [f"## {section.name}", _summary(section.type), _fields(dataclasses.fields(section.type), section.name)]  # type: ignore[arg-type]
    parts += ["## Settings of the translator kinds", "Set them with `--config.translator.settings.NAME=VALUE`."]
    for name, kind in KINDS.items():
        parts += _settings(name, kind, kind.Settings)
    parts += ["## Settings of the objectives", "Set them with `--config.objective.settings.NAME=VALUE`."]
    for name, objective in OBJECTIVES.items():
        parts += _settings(name, objective, objective)
    presets = [(f"`:{name}`", *(_value(preset.get(key)) for key in _PRESET_KEYS)) for name, preset in _presets()]
    return "\n\n".join([*parts, "## Presets", _PRESETS, _table(("preset", *map(_code, _PRESET_KEYS)), presets)])


_PRESETS = "A preset after a recipe's name, as in `mlp:gcc`, sets the two spaces and the captions."
_PRESET_KEYS = ("source", "target", "captions")


def _presets() -> list[tuple[str, Mapping[str, str]]]:
    return [(name, preset) for name, preset in DATASET_PRESETS.items() if preset]


def _settings(name: str, described: type, settings: type) -> list[str]:
    fields = dataclasses.fields(settings)
    return [f"### {name}", _summary(described), _fields(fields, "") if fields else "It has no settings."]


def _fields(fields: Any, section: str) -> str:
    prefix = f"{section}." if section else ""
    rows = [
        (f"`{prefix}{field.name}`", _default(field), _bounds(field.metadata), _text(field.metadata.get("help", "")))
        for field in fields
    ]
    return _table(("field", "default", "values", "meaning"), rows)


def _default(field: dataclasses.Field) -> str:
    return _value(field.default_factory() if callable(field.default_factory) else field.default)


def _bounds(metadata: Mapping[str, Any]) -> str:
    if "choices" in metadata:
        return ", ".join(map(_code, metadata["choices"]))
    if "ge" in metadata and "le" in metadata:
        return f"{_number(metadata['ge'])} to {_number(metadata['le'])}"
    words = {"gt": "above", "ge": "from", "lt": "below", "le": "at most"}
    return ", ".join(f"{word} {_number(metadata[name])}" for name, word in words.items() if name in metadata)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,g}"


def recipes() -> str:
    """A section for each recipe: its description and the settings that differ from the defaults."""
    defaults = dict(flat_fields(dataclasses.asdict(Config())))
    parts = []
    for module_info in pkgutil.iter_modules(recipe_package.__path__):
        module = importlib.import_module(f"{recipe_package.__name__}.{module_info.name}")
        changed = [
            (f"`{name}`", _value(value), _value(defaults.get(name)))
            for name, value in flat_fields(dataclasses.asdict(module.get_config()))
            if value != defaults.get(name)
        ]
        table = _table(("field", "recipe", "default"), changed)
        parts += [f"### {module_info.name}", *_docstring(module), table]
    return "\n\n".join(parts)


def _docstring(described: Any) -> Iterator[str]:
    """The paragraphs of a docstring as Markdown; indented ones become code blocks."""
    for block in re.split(r"\n\n+", inspect.getdoc(described) or ""):
        yield f"```\n{inspect.cleandoc(block)}\n```" if block.startswith("    ") else _text(block)


def _summary(described: Any) -> str:
    return _text((inspect.getdoc(described) or "").partition("\n\n")[0])


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _code(value: Any) -> str:
    return f"`{value}`"


def _value(value: Any) -> str:
    return "" if value is None or value in ("", {}) else _code(value)


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def _text(text: str) -> str:
    """Plain text as Markdown on one line. Flags become code, and pages that it names become links."""
    parts = " ".join(text.split()).split("`")
    for i in range(0, len(parts), 2):  # the others are code already
        escaped = re.sub(r"([\\*_|\[\]])", r"\\\1", parts[i]).replace("<", "&lt;")
        linked = re.sub(r"\bdocs/([\w-]+\.md)", r"[\1](\1)", escaped)
        parts[i] = re.sub(r"(?<![\w-])--[a-z][\w.-]*\w(=[\w/]+)?", lambda flag: _code(flag[0]), linked)
    return "`".join(parts)


GENERATORS = {function.__name__: function for function in (commands, configuration, recipes)}

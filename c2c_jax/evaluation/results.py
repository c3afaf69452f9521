"""The files that an evaluation writes, and reads again: `metrics.json`, `table.md`, `table.tex` and `vectors.npz`."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from c2c_jax.errors import C2CError, ConfigError
from c2c_jax.evaluation.rows import Missing, Row, SkippedFile
from c2c_jax.evaluation.tables import escaped, latex, markdown, tables
from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.console import printable
from c2c_jax.io.files import describe_path, sha256_of
from c2c_jax.io.json import read_json_as
from c2c_jax.io.output_paths import require_output_file, require_output_folder
from c2c_jax.io.vectors import unit_rows

FILES = ("metrics.json", "table.md", "table.tex", "vectors.npz")
VECTORS = 1000  # maximum number of vectors of each kind
SHOWN = 10  # files that are named in table.md and on the terminal
MAX_BYTES = 2**24  # of metrics.json: 100 for each file that was left out


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """The outcome of an evaluation, as in `metrics.json`.

    bundle, spaces, settings: what was evaluated, and how; the bundle's `spec` and `metrics` tell it from others. rows:
    the figures. left_out: files that were not used, or not in full. missing: figures that could not be computed.
    warnings: reasons to doubt the figures, a line each. vectors: see `write`; vectors_sha256: of `vectors.npz`; None:
    not yet written, or by an older version.
    """

    bundle: dict[str, Any]
    settings: dict[str, Any]
    rows: list[Row]
    left_out: list[SkippedFile]
    missing: list[Missing]
    spaces: dict[str, Any] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)
    vectors: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    vectors_sha256: str | None = None


def read_results(folder: Path, error: type[C2CError], advice: str) -> Results:
    """Reads a folder's `metrics.json`; the vectors stay empty. Raises `error`, with `advice` at the end of its line, if
    there is none."""
    return read_json_as(Results, folder / "metrics.json", error, advice, MAX_BYTES)


def write(results: Results, out: Path) -> list[Path]:
    """Writes the four files into the folder `out`, each atomically, `metrics.json` last, and returns their paths.

    `vectors.npz` has unit float16 vectors, at most 1,000 of each kind: `source_text`, `target_text` and
    `translated_text`, whose row i is one caption, and `source_image`, `translated_image` and `target_audio`, whose row
    i is one pair.
    """
    content = {
        "bundle": results.bundle,
        "spaces": results.spaces,
        "settings": {name: _plain(value) for name, value in results.settings.items()},
        "left_out": [{"file": printable(one.file), "why": printable(one.why)} for one in results.left_out],
        "missing": [dataclasses.asdict(one) for one in results.missing],
        "warnings": results.warnings,
        "rows": [row.to_json() for row in results.rows],
    }
    json.dumps(content, allow_nan=False)  # raises before a file is replaced
    found = tables(results.rows)
    with atomic_write(out / "vectors.npz") as temp:
        units: dict[str, Any] = {
            name: unit_rows(x_NE[:VECTORS]).astype(np.float16) for name, x_NE in results.vectors.items()
        }
        np.savez_compressed(temp, **units)
    content["vectors_sha256"] = sha256_of(out / "vectors.npz")
    texts = {
        "table.md": "\n".join(map(markdown, found)) + "".join(f"\n{escaped(line)}\n" for line in notes(results)),
        "table.tex": "\n".join(map(latex, found)),
        "metrics.json": json.dumps(content, indent=2, allow_nan=False) + "\n",
    }
    for name, text in texts.items():
        with atomic_write(out / name) as temp:
            temp.write_text(text, encoding="utf-8")
    return [out / name for name in FILES]


def require_results_place(out: Path) -> None:
    """Raises ConfigError if the four files cannot be written into `out`, or would replace other files than those of an
    earlier evaluation."""
    require_output_folder(out, "--out")
    for name in FILES:
        require_output_file(out / name, "the evaluation's file")
    if there := [name for name in FILES if describe_path(out / name) == "a file"]:
        read_results(out, ConfigError, f"{out / there[0]} would be replaced: pass another --out, or move it away")


def require_same_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raises ConfigError if a folder holds an evaluation with other settings."""
    if describe_path(folder / "metrics.json") != "a file":
        return
    held = read_results(folder, ConfigError, "pass another --out").settings
    if other := [f"{name}: {value}" for name, value in held.items() if _plain(settings.get(name)) != value]:
        raise ConfigError(
            f"{folder} holds an evaluation with other settings ({', '.join(other)}): pass another --out, or "
            f"--out {folder} to replace it"
        )


def _plain(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def notes(results: Results) -> list[str]:
    """Lines to print: warnings, what is missing and why, and the files that were left out, of which ten are named."""
    lines = [f"warning: {line}" for line in results.warnings] + [str(one) for one in results.missing]
    if results.left_out:
        lines.append(f"{len(results.left_out):,} not used, or not in full:")
        lines += [str(one) for one in results.left_out[:SHOWN]]
        if (more := len(results.left_out) - SHOWN) > 0:
            lines.append(f"and {more:,} more, named in metrics.json")
    return lines

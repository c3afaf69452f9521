"""What an evaluation leaves behind: `metrics.json`, `table.md`, `table.tex` and `vectors.npz`."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from c2c_jax.errors import C2CError, ConfigError
from c2c_jax.evaluation.rows import LeftOut, Missing, Row
from c2c_jax.evaluation.tables import escaped, latex, markdown, tables
from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.console import printable
from c2c_jax.io.files import found_at, sha256_of
from c2c_jax.io.json import read_json_as
from c2c_jax.io.places import require_file_place, require_folder_place
from c2c_jax.io.vectors import unit_rows

FILES = ("metrics.json", "table.md", "table.tex", "vectors.npz")
VECTORS = 1000  # of each kind, at most
SHOWN = 10  # files that are named in table.md and on the terminal
MAX_BYTES = 2**24  # of metrics.json: 100 for each clip that was left out


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """bundle, spaces, settings: what was evaluated, and how. rows: the figures. left_out: files that were not used in
    full. missing: figures that could not be computed. warnings: reasons to doubt the figures, a line each. vectors:
    see `write`."""

    bundle: dict[str, Any]
    spaces: dict[str, Any]
    settings: dict[str, Any]
    rows: list[Row]
    left_out: list[LeftOut]
    missing: list[Missing]
    vectors: Mapping[str, Float[np.ndarray, "N E"]]
    warnings: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """The translator that was evaluated: its sizes and its validation, as its bundle has them."""

    spec: dict[str, Any]
    metrics: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
    """What `metrics.json` holds; see `Results`. vectors_sha256: of `vectors.npz`; None: of an older version."""

    bundle: Judged
    settings: dict[str, Any]
    rows: list[Row]
    left_out: list[LeftOut]
    missing: list[Missing]
    warnings: list[str] = dataclasses.field(default_factory=list)
    vectors_sha256: str | None = None


def read_results(folder: Path, error: type[C2CError], advice: str) -> Written:
    """What `write` put into a folder's `metrics.json`. Raises `error`, `advice` at the end of its line, where there is
    none."""
    return read_json_as(Written, folder / "metrics.json", error, advice, MAX_BYTES)


def write(results: Results, out: Path) -> list[Path]:
    """Writes the four files into the folder `out`, each whole, `metrics.json` last, and gives them.

    `vectors.npz` has unit float16 vectors, 1,000 of each kind at most: `source_text`, `target_text` and
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
    notes = "".join(f"\n{escaped(line)}\n" for line in told(results))
    with atomic_write(out / "vectors.npz") as beside:
        units: dict[str, Any] = {
            name: unit_rows(x_NE[:VECTORS]).astype(np.float16) for name, x_NE in results.vectors.items()
        }
        np.savez_compressed(beside, **units)
    content["vectors_sha256"] = sha256_of(out / "vectors.npz")
    texts = {
        "table.md": "\n".join(map(markdown, found)) + notes,
        "table.tex": "\n".join(map(latex, found)),
        "metrics.json": json.dumps(content, indent=2, allow_nan=False) + "\n",
    }
    for name, text in texts.items():
        with atomic_write(out / name) as beside:
            beside.write_text(text, encoding="utf-8")
    return [out / name for name in FILES]


def require_results_place(out: Path) -> None:
    """Raises ConfigError where the four files cannot be written into `out`, or would replace others than those of an
    earlier evaluation."""
    require_folder_place(out, "--out")
    for name in FILES:
        require_file_place(out / name, "the evaluation's file")
    if there := [name for name in FILES if found_at(out / name) == "a file"]:
        advice = f"{out / there[0]} would be replaced: pass another --out, or move it away"
        read_results(out, ConfigError, advice)


def require_same_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raises ConfigError where a folder holds an evaluation with other settings."""
    if found_at(folder / "metrics.json") != "a file":
        return
    held = read_results(folder, ConfigError, "pass another --out").settings
    if other := [f"{name}: {value}" for name, value in held.items() if _plain(settings.get(name)) != value]:
        raise ConfigError(
            f"{folder} holds an evaluation with other settings ({', '.join(other)}): pass another --out, or "
            f"--out {folder} to replace it"
        )


def _plain(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def told(results: Results) -> list[str]:
    """Lines to print: warnings, what is missing and why, and the files that were left out, of which the first ten are
    named."""
    lines = [f"warning: {line}" for line in results.warnings]
    lines += [f"{one.what}: {one.why}" for one in results.missing]
    if results.left_out:
        names = [f"{one.file}: {one.why}" for one in results.left_out[:SHOWN]]
        more = len(results.left_out) - len(names)
        lines.append(f"{len(results.left_out):,} not used, or not in full:")
        lines += names + ([f"and {more:,} more, named in metrics.json"] if more else [])
    return lines

"""What an evaluation leaves behind: `metrics.json`, `table.md`, `table.tex` and `vectors.npz`."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from c2c_jax.errors import ConfigError
from c2c_jax.evaluation.gaps import unit_rows
from c2c_jax.evaluation.rows import LeftOut, Missing, Row
from c2c_jax.evaluation.tables import latex, markdown, tables
from c2c_jax.io.atomic import atomic_write

VECTORS = 1000  # of each kind, at most
SHOWN = 10  # files that are named in table.md and on the terminal


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """bundle, spaces, settings: what was evaluated, and how. rows: the figures. left_out: files that were not used in
    full. missing: what the tables go without. vectors: see `write`."""

    bundle: dict[str, Any]
    spaces: dict[str, Any]
    settings: dict[str, Any]
    rows: list[Row]
    left_out: list[LeftOut]
    missing: list[Missing]
    vectors: Mapping[str, Float[np.ndarray, "N E"]]


def write(results: Results, out: Path) -> list[Path]:
    """Writes the four files into the folder `out`, each whole, and gives them.

    `vectors.npz` has unit float16 vectors, 1,000 of each kind at most: `source_text`, `target_text` and
    `translated_text`, whose row i is one caption, and `source_image`, `translated_image` and `target_audio`, whose row
    i is one pair.
    """
    content = {
        "bundle": results.bundle,
        "spaces": results.spaces,
        "settings": results.settings,
        "left_out": [dataclasses.asdict(one) for one in results.left_out],
        "missing": [dataclasses.asdict(one) for one in results.missing],
        "rows": [row.to_json() for row in results.rows],
    }
    found = tables(results.rows)
    notes = "".join(f"\n{line}\n" for line in told(results))
    texts = {
        "metrics.json": json.dumps(content, indent=2, allow_nan=False) + "\n",
        "table.md": "\n".join(map(markdown, found)) + notes,
        "table.tex": "\n".join(map(latex, found)),
    }
    for name, text in texts.items():
        with atomic_write(out / name) as beside:
            beside.write_text(text, encoding="utf-8")
    with atomic_write(out / "vectors.npz") as beside:
        units: dict[str, Any] = {
            name: unit_rows(x_NE[:VECTORS]).astype(np.float16) for name, x_NE in results.vectors.items()
        }
        np.savez_compressed(beside, **units)
    return [out / name for name in (*texts, "vectors.npz")]


def require_same_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raises ConfigError where a folder holds an evaluation with other settings."""
    try:
        held = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["settings"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return  # none, or a damaged one, which is nothing to keep
    if other := [f"{name}: {value}" for name, value in held.items() if settings.get(name) != value]:
        raise ConfigError(
            f"{folder} holds an evaluation with other settings ({', '.join(other)}): name another --out, or that "
            "one to replace it"
        )


def told(results: Results) -> list[str]:
    """In lines for people: what is missing and why, and the files that were left out, the first ten by name."""
    lines = [f"{one.what}: {one.why}" for one in results.missing]
    if results.left_out:
        names = [f"{one.file}: {one.why}" for one in results.left_out[:SHOWN]]
        more = len(results.left_out) - len(names)
        lines.append(f"{len(results.left_out):,} not used, or not in full:")
        lines += names + ([f"and {more:,} more, named in metrics.json"] if more else [])
    return lines

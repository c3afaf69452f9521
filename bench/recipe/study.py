"""The study: panels of rows, one after another, each kept when it is done; then all their tables and two plots."""

import argparse
import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from bench.recipe import selection
from bench.recipe.bench import check_flags
from bench.recipe.configs import Settings, fitted
from bench.recipe.dial import Dial
from bench.recipe.ground import Ground
from bench.recipe.material import Material
from bench.recipe.plots import draw_curves, draw_frontier
from bench.recipe.scores import Summary
from bench.recipe.study_rows import BOUNDS, SHIPPED, Case, panels
from bench.recipe.table import flat, print_tables, tables
from bench.recipe.trial import Result, ceiling, chance, spaces
from c2c_jax.cli.train import sole_run
from c2c_jax.errors import ConfigError
from c2c_jax.evaluation.tables import markdown
from c2c_jax.io.atomic import atomic_write
from c2c_jax.training.check import check_rows

Settled = dict[str, dict[str, Settings]]  # a case's suffix → a row's name → its settings, before they are placed


def run(flags: argparse.Namespace) -> dict[str, float | str]:
    """Runs the panels that were asked for, or reads those that are done; prints their tables, writes `tables.md` and
    the plots, and gives all their figures as one flat object: `PANEL.RECIPE.METRIC`. Raises C2CError."""
    check_flags(flags)
    all_panels, console, bar = panels(flags), Console(), Progress(console=Console(stderr=True))
    chosen = _chosen(flags.panels, all_panels)
    if not flags.second:
        if "towers" in chosen:
            bar.console.print("towers is left out: it needs --second CLIP CLAP, another pair of spaces")
        chosen = [name for name in chosen if name != "towers"]
    folder, found = flags.workdir / "study", {}
    with sole_run(flags.workdir):
        pairs = [(flags.clip, flags.clap), *([tuple(flags.second)] if flags.second else [])]
        materials = [Material(*pair, flags.workdir / "vectors", flags.processes, bar) for pair in pairs]
        for name in all_panels:
            if name == "towers" and not flags.second:
                continue
            settled = {case.suffix: {row.name: row.settings() for row in case.rows} for case in all_panels[name]}
            stamp = _stamp(flags, materials, all_panels[name], settled)
            results = _kept(folder / f"{name}.json", stamp)
            if results is None and name in chosen:
                since = time.perf_counter()
                with bar:
                    results = list(_results(flags, materials, all_panels[name], settled, bar))
                _keep(folder / f"{name}.json", stamp, results, time.perf_counter() - since)
            if results is None:
                continue
            found[name] = results
            if name in chosen:
                console.rule(name) if console.is_terminal else console.print(f"## {name}\n")
                print_tables(tables(results), console)
        _write(folder, found)
        figures = {f"{name}.{key}": value for name in chosen for key, value in flat(found[name]).items()}
        if "tools" in chosen:
            selected = _selection(flags, materials, all_panels["tools"][0], folder / "selection.json", bar)
            print_tables([selection.table(selected)], console)
            figures |= {f"selection.{name}": value for name, value in selected.items()}
    return figures


def _selection(
    flags: argparse.Namespace, materials: Sequence[Material], tools: Case, path: Path, bar: Progress
) -> dict[str, float]:
    """Of all translators of the tools' panel, which are trained by now: the shipped memory beside them, and none."""
    ground = Ground(flags, materials[0], tools.captions, Dial(), bar)
    rows = {row.name: {name: ground.placed(config) for name, config in row.settings().items()} for row in tools.rows}
    (shipped,) = SHIPPED.settings().values()
    found = list(selection.points(ground, rows, shipped.memory))
    with atomic_write(path) as beside:
        beside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return selection.correlations(found)


def _chosen(asked: str | None, known: Mapping[str, Any]) -> list[str]:
    names = asked.split(",") if asked else list(known)
    for name in names:
        if name not in known:
            raise ConfigError(f"--panels {name!r} is none; there are {', '.join(known)}")
    return [name for name in known if name in names]


def _results(
    flags: argparse.Namespace, materials: Sequence[Material], cases: Sequence[Case], settled: Settled, bar: Progress
) -> Iterator[Result]:
    """Of all rows of a panel."""
    for case in cases:
        ground = Ground(flags, materials[case.second], case.captions, Dial.parse(case.offset), bar)
        rows = {
            name: {setting: ground.placed(config) for setting, config in settings.items()}
            for name, settings in settled[case.suffix].items()
        }
        if case.like is not None:
            rows = {
                name: {setting: fitted(config, ground.store.plan.rows, case.like) for setting, config in of_row.items()}
                for name, of_row in rows.items()
            }
        for of_row in rows.values():
            for config in of_row.values():
                check_rows(config, ground.store)
        found = [ground.result(ground.trained(row.name, rows[row.name], row.means)) for row in case.rows]
        references = [name for name in case.references if name not in BOUNDS]
        found += [ground.result(recipe) for recipe in ground.references(references)]
        test = ground.drawings["test"]
        found += [of(test) for name, of in zip(BOUNDS, (ceiling, chance), strict=True) if name in case.references]
        of_spaces = spaces(test)
        of_spaces.figures["offset"] = Summary(ground.dial.length, 0.0)
        yield from (dataclasses.replace(one, name=one.name + case.suffix) for one in [*found, of_spaces])


def _stamp(
    flags: argparse.Namespace, materials: Sequence[Material], cases: Sequence[Case], settled: Settled
) -> dict[str, Any]:
    """All that a panel's figures hang on."""
    sizes = {name: getattr(flags, name) for name in ("seeds", "draws", "pairs", "training_pairs", "most_settings")}
    content = [
        [
            dataclasses.astuple(dataclasses.replace(case, rows=())),
            [
                [name, {k: dataclasses.asdict(v) for k, v in of_row.items()}]
                for name, of_row in settled[case.suffix].items()
            ],
            [row.means for row in case.rows],
        ]
        for case in cases
    ]
    rows = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    used = sorted({case.second for case in cases})
    return {**sizes, "spaces": [materials[number].stamp for number in used], "rows": rows}


def _keep(path: Path, stamp: Mapping[str, Any], results: Sequence[Result], seconds: float) -> None:
    content = {"of": stamp, "seconds": seconds, "results": [dataclasses.asdict(one) for one in results]}
    with atomic_write(path) as beside:
        beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _kept(path: Path, stamp: Mapping[str, Any]) -> list[Result] | None:
    """None where there are none, or of a panel that was another one."""
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["of"] != stamp:
        return None
    return [
        Result(
            name=one["name"],
            figures={name: Summary(**figure) for name, figure in one["figures"].items()},
            setting=one["setting"],
            validation=Summary(**one["validation"]) if one["validation"] else None,
        )
        for one in content["results"]
    ]


def _write(folder: Path, found: Mapping[str, Sequence[Result]]) -> None:
    """The main table of each panel that is done, and the plots of the two that have one."""
    parts = []
    for name, results in found.items():
        table = tables(results)[0]
        parts.append(markdown(dataclasses.replace(table, title=f"{name}: {table.title}")))
    with atomic_write(folder / "tables.md") as beside:
        beside.write_text("\n".join(parts), encoding="utf-8")
    for name, draw in (("curves", draw_curves), ("frontier", draw_frontier)):
        if name in found:
            with atomic_write(folder / f"{name}.png") as beside:
                draw(beside, {one.name: one.figures for one in found[name]})

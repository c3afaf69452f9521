"""Scores a translator on captions, on pairs of images and sounds, and on generated sounds."""

import dataclasses
from pathlib import Path
from typing import Any

from c2c_jax.api.messages import as_integer, flags_to_arguments
from c2c_jax.api.translator import Translator, as_translator
from c2c_jax.errors import ConfigError
from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.evaluate import EvalRequest
from c2c_jax.evaluation.evaluate import evaluate as evaluate_request
from c2c_jax.evaluation.results import Results, markdown, notes, require_results_place, tables, write
from c2c_jax.io.progress import show_progress


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """The results of an evaluation, with 95 % intervals. results: all scores; docs/metrics.md defines them."""

    results: Results

    def __repr__(self) -> str:
        tasks = ", ".join(self.metrics)
        return f"Evaluation({len(self.results.rows):,} scores; {tasks})"

    @property
    def metrics(self) -> dict[str, dict[str, dict[str, float]]]:
        """The scores by task, method and metric: `metrics["images_to_sounds"]["translator"]["recall@1"]`. Tasks with
        two directions have a key for each, such as "captions_source_to_target"."""
        nested: dict[str, dict[str, dict[str, float]]] = {}
        for row in self.results.rows:
            task = f"{row.task}_{row.direction}" if row.direction else row.task
            nested.setdefault(task, {}).setdefault(row.method, {})[row.metric] = row.value
        return nested

    @property
    def notes(self) -> list[str]:
        """Warnings, scores that could not be computed, and files that were left out, one line each."""
        return notes(self.results)

    def table(self) -> str:
        """All tables in Markdown, with intervals."""
        return "\n".join(map(markdown, tables(self.results.rows)))

    @flags_to_arguments
    def save(self, folder: str | Path) -> Path:
        """Writes metrics.json, table.md, table.tex and vectors.npz, which `c2c report` reads. Raises ConfigError if the
        folder holds other files of these names."""
        folder = Path(folder).expanduser()
        require_results_place(folder)
        write(self.results, folder)
        return folder

    def _repr_markdown_(self) -> str:
        """The tables, for notebooks."""
        return self.table()


@flags_to_arguments
def evaluate(
    translator: str | Path | Translator,
    *,
    pairs: str | Path | None = None,
    captions: str | None = None,
    sounds: str | Path | None = None,
    reference: str | Path | None = None,
    store: str | Path | None = None,
    clip: str | None = None,
    clap: str | None = None,
    csls: int | None = None,
    geometry: bool = False,
    bootstrap: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Scores a translator and its baselines, as `c2c evaluate` does.

    translator: a `Translator`, or a name for `load`. pairs: a CSV file with the columns image, audio and, optionally,
    label and caption, or the folder of a known data set. captions: a caption source such as `txt:FILE`; None: for a
    run, the captions that training held out. sounds: a folder of generated sounds with their records. reference: a
    folder of real sounds to compare the generated ones with. store: the training store; None: the one that the run
    recorded. clip, clap: checkpoints; None: those that the translator names. csls: number of neighbours for CSLS
    scores; None: no such scores. geometry: whether to describe the two spaces. bootstrap: number of bootstrap resamples
    for the intervals. seed: random seed of intervals, folds and subsets. progress: whether to show progress on stderr.
    Raises the same errors as `c2c evaluate`, and ConfigError if there is nothing to evaluate on. Files that cannot be
    read are left out and listed in `notes`.
    """
    for name, value, least in (("bootstrap", bootstrap, 0), ("seed", seed, 0), ("csls", csls, 1)):
        if (value is not None or name != "csls") and as_integer(name, value) < least:
            raise ConfigError(f"{name} must be {least} or more, found {value}")
    translator = as_translator(translator)
    request = EvalRequest(
        run=translator.path or Path(translator.name),
        bundle=translator.bundle,
        captions=captions,
        store=_path(store),
        pairs=_path(pairs),
        generated=_path(sounds),
        reference=_path(reference),
        clip=clip or translator.named(translator.source),
        clap=clap or translator.named(translator.target),
        csls=csls,
        geometry=geometry,
        bootstrap=Bootstrap(resamples=bootstrap, seed=seed),
    )
    with show_progress(progress):
        return Evaluation(evaluate_request(request))


def _path(path: Any) -> Path | None:
    return None if path is None else Path(path).expanduser()

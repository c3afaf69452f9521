"""Compares recipes on real CLIP and CLAP vectors: photographs and captions, and images and sounds.

examples:
  python -m bench.real --data VECTORS
  python -m bench.real --data VECTORS --quick
  python -m bench.real --data VECTORS --json real.json

VECTORS is a folder of published vectors; docs/recipe.md lists the files and their sources. Translators from CLIP to
e5-small, a second text space, are trained on 2,646 texts and scored by 990 photographs, each of which retrieves its
own caption. e5 stands in for CLAP, for which vectors of enough captions are not published. Then two translators in
sequence, CLIP to e5 and e5 to CLAP, map CIFAR-10's images to ESC-50's sounds. The recommended recipe runs as users run
it. The others are applied to unchanged vectors, with images shifted by the difference of the means, and with all
vectors centred.
"""

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from bench.measure import bench_parser, write_figures
from bench.real import recommended
from bench.real.material import Material, View, mean_of, store_of
from bench.real.rows import CLOSED, TRAINED, translators
from bench.real.tasks import Figures, images_to_sounds, images_to_sounds_chance, mixed, photographs, sounds
from c2c_jax.errors import C2CError
from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.results import Table, markdown
from c2c_jax.retrieval.scoring import Scoring

VIEWS = ("raw", "moved", "centred")
COUNTS = (300, 600, 1200, 2400)
RECOMMENDED = "recommended"
COUNTED = (
    *(RECOMMENDED, "procrustes", "ridge 1", "nearest captions"),
    *("residual, noise 0.65", "residual", "before", "paper"),
)
CHAINED = (
    *(("procrustes",), ("ridge 1",), ("procrustes", "ridge 1"), ("nearest captions",)),
    *(("residual, noise 0.65",), ("before",), ("paper",)),
)


class Bench:
    """Collects all figures, as tables and as one flat object. seeds: number per trained recipe."""

    def __init__(self, material: Material, seeds: int, workdir: Path, console: Console):
        self.material, self.seeds, self.workdir, self.console = material, seeds, workdir, console
        self.figures: dict[str, float] = {}

    def photographs(self, kind: str, name: str, rows_N: np.ndarray | None = None) -> dict[str, str]:
        """R@1 and R@10 of a recipe in a view, with intervals. rows_N: texts to train on; None = all."""
        rows = slice(None) if rows_N is None else rows_N
        text_NS, text_NE = self.material.text_NS[rows], self.material.text_NE[rows]
        view = View.of(kind, text_NS, text_NE)
        store = store_of(*view.texts(text_NS, text_NE), self.workdir)
        translates = translators(name, store, self.seeds, self.workdir)
        results = [photographs(self.material, view, translate) for translate in translates]
        return self._figures(_key(name, kind, rows_N), results, ("r1", "r10"))

    def recommended(self, name: str, rows_N: np.ndarray | None = None) -> tuple[dict[str, str], list[str]]:
        """R@1 and R@10 of a recipe of RECIPES, and its selections by seed and half. rows_N: texts to train on; None =
        all."""
        rows = slice(None) if rows_N is None else rows_N
        results, bundles = [], []
        for seed in range(self.seeds):
            figures, of_seed = recommended.photographs(name, self.material, rows, seed, self.workdir)
            results.append(figures)
            bundles += of_seed
        key = _key(name, "centred", rows_N)
        self.figures |= {
            f"{key}.trained": float(np.mean([bundle.choice.trained for bundle in bundles])),
            f"{key}.behind_memory": float(np.mean([bundle.choice.memory for bundle in bundles])),
            f"{key}.pair_cosine": float(np.mean([bundle.choice.pair_cosine for bundle in bundles])),
        }
        return self._figures(key, results, ("r1", "r10")), [str(bundle.choice) for bundle in bundles]

    def chained(self, name: str) -> list[list[str]]:
        """Scores of images to sounds by two translators in sequence, both trained by a recipe of RECIPES."""
        results = [recommended.chained(name, self.material, seed, self.workdir) for seed in range(self.seeds)]
        cells = []
        for scoring in results[0]:
            is_main = name == RECOMMENDED and scoring == "centred"
            key = "pictures_to_sounds" if is_main else f"pictures_to_sounds.{_key(name, scoring)}"
            figures = self._figures(key, [figures[scoring] for figures in results], ("p10", "top1"))
            cells.append([name, scoring.replace("_", " "), *figures.values()])
        return cells

    def sounds(self) -> Table:
        cells = []
        for scoring, directions in sounds(self.material).items():
            row = [scoring]
            for direction, figures in directions.items():
                key = direction + {"raw": "_raw", "centred": "_centred"}.get(scoring, "")
                row += [self._kept(f"{key}.{name}", [values_Q]) for name, values_Q in figures.items()]
            cells.append(row)
        header = ["scores", "text → sound, first", "among 10", "sound → text, first", "among 10"]
        return Table(title="AudioCaps: retrieval of 497 captions and sounds, LAION CLAP", header=header, cells=cells)

    def images(self, kind: str, names: Sequence[str]) -> list[str]:
        """Scores of images to sounds by two translators in sequence, of one recipe or the mean of several. Images are
        centred by the general mean of images."""
        material = self.material
        first = View.of(kind, material.text_NS, material.text_NE)
        second = View.of(kind, material.written_QE, material.written_QA)
        stores = (
            store_of(*first.texts(material.text_NS, material.text_NE), self.workdir),
            store_of(*second.texts(material.written_QE, material.written_QA), self.workdir),
        )
        images = first.images(material.small_CS, material.general_S)
        results: list[Figures] = []
        by_recipe = [[translators(name, store, self.seeds, self.workdir) for store in stores] for name in names]
        for seed in range(max(len(by_seed) for steps in by_recipe for by_seed in steps)):
            pairs = [[by_seed[seed % len(by_seed)] for by_seed in steps] for steps in by_recipe]
            between = mixed([to_second(images) for to_second, _ in pairs])
            translated = mixed([second.translated(to_third(between)) for _, to_third in pairs])
            scorings = [  # the translations are centred already
                Scoring(query_mean_E=np.zeros_like(mean), candidate_mean_E=mean)
                for mean in map(mean_of, (material.audio_NA, material.class_text_KA))
            ]
            results.append(images_to_sounds(material, translated, *scorings))
        key = "pictures_to_sounds." + "+".join(_key(name, kind) for name in names)
        return [" + ".join(names), kind, *self._figures(key, results, ("p10", "top1")).values()]

    def _figures(self, key: str, results: Sequence[Figures], names: Sequence[str]) -> dict[str, str]:
        return {name: self._kept(f"{key}.{name}", [figures[name] for figures in results]) for name in names}

    def _kept(self, key: str, values: Sequence[np.ndarray]) -> str:
        """Formats and records the mean over seeds and queries, with its interval over queries."""
        values_Q = np.mean(values, axis=0)
        low, high = Bootstrap().of_mean(values_Q)
        self.figures |= {key: float(values_Q.mean()), f"{key}_low": low, f"{key}_high": high}  # type: ignore[dict-item]
        return f"{values_Q.mean():.3f} [{low:.3f}, {high:.3f}]"


def _key(name: str, kind: str, rows_N: np.ndarray | None = None) -> str:
    name = name.replace(", noise 0.65", "_noise").replace(", ", "_").replace(" ", "_")
    name = name if kind == "centred" else f"{name}_{kind}"
    return name if rows_N is None else f"{name}_{len(rows_N)}_texts"


def tables(bench: Bench, quick: bool) -> Sequence[Table]:
    material = bench.material
    cells = []
    for name in recommended.RECIPES:
        own, kept = bench.recommended(name)
        cells.append([name, *["–"] * 4, *own.values()])
        bench.console.print(f"{name}: selected {'; '.join(kept)}")
    for name in (*CLOSED, *TRAINED):
        row = [name]
        for kind in VIEWS:
            row += bench.photographs(kind, name).values()
        bench.console.print(f"{name}: done")
        cells.append(row)
    header = ["recipe", *(f"{kind}, {figure}" for kind in VIEWS for figure in ("first", "among 10"))]
    title = f"{len(material.image_PS)} photographs retrieve their captions' vectors"
    result = [Table(title=title, header=header, cells=cells)]
    if not quick:
        order_N = np.random.default_rng(0).permutation(len(material.text_NS))
        cells = []
        for name in COUNTED:
            row = []
            for count in COUNTS:
                rows_N = np.sort(order_N[:count])
                is_own = name == RECOMMENDED
                row.append(bench.recommended(name, rows_N)[0] if is_own else bench.photographs("centred", name, rows_N))
            cells.append([name, *(figures["r1"] for figures in row)])
        header = ["recipe, centred", *(f"{count:,} texts" for count in COUNTS)]
        result.append(Table(title="the same, first, by the number of texts", header=header, cells=cells))
    result.append(bench.sounds())
    cells = list(itertools.chain(*map(bench.chained, recommended.RECIPES)))
    cells += [bench.images(kind, names) for names in CHAINED for kind in VIEWS]
    chance = images_to_sounds_chance(material)
    bench.figures |= {"pictures_to_sounds.chance.p10": chance[0], "pictures_to_sounds.chance.top1": chance[1]}
    title = f"images to sounds by two translators in a row (by chance {chance[0]:.3f} and {chance[1]:.3f})"
    result.append(Table(title=title, header=["recipe", "vectors", "P@10", "class first"], cells=cells))
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = bench_parser("bench.real", __doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="VECTORS", help="the folder of .npz files")
    parser.add_argument(
        "--seeds", type=int, default=3, help="number of seeds per trained recipe (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="one seed; skip the runs on fewer texts")
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="keep trained models for later runs")
    flags = parser.parse_args(arguments)
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as temporary:
        workdir = flags.workdir or Path(temporary)
        workdir.mkdir(parents=True, exist_ok=True)
        try:
            bench = Bench(Material.read(flags.data), 1 if flags.quick else flags.seeds, workdir, console)
            for table in tables(bench, flags.quick):
                print(markdown(table))
        except C2CError as error:
            parser.exit(2, f"bench.real: {error}\n")
    write_figures(flags.json, bench.figures)


if __name__ == "__main__":
    main()

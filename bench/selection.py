"""Measures how well scores that need no pairs predict the quality of translators, on three sets of vectors.

examples:
  python -m bench.selection --data VECTORS                       # an hour on two cores
  python -m bench.selection --data VECTORS --worlds real --json selection.json

VECTORS is the folder of published vectors that `bench.real` reads. Worlds: "real", where photographs of Flickr8k
retrieve their captions' e5 vectors; "natural" and "clip", where the mini world's images retrieve sounds, with its own
vectors and with the geometry of real CLIP and CLAP (see `bench.recipe --geometry`). In each, translators of many kinds
are trained on captions alone; each is also blended with the partial rotation, and combined with a caption memory. For
each score it prints the rank correlation (Spearman) with the translators' quality on images that training never used,
the quality of the translator that it ranks first, and the same for real images and sounds (CIFAR-10 and ESC-50).
"""

import dataclasses
import itertools
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.progress import Progress
from scipy.stats import spearmanr

from bench.measure import bench_parser, write_figures
from bench.real.material import Material, centred, mean_of, store_of, unit32
from bench.real.tasks import halves, images_to_sounds, ranks
from bench.recipe.ground import Ground
from bench.recipe.material import Material as MiniMaterial
from bench.runs import trained
from c2c_jax.config import (
    PERTURBED_SCORES,
    AugmentConfig,
    Config,
    DataConfig,
    MemoryConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TranslatorConfig,
)
from c2c_jax.data.store import Store
from c2c_jax.evaluation.results import Table, markdown
from c2c_jax.miniworld.world import SHARED
from c2c_jax.retrieval.nearest_captions import TrainingCaptions, nearest_caption
from c2c_jax.retrieval.scoring import Scoring
from c2c_jax.training.candidates import closed_form_maps
from c2c_jax.training.check import build_spec
from c2c_jax.training.closed_form import caption_means, moments
from c2c_jax.training.loader import split_rows
from c2c_jax.training.memory import draw_memory
from c2c_jax.training.selection import PerturbedCaptions, perturb_captions
from c2c_jax.translator.centring import ModalityMeans
from c2c_jax.translator.memory import Memory, apply_memory

BLENDS = (0.25, 0.5)  # weights of the trained translator in a blend with the partial rotation
MEMORY_WEIGHT = 0.45
SCORES = (*PERTURBED_SCORES, "recall@1", "recall@10", "agreement@1", "agreement@10", "transfer")

Map = Callable[[np.ndarray], np.ndarray]  # centred source vectors to target vectors
Point = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """Vectors to train and score on ("world" on the command line). image_PS: unlabelled images for the scores. truth:
    measures a map of centred vectors on other images. main: the figure to correlate with."""

    name: str
    store: Store
    image_PS: Float[np.ndarray, "P S"]
    truth: Callable[[Map, ModalityMeans], dict[str, float]]
    main: str
    holdout: int
    batch_size: int
    width: int
    steps: Sequence[int]


def configs(setting: Setting) -> Iterator[tuple[str, Config]]:
    """All combinations of objectives, strengths of noise, depths and numbers of steps, with their names."""
    kinds = (("infonce", 0.07), ("infonce", 0.3), ("cosine", 0.07), ("sigmoid", 0.07))
    for (kind, temperature), noise, depth, steps in itertools.product(kinds, (0.35, 0.65, 1.0), (2, 4), setting.steps):
        yield (
            f"{kind} {temperature:g}, noise {noise:g}, depth {depth}, {steps} steps",
            Config(
                source="", target="", seed=0, batch_size=setting.batch_size, epochs=1, steps=steps,
                eval_every=10**6, checkpoint_every=10**6, data=DataConfig(validation_size=setting.holdout),
                translator=TranslatorConfig(
                    kind="residual", settings={"width": setting.width, "depth": depth, "init": "procrustes"}
                ),
                augment=AugmentConfig(noise_cosine=noise),
                objective=ObjectiveConfig(
                    kind=kind, settings={"temperature": temperature} if kind == "infonce" else {}
                ),
                optimizer=OptimizerConfig(decay="cosine", ema=0.99),
            ),
        )  # fmt: skip


def points(setting: Setting, workdir: Path, console: Console) -> list[Point]:
    """Scores closed-form maps, and every config alone, blended and with the memory."""
    held_out, training = split_rows(setting.store.plan.rows, setting.holdout, 0)
    means = caption_means(setting.store, held_out, "centred")
    memory = draw_memory(MemoryConfig(size=8000, weight=MEMORY_WEIGHT), setting.store, training, 0, means)
    assert memory is not None
    judge = perturb_captions(setting.store, (held_out, training), means, means, "centred", memory, setting.image_PS, 0)
    scored = Scored(setting, judge, held_out, means, memory)
    (first, *_) = configs(setting)
    plan = setting.store.plan
    spec = build_spec(first[1], plan.source.dim, plan.target.dim)
    maps = closed_form_maps(moments(setting.store, held_out, spec, means), judge.inputs[False])
    results = [scored.point(linear.name, linear, use_memory) for linear in maps for use_memory in (False, True)]
    partial_rotation = maps[0]
    for name, config in configs(setting):
        data = dataclasses.replace(config.data, store=str(setting.store.path))
        config = dataclasses.replace(config, data=data)
        translator = trained(config, setting.store, workdir / setting.name).translator

        def alone(x_QS: np.ndarray, translator=translator) -> np.ndarray:
            parts = [translator(jnp.asarray(x_QS[at : at + 4096])) for at in range(0, len(x_QS), 4096)]
            return np.concatenate(list(map(np.asarray, parts)))

        length = float(np.linalg.norm(alone(judge.inputs[False]), axis=1).mean())
        results += [scored.point(name, alone, use_memory) for use_memory in (False, True)]
        for weight in BLENDS:

            def blend(x_QS: np.ndarray, weight=weight, alone=alone, length=length) -> np.ndarray:
                return weight * alone(x_QS) / length + (1 - weight) * partial_rotation(x_QS)

            results.append(scored.point(f"{name}, {weight:g} with the partial rotation", blend, False))
        console.print(f"{setting.name}: {name}")
    return results


class Scored:
    """Computes all scores of a map of centred vectors."""

    def __init__(
        self, setting: Setting, judge: PerturbedCaptions, held_out: np.ndarray, means: ModalityMeans, memory: Memory
    ):
        self.setting, self.judge, self.means, self.memory = setting, judge, means, memory
        self.source_HS, self.target_HE = (
            centred(setting.store.read_rows(side, held_out), means.mean(f"{side}_text"))
            for side in ("source", "target")
        )
        self.image_PS = centred(setting.image_PS, mean_of(setting.image_PS))
        self.route_PE = unit32(nearest_caption(self.image_PS, TrainingCaptions(setting.store, held_out, means)))

    def point(self, name: str, translate: Map, use_memory: bool) -> Point:
        """Scores a map. use_memory: whether to apply the caption memory before the map."""

        def translated(x_QS: np.ndarray) -> np.ndarray:
            return unit32(translate(np.asarray(apply_memory(self.memory, jnp.asarray(x_QS))) if use_memory else x_QS))

        clean_H = ranks(unit32(translate(self.source_HS)) @ self.target_HE.T, np.arange(len(self.target_HE)))
        agreed_P = ranks(translated(self.image_PS) @ self.route_PE.T, np.arange(len(self.route_PE)))
        scores = self.judge.scores(translate(self.judge.inputs[use_memory]))
        scores |= {f"recall@{k}": float(np.mean(clean_H <= k)) for k in (1, 10)}
        scores |= {f"agreement@{k}": float(np.mean(agreed_P <= k)) for k in (1, 10)}
        scores["transfer"] = math.sqrt(scores["recall@1"] * scores["agreement@1"])
        return {"name": name + ", memory" * use_memory, **scores, **self.setting.truth(translated, self.means)}


def real_setting(material: Material, workdir: Path) -> Setting:
    """The published vectors. One half of the photographs is for the scores, the other half are the queries. CIFAR-10's
    images retrieve ESC-50's sounds by a second map, the rotation of AudioCaps' captions."""
    reference, query = halves(len(material.image_PS))
    second = np.linalg.svd(
        centred(material.written_QE, mean_of(material.written_QE)).T
        @ centred(material.written_QA, mean_of(material.written_QA)),
        full_matrices=False,
    )
    rotation_EA = second[0] @ second[2]

    def truth(translate: Map, means: ModalityMeans) -> dict[str, float]:
        caption_PE = centred(material.caption_PE, means.mean("target_text"))
        images = centred(material.image_PS[query], mean_of(material.image_PS[reference]))
        rank_Q = ranks(unit32(translate(images)) @ caption_PE.T, query)
        hop = unit32(translate(centred(material.small_CS, material.general_S))) @ rotation_EA
        scorings = [
            Scoring(query_mean_E=np.zeros_like(mean), candidate_mean_E=mean)
            for mean in map(mean_of, (material.audio_NA, material.class_text_KA))
        ]
        retrieval = images_to_sounds(material, hop.astype(np.float32), *scorings)
        figures = {"r1": rank_Q == 1, "r10": rank_Q <= 10, **retrieval}
        return {name: float(np.mean(values_Q)) for name, values_Q in figures.items()}

    return Setting(
        name="real", store=store_of(material.text_NS, material.text_NE, workdir), image_PS=material.image_PS[reference],
        truth=truth, main="r10", holdout=400, batch_size=256, width=1024, steps=(150, 600),
    )  # fmt: skip


def miniworld_setting(geometry: str, workdir: Path) -> Setting:
    """The mini world: images of the test split retrieve sounds."""
    folder, bar = workdir / "recipe", Progress(console=Console(stderr=True))
    material = MiniMaterial("miniworld/clip", "miniworld/clap", folder / "vectors", os.cpu_count() or 1, bar)
    ground = Ground(
        material=material, workdir=folder, bar=bar, geometry=geometry, captions=50_000, seeds=1, draws=1, pairs=1440,
        training_pairs=6000,
    )  # fmt: skip
    scenes = ground.drawings[0].scenes
    audio_NE, sources_N = centred(scenes.audio_NE, mean_of(scenes.audio_NE)), scenes.cells_N // len(SHARED)
    image_PS = ground.image_PS

    def truth(translate: Map, means: ModalityMeans) -> dict[str, float]:
        del means
        nearest_N = (unit32(translate(centred(scenes.image_NS, mean_of(image_PS)))) @ audio_NE.T).argmax(axis=1)
        return {
            "cell": float(np.mean(scenes.cells_N == scenes.cells_N[nearest_N])),
            "source": float(np.mean(sources_N == sources_N[nearest_N])),
        }

    return Setting(
        name=geometry, store=ground.store, image_PS=image_PS, truth=truth, main="cell", holdout=1000,
        batch_size=512, width=256, steps=(1500,),
    )  # fmt: skip


def figures(setting: Setting, points: Sequence[Point]) -> dict[str, float]:
    """`WORLD.SCORE` → rank correlation of a score with the main figure; `WORLD.SCORE.chosen` → the main figure of the
    translator that the score ranks first. The same for `WORLD.p10` if there are real sounds."""
    truths = [setting.main, *(["p10"] if "p10" in points[0] else [])]
    out: dict[str, float] = {f"{setting.name}.runs": len(points)}
    for truth in truths:
        truth_R = np.array([point[truth] for point in points])
        suffix = "" if truth == setting.main else f".{truth}"
        out[f"{setting.name}{suffix}.best"] = float(truth_R.max())
        for score in SCORES:
            score_R = np.array([point[score] for point in points])
            out[f"{setting.name}{suffix}.{score}"] = float(spearmanr(score_R, truth_R).statistic)
            out[f"{setting.name}{suffix}.{score}.chosen"] = float(truth_R[score_R.argmax()])
    return out


def table(names: Sequence[str], figures: Mapping[str, float]) -> Table:
    header = ["score", *itertools.chain(*((name, f"{name}, chosen") for name in names))]
    cells = []
    for score in SCORES:
        pairs = ((figures[f"{name}.{score}"], figures[f"{name}.{score}.chosen"]) for name in names)
        cells.append(
            [score, *itertools.chain(*((f"{correlation:.2f}", f"{chosen:.3f}") for correlation, chosen in pairs))]
        )
    cells.append(["best of all", *itertools.chain(*(("", f"{figures[f'{name}.best']:.3f}") for name in names))])
    title = "rank correlation with unseen images, and what the best by each score reaches"
    return Table(title=title, header=header, cells=cells)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = bench_parser("bench.selection", __doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="VECTORS", help="the folder of .npz files")
    parser.add_argument("--worlds", default="real,natural,clip", metavar="A,B", help="default: %(default)s")
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="keep trained models for later runs")
    flags = parser.parse_args(arguments)
    console = Console(stderr=True)
    all_figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        workdir = flags.workdir or Path(temporary)
        workdir.mkdir(parents=True, exist_ok=True)
        for name in flags.worlds.split(","):
            is_real = name == "real"
            setting = real_setting(Material.read(flags.data), workdir) if is_real else miniworld_setting(name, workdir)
            all_figures |= figures(setting, points(setting, workdir / "selection", console))
    names = flags.worlds.split(",")
    names = list(itertools.chain(*([name, "real.p10"] if name == "real" else [name] for name in names)))
    print(markdown(table(names, all_figures)))
    write_figures(flags.json, all_figures)


if __name__ == "__main__":
    main()

"""The recommended recipe as its users run it: raw vectors, unlabelled pictures beside the texts, its own choice."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from bench.real.material import Material, centred, mean_of, store_of
from bench.real.tasks import Figures, halves, pictures_to_sounds, ranks
from c2c_jax.cli.recipe import read_config
from c2c_jax.evaluation.translation import method_of
from c2c_jax.io.atomic import atomic_write
from c2c_jax.retrieval.scoring import Scoring
from c2c_jax.retrieval.search_scoring import translated_captions
from c2c_jax.training import log
from c2c_jax.training.train import train
from c2c_jax.translator.bundle import Bundle, load_bundle

RECIPE = "configs/recommended.py"
RECIPES = {"recommended": [], "recommended, noisy_cosine": ["--config.select_by=noisy_cosine"]}  # overridden fields
OVERRIDES: list[str] = []  # further overrides, set by tests alone
DONE = "done.json"  # in the folder of a run that came to its end


def trained(
    name: str,
    text_NS: Float[np.ndarray, "N S"],
    text_NE: Float[np.ndarray, "N E"],
    picture_PS: Float[np.ndarray, "P S"],
    seed: int,
    workdir: Path,
) -> Bundle:
    """The bundle that a recipe of RECIPES trains on paired texts and unlabelled pictures. A finished run is reused."""
    store = store_of(text_NS, text_NE, workdir)
    config = read_config(RECIPE, [*RECIPES[name], *OVERRIDES])
    data = dataclasses.replace(config.data, store=str(store.path), captions="", drop_duplicates=False)
    config = dataclasses.replace(config, source="", target="", seed=seed, checkpoint_every=10**9, data=data)
    content = json.dumps([dataclasses.asdict(config), store.path.name], sort_keys=True).encode()
    run = workdir / "runs" / hashlib.sha256(content + np.ascontiguousarray(picture_PS).tobytes()).hexdigest()[:16]
    if not (run / DONE).is_file():
        was_quiet, log.console.quiet = log.console.quiet, True
        try:
            is_done = train(config, store, run, picture_PS)
        finally:
            log.console.quiet = was_quiet
        if not is_done:
            raise SystemExit("training was interrupted")
        with atomic_write(run / DONE) as beside:
            beside.write_text("{}\n", encoding="utf-8")
    return load_bundle(run / "bundle")


def translated(
    bundle: Bundle, picture_PS: Float[np.ndarray, "P S"], mean_S: Float[np.ndarray, "S"] | None = None
) -> Float[np.ndarray, "P E"]:
    """Pictures' unit target vectors. mean: of pictures, in the place of the bundle's own."""
    gap = bundle.gap if mean_S is None else dataclasses.replace(bundle.gap, source_image=mean_S)
    return method_of("recommended", bundle.translator, gap, bundle.memory).of_images(picture_PS)


def photographs(
    name: str, material: Material, rows: slice | np.ndarray, seed: int, workdir: Path
) -> tuple[Figures, Sequence[Bundle]]:
    """As `tasks.photographs`, and the bundles of both halves: the pictures of a run are the half that is not asked."""
    rank_P, bundles = np.zeros(len(material.image_PS), np.int64), []
    first, second = halves(len(rank_P))
    for known, asked in ((first, second), (second, first)):
        bundle = trained(name, material.text_NS[rows], material.text_NE[rows], material.image_PS[known], seed, workdir)
        mean_E = bundle.gap.mean("target_text")
        found_PE = centred(translated(bundle, material.image_PS[asked]), mean_E)
        rank_P[asked] = ranks(found_PE @ centred(material.caption_PE, mean_E).T, asked)
        bundles.append(bundle)
    return {"r1": (rank_P == 1).astype(np.float64), "r10": (rank_P <= 10).astype(np.float64)}, bundles


def chained(name: str, material: Material, seed: int, workdir: Path) -> dict[str, Figures]:
    """Two translators in a row: CIFAR-10's pictures among ESC-50's sounds, by centred cosines and as a search scores.

    The first is trained on the texts, with the photographs as its unlabelled pictures; the second on AudioCaps'
    captions, with what the first makes of the photographs. CIFAR-10's pictures are centred by the general mean.
    """
    first = trained(name, material.text_NS, material.text_NE, material.image_PS, seed, workdir)
    between_PE = translated(first, material.image_PS)
    second = trained(name, material.written_QE, material.written_QA, between_PE, seed, workdir)
    found_CA = translated(second, translated(first, material.small_CS, material.general_S))
    mean_A = second.gap.mean("target_text")
    found = {}
    for scoring, reference_RA in (("centred", None), ("less_hubness", translated_captions(second))):
        scorings = [
            Scoring(query_mean_E=mean_A, candidate_mean_E=mean_of(x), reference_RE=reference_RA)
            for x in (material.sound_NA, material.class_text_KA)
        ]
        found[scoring] = pictures_to_sounds(material, found_CA, *scorings)
    return found

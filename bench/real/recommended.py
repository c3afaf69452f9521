"""Runs the recommended recipe as users do: with raw vectors, unlabelled images and its own selection."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from bench import runs
from bench.real.material import Material, centred, mean_of, store_of
from bench.real.tasks import Figures, halves, images_to_sounds, ranks
from c2c_jax.evaluation.methods import as_method
from c2c_jax.retrieval.scoring import Scoring, translated_captions
from c2c_jax.translator.bundle import Bundle

RECIPE = "configs/recommended.py"
RECIPES = {"recommended": [], "recommended, noisy_cosine": ["--config.select_by=noisy_cosine"]}  # overridden fields
OVERRIDES: list[str] = []  # further overrides, which only tests set


def trained(
    name: str,
    text_NS: Float[np.ndarray, "N S"],
    text_NE: Float[np.ndarray, "N E"],
    image_PS: Float[np.ndarray, "P S"],
    seed: int,
    workdir: Path,
) -> Bundle:
    """Trains a recipe of RECIPES on paired texts and unlabelled images; returns its bundle."""
    store = store_of(text_NS, text_NE, workdir)
    config = runs.read_recipe(RECIPE, *RECIPES[name], *OVERRIDES)
    data = dataclasses.replace(config.data, store=str(store.path), captions="", drop_duplicates=False)
    config = dataclasses.replace(config, source="", target="", seed=seed, checkpoint_every=10**9, data=data)
    return runs.trained(config, store, workdir / "runs", image_PS)


def translated(
    bundle: Bundle, image_PS: Float[np.ndarray, "P S"], mean_S: Float[np.ndarray, "S"] | None = None
) -> Float[np.ndarray, "P E"]:
    """Unit target vectors of images. mean_S: replaces the bundle's mean of images."""
    means = bundle.means if mean_S is None else dataclasses.replace(bundle.means, source_image=mean_S)
    return as_method("recommended", bundle.translator, means, bundle.memory).of_images(image_PS)


def photographs(
    name: str, material: Material, rows: slice | np.ndarray, seed: int, workdir: Path
) -> tuple[Figures, Sequence[Bundle]]:
    """As `tasks.photographs`, and the bundles of both halves. The unlabelled images of each are the other half."""
    rank_P, bundles = np.zeros(len(material.image_PS), np.int64), []
    first, second = halves(len(rank_P))
    for reference, query in ((first, second), (second, first)):
        bundle = trained(
            name, material.text_NS[rows], material.text_NE[rows], material.image_PS[reference], seed, workdir
        )
        mean_E = bundle.means.mean("target_text")
        translated_PE = centred(translated(bundle, material.image_PS[query]), mean_E)
        rank_P[query] = ranks(translated_PE @ centred(material.caption_PE, mean_E).T, query)
        bundles.append(bundle)
    return {"r1": (rank_P == 1).astype(np.float64), "r10": (rank_P <= 10).astype(np.float64)}, bundles


def chained(name: str, material: Material, seed: int, workdir: Path) -> dict[str, Figures]:
    """Two translators in sequence map CIFAR-10's images to ESC-50's sounds; scored with and without hubness.

    The first is trained on the texts, with the photographs as unlabelled images; the second on AudioCaps' captions,
    with the translated photographs. CIFAR-10's images are centred by the general mean.
    """
    first = trained(name, material.text_NS, material.text_NE, material.image_PS, seed, workdir)
    between_PE = translated(first, material.image_PS)
    second = trained(name, material.written_QE, material.written_QA, between_PE, seed, workdir)
    translated_CA = translated(second, translated(first, material.small_CS, material.general_S))
    mean_A = second.means.mean("target_text")
    figures = {}
    for scoring, reference_RA in (("centred", None), ("less_hubness", translated_captions(second))):
        scorings = [
            Scoring(query_mean_E=mean_A, candidate_mean_E=mean_of(x), reference_RE=reference_RA)
            for x in (material.audio_NA, material.class_text_KA)
        ]
        figures[scoring] = images_to_sounds(material, translated_CA, *scorings)
    return figures

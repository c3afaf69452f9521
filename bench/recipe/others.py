"""Tools that the shipped recipe does without, each on top of its noise and depth, and again behind its memory."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from unittest import mock

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Float

from bench.recipe.configs import read_settings, trained
from bench.recipe.methods import Recipe, Variant
from c2c_jax.config import MemoryConfig
from c2c_jax.data.arrays import space_of_array, store_of_arrays
from c2c_jax.data.store import Store
from c2c_jax.evaluation.gaps import unit_rows
from c2c_jax.evaluation.translation import Method, Translate
from c2c_jax.miniworld.captions import caption, captioned_scenes, paraphrases
from c2c_jax.models.layers import unit
from c2c_jax.models.memory import Memory, towards_captions
from c2c_jax.training.objectives import KINDS, Kind

if TYPE_CHECKING:
    from bench.recipe.ground import Ground

RECIPE = "configs/miniworld.py"  # what rows set fields of, and, as it is, what is shipped
BEHIND = "_memory"  # ends the name of a row whose pictures turn towards remembered captions
FROZEN: Mapping[str, object] = {"augment.noise": 1.0, "epochs": 4}  # noise lies in the vectors, in so many copies
COPIES, COSINE = 4, 0.8
TEMPLATES = (("a picture of {}", "the sound of {}"), ("a drawing of {}", "a recording of {}"), ("{}", "{}"))
DROPPED = 0.2  # share of words

Vectors = Float[np.ndarray, "N S"]
Texts = tuple[list[str], list[str]]  # what CLIP is given to read, and what CLAP is


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """How unit source vectors are changed. trained_on: of the captions, once or several times over."""

    trained_on: Vectors
    of_texts: Callable[[Vectors], Vectors] = staticmethod(lambda x_NS: x_NS)
    of_images: Callable[[Vectors], Vectors] = staticmethod(lambda x_NS: x_NS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Other:
    """fixed: fields of the config. texts: captions in place of the ground's. views: by setting, of unit vectors of
    captions [N, S] and unlabelled pictures [P, S]. together: whether the seeds' translations are averaged."""

    fixed: Mapping[str, object] = dataclasses.field(default_factory=dict)
    texts: Callable[[int], Texts] | None = None
    views: Callable[[Vectors, Vectors], dict[str, View]] = lambda text_NS, image_PS: {"": View(trained_on=text_NS)}
    together: bool = False


def _relational(settings, margin, predicted_BE, target_BE):
    """Translations lie as far apart as their targets do: mean squared difference of their cosines, on one device."""
    return jnp.mean((predicted_BE @ predicted_BE.T - target_BE @ target_BE.T) ** 2)


RELATIONAL = Kind(
    init=lambda settings: {},
    rows=lambda settings, params, predicted_RE, target_BE, places_R: unit(predicted_RE),
    whole=_relational,
)
# An objective that is this module's alone: known while its rows are trained.
with_relational = mock.patch.dict(KINDS, {"relational": RELATIONAL})


@with_relational
def other(name: str, ground: "Ground") -> Recipe:
    """A row. Its settings are those of its views, each with and without the means of pictures."""
    asked, behind = OTHERS[name.removesuffix(BEHIND)], name.endswith(BEHIND)
    clean_NS, target_NE = ground.store.read("source"), ground.store.read("target")
    if asked.texts:
        clean_NS, target_NE = (_unit(x) for x in _read(ground, name.removesuffix(BEHIND), asked.texts))
    clean_NS, image_PS = _unit(clean_NS), _unit(ground.pairs.image_NS)
    (shipped,) = read_settings(RECIPE, {}).values()
    remembered_MS = clean_NS[np.random.default_rng(0).permutation(len(clean_NS))[: shipped.memory.captions]]
    (config,) = read_settings(RECIPE, {}, NOT_SHIPPED | asked.fixed).values()
    config = dataclasses.replace(ground.placed(config), source="", target="")
    variants = []
    for setting, view in asked.views(clean_NS, image_PS).items():
        store = _store(ground, view.trained_on, np.tile(target_NE, (len(view.trained_on) // len(clean_NS), 1)))
        methods = trained(name, config, store, ground.flags.seeds, ground.flags.workdir / "runs", lambda: None)
        for has_means in (True, False):
            carry = functools.partial(
                _carried,
                view=view,
                shift_1S=(view.of_texts(clean_NS).mean(0) - view.of_images(image_PS).mean(0))[None] * has_means,
                memory=_memory(shipped.memory, view.of_texts(remembered_MS)) if behind else None,
            )
            ways = [
                Method(
                    name=name,
                    of_texts=lambda x_BS, method=method, view=view: method.of_texts(view.of_texts(_unit(x_BS))),
                    of_images=functools.partial(carry, of_texts=method.of_texts),
                )
                for method in methods
            ]
            told = ", ".join(filter(None, [setting, "means" if has_means else "no means"]))
            variants.append(Variant(setting=told, methods=(_mean(ways),) if asked.together else tuple(ways)))
    return Recipe(name=name, variants=tuple(variants))


def _carried(
    image_BS: Vectors, *, view: View, shift_1S: Vectors, memory: Memory | None, of_texts: Translate
) -> Float[np.ndarray, "B E"]:
    moved_BS = (view.of_images(_unit(image_BS)) + shift_1S).astype(np.float32)
    return of_texts(moved_BS if memory is None else np.asarray(towards_captions(memory, jnp.asarray(moved_BS))))


def _memory(config: MemoryConfig, source_MS: Vectors) -> Memory:
    captions_MS = jnp.asarray(_unit(source_MS), jnp.float16)
    return Memory(source=captions_MS, share=config.share, temperature=config.temperature)


def _mean(methods: Sequence[Method]) -> Method:
    def mean_of(ways: Sequence[Translate]) -> Translate:
        return lambda x_BS: _unit(np.mean([way(x_BS) for way in ways], axis=0))

    of_texts, of_images = (mean_of([getattr(one, way) for one in methods]) for way in ("of_texts", "of_images"))
    return Method(name=methods[0].name, of_texts=of_texts, of_images=of_images)


def _read(ground: "Ground", name: str, texts: Callable[[int], Texts]) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of texts, kept."""
    path = ground.flags.workdir / "vectors" / f"others-{name}-{ground.captions}-{ground.material.stamp}.npz"
    if not path.is_file():
        of_clip, of_clap = texts(ground.captions)
        np.savez(
            path, source=ground.material.clip.encode_text(of_clip), target=ground.material.clap.encode_text(of_clap)
        )
    with np.load(path) as found:
        return found["source"], found["target"]


def _store(ground: "Ground", source_NS: Vectors, target_NE: np.ndarray) -> Store:
    ids = space_of_array("captions", source_NS), space_of_array("captions", target_NE)
    digest = hashlib.sha256("".join(space.fingerprint for space in ids).encode()).hexdigest()[:12]
    return store_of_arrays(ground.flags.workdir / f"others-{digest}", source_NS, target_NE, ids)


def _unit(x_NS: np.ndarray) -> Vectors:
    return unit_rows(np.asarray(x_NS, np.float32)).astype(np.float32)


def _root(covariance_SS: np.ndarray) -> np.ndarray:
    values_S, vectors_SS = np.linalg.eigh(covariance_SS)
    return (vectors_SS * np.sqrt(np.maximum(values_S, 0))) @ vectors_SS.T


def _whitened(text_NS: Vectors, image_PS: Vectors) -> dict[str, View]:
    """Pictures get captions' mean and covariance (CORAL, Sun et al. 2016)."""
    means, roots = [], []
    for x_NS in (text_NS, image_PS):
        covariance_SS = np.cov(x_NS, rowvar=False) + 1e-5 * np.eye(x_NS.shape[1])
        means.append(x_NS.mean(0)[None])
        roots.append(_root(covariance_SS))
    map_SS = np.linalg.solve(roots[1], roots[0])
    return {"": View(trained_on=text_NS, of_images=lambda x_NS: (x_NS - means[1]) @ map_SS + means[0])}


def _low_rank(text_NS: Vectors, image_PS: Vectors) -> dict[str, View]:
    """Without the direction between the means, and those in which pictures vary most as held against captions."""
    S = text_NS.shape[1]
    covariances = [np.cov(x_NS, rowvar=False) + 1e-5 * np.eye(S) for x_NS in (image_PS, text_NS)]
    directions_SS = scipy.linalg.eigh(*covariances)[1][:, ::-1]
    apart_S1 = (image_PS.mean(0) - text_NS.mean(0))[:, None]

    def without(rank: int) -> View:
        basis_SK = np.linalg.qr(np.concatenate([apart_S1, directions_SS[:, : rank - 1]], axis=1))[0]

        def projected(x_NS: Vectors) -> Vectors:
            return (x_NS - x_NS @ basis_SK @ basis_SK.T).astype(np.float32)

        return View(trained_on=projected(text_NS), of_texts=projected, of_images=projected)

    return {f"rank={rank}": without(rank) for rank in (1, 4, 8)}


def _drawn_noise(text_NS: Vectors, covariance_SS: np.ndarray) -> dict[str, View]:
    rng, root_SS = np.random.default_rng(0), _root(covariance_SS)
    copies = []
    for _ in range(COPIES):
        away_NS = rng.normal(size=text_NS.shape) @ root_SS
        away_NS = _unit(away_NS - np.sum(away_NS * text_NS, axis=1, keepdims=True) * text_NS)
        copies.append(COSINE * text_NS + np.sqrt(1 - COSINE**2) * away_NS)
    return {"": View(trained_on=np.concatenate(copies).astype(np.float32))}


def _pseudo_pictures(text_NS: Vectors, image_PS: Vectors) -> dict[str, View]:
    """Half of the captions is given as the pictures nearest to it (C-MCR's memory of pictures, Wang et al. 2023)."""
    logits_NP = 100 * (text_NS @ image_PS.T)
    weights_NP = np.exp(logits_NP - logits_NP.max(axis=1, keepdims=True))
    is_picture_N1 = np.random.default_rng(0).random((len(text_NS), 1)) < 0.5
    return {"": View(trained_on=np.where(is_picture_N1, _unit(weights_NP @ image_PS), text_NS).astype(np.float32))}


def _in_templates(count: int) -> Texts:
    rng, texts = np.random.default_rng(0), [text for _, _, text in captioned_scenes("train", count)]
    chosen = [TEMPLATES[number] for number in rng.integers(len(TEMPLATES), size=count)]
    of_clip, of_clap = ([form[side].format(text) for form, text in zip(chosen, texts, strict=True)] for side in (0, 1))
    return of_clip, of_clap


def _without_words(count: int) -> Texts:
    rng, found = np.random.default_rng(0), []
    for _, _, text in captioned_scenes("train", count):
        words = text.split()
        found.append(" ".join(word for word in words if rng.random() >= DROPPED) or text)
    return found, found


def _of_styles(*styles: str) -> Callable[[int], Texts]:
    def texts(count: int) -> Texts:
        found = [text for _, _, text in captioned_scenes("train", count, styles=styles)]
        return found, found

    return texts


def _paraphrased(count: int) -> Texts:
    rng, pairs = np.random.default_rng(0), []
    for scene, style, text in captioned_scenes("train", count):
        pairs.append((text, paraphrases(scene, style, 1, rng)[0]))
    of_clip, of_clap = ([pair[side] for pair in pairs] for side in (0, 1))
    return of_clip, of_clap


def _recombined(count: int) -> Texts:
    """Half of the captions tell of another's count, size and place: of scenes, too, that no caption told of."""
    rng, found = np.random.default_rng(0), []
    told = list(captioned_scenes("train", count))
    for (scene, style, text), other in zip(told, rng.permutation(count), strict=True):
        if rng.random() < 0.5:
            of = told[other][0]
            text = caption(dataclasses.replace(scene, count=of.count, size=of.size, place=of.place), style, rng)
        found.append(text)
    return found, found


NOT_SHIPPED: Mapping[str, object] = {"memory.captions": 0, "pictures.files": ""}  # here, but put beside it
OTHERS = {
    "none": Other(),
    "whitened": Other(views=_whitened),
    "low_rank": Other(views=_low_rank),
    "noise_drawn": Other(fixed=FROZEN, views=lambda t, i: _drawn_noise(t, np.eye(t.shape[1]))),
    "noise_as_captions": Other(fixed=FROZEN, views=lambda t, i: _drawn_noise(t, np.cov(t, rowvar=False))),
    "noise_as_pictures": Other(fixed=FROZEN, views=lambda t, i: _drawn_noise(t, np.cov(i, rowvar=False))),
    "pseudo_pictures": Other(views=_pseudo_pictures),
    "templates": Other(texts=_in_templates),
    "dropped_words": Other(texts=_without_words),
    "picture_captions": Other(texts=_of_styles("picture")),
    "sound_captions": Other(texts=_of_styles("sound")),
    "paraphrases": Other(texts=_paraphrased),
    "recombined": Other(texts=_recombined),
    "relational": Other(fixed={"objective.kind": "cosine + relational"}),
    "ensemble": Other(together=True),
}  # fmt: skip

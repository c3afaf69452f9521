"""The model card: what a bundle's own config says about a translator, and how to use it."""

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import jax
import jinja2
from flax import nnx
from huggingface_hub import ModelCardData

from c2c_jax.config import Config, flat_fields
from c2c_jax.publishing.markdown import code, literal, plain
from c2c_jax.publishing.names import hub_name
from c2c_jax.spaces.weights.folders import EMBEDDED_OWNER
from c2c_jax.translator.bundle import Bundle
from c2c_jax.translator.scores import NOISY_COSINE, NOISY_MRR, NOISY_SCORES
from c2c_jax.translator.scores import SCORES as CAPTION_SCORES

LIBRARY = "c2c_jax"
NON_COMMERCIAL, UNKNOWN = "cc-by-nc-sa-4.0", "other"
# How a checkpoint's hub name begins → its licence, by the hub's identifier and for people.
LICENCES = {
    "cvssp/audioldm": (NON_COMMERCIAL, "CC-BY-NC-SA-4.0"),
    "laion/CLIP-": ("mit", "MIT"),
    "miniworld/": ("apache-2.0", "Apache-2.0"),
    "openai/clip-": ("mit", "MIT"),
    "laion/clap-": ("apache-2.0", "Apache-2.0"),
    "laion/larger_clap": ("apache-2.0", "Apache-2.0"),
}
SCORES = {
    "recall@1": "share of captions whose own sound-space vector is the nearest of all held-out ones",
    "recall@5": "share of captions whose own is among the 5 nearest",
    "recall@10": "share of captions whose own is among the 10 nearest",
    "in_batch_top1": "share of captions whose own is the nearest of 32",
    "median_rank": "half of the captions find their own at this rank or before, counted from 1",
    "mean_cosine": "mean cosine of a translation and its caption's own vector",
    NOISY_MRR: "mean of 1 / rank of the own vectors of perturbed captions, which stand in for pictures",
    NOISY_COSINE: "mean cosine of the translations of perturbed captions and the captions' own vectors, both centred",
}
MAX_CANDIDATES = 20  # listed in a card, best first
# A caption source → the hub's dataset of the same captions.
DATASETS = {"tfds:conceptual_captions": "google-research-datasets/conceptual_captions"}


def model_card(bundle: Bundle, name: str, graphs: Sequence[str] = ()) -> str:
    """The card (`README.md`) of a published bundle, with the hub's front matter.

    name: what the example loads it by: a hub name or a folder. graphs: ONNX files that lie beside it.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "code": code,
        "plain": plain,
        "literal": literal,
        "json": lambda value: json.dumps(value, ensure_ascii=False),
        "thousands": "{:,}".format,
    }
    defaults = dict(flat_fields(dataclasses.asdict(Config())))
    fields = [(key, value) for key, value in flat_fields(bundle.recipe) if (key, value) not in defaults.items()]
    choice = bundle.choice
    ranked = sorted(choice.scores, key=lambda one: -choice.scores[one]) if choice else []
    return environment.get_template("card.md.j2").render(
        bundle=bundle,
        spec=bundle.spec,
        means=bundle.means,
        memory=bundle.memory,
        choice=choice,
        name=name,
        graphs=graphs,
        hub_name=hub_name,
        licence=licence,
        own_licence=_own_licence(bundle),
        front_matter=_front_matter(bundle),
        # A folder may have any name; a hub repository has a chosen one.
        title=name.rpartition("/")[2] if hub_name(name) else f"From {bundle.source.name} to {bundle.target.name}",
        parameters=sum(leaf.size for leaf in jax.tree.leaves(nnx.state(bundle.translator, nnx.Param))),
        imported="imported" in bundle.recipe,
        is_embedded=EMBEDDED_OWNER in (bundle.source.name.partition("/")[0], name.partition("/")[0]),
        is_centred=bundle.spec.input_norm == "centred",
        fields=fields,
        trained_on=trained_on_words(bundle),
        captions=_text_in(bundle, "data", "captions"),
        scores=scores_of(bundle),
        meanings=SCORES,
        held_out=held_out_of(bundle),
        candidates=ranked[:MAX_CANDIDATES],
        columns={score: scores for score in NOISY_SCORES if (scores := getattr(choice, score, None))},
    )


def licence(name: str) -> tuple[str, str]:
    """The licence of a space's checkpoint by its name: the hub's identifier, and words for people."""
    known = (found for prefix, found in LICENCES.items() if hub_name(name) and name.startswith(prefix))
    return next(known, (UNKNOWN, "see its checkpoint"))


def _own_licence(bundle: Bundle) -> str:
    """The stricter of the two spaces' licences; one that is not known leaves the translator's open."""
    found = {licence(space.name)[0] for space in (bundle.source, bundle.target)}
    if UNKNOWN in found or "imported" in bundle.recipe:
        return UNKNOWN
    return NON_COMMERCIAL if NON_COMMERCIAL in found else "apache-2.0"


def _front_matter(bundle: Bundle) -> str:
    own = _own_licence(bundle)
    elsewhere = "not-stated" if "imported" in bundle.recipe else "see-the-spaces"
    bases = [hub_name(space.name) for space in (bundle.source, bundle.target)]
    fields = ModelCardData(
        license=own,
        license_name=elsewhere if own == UNKNOWN else None,
        library_name=LIBRARY,
        pipeline_tag="feature-extraction",
        tags=["clip", "clap", "audioldm", "image-to-audio", "cross-modal-retrieval", "embeddings"],
        base_model=[base for base in bases if base and not base.startswith(f"{EMBEDDED_OWNER}/")] or None,
        datasets=_datasets(bundle) or None,
    )
    return fields.to_yaml()


def _text_in(bundle: Bundle, part: str, field: str) -> str:
    """A text of the recipe; "" if it has none, as one that came from elsewhere."""
    fields = bundle.recipe.get(part)
    text = fields.get(field) if isinstance(fields, dict) else None
    return text if isinstance(text, str) else ""


def _datasets(bundle: Bundle) -> list[str]:
    found: dict[str, None] = {}
    for part in _text_in(bundle, "data", "captions").split(" + "):
        spec = re.sub(r"^[0-9.]+\*", "", part.strip())
        name = re.split(r"[:@]", spec.removeprefix("hf:"))[0] if spec.startswith("hf:") else None
        name = name or next((dataset for prefix, dataset in DATASETS.items() if spec.startswith(prefix)), None)
        if name and hub_name(name):
            found[name] = None
    return list(found)


def trained_on_words(bundle: Bundle) -> str:
    """What the translator was trained on, in sentences without names."""
    words = "It was trained on captions, without image–audio pairs."
    if not _text_in(bundle, "images", "files"):
        return words
    uses = ["to estimate their mean vector"] if bundle.recipe["images"].get("calibrate", True) else []
    is_selected = bundle.choice is not None and len(bundle.choice.scores) > 1
    if is_selected or bundle.recipe.get("select_by", NOISY_MRR) not in CAPTION_SCORES:
        uses.append("to select the published translator")
    return f"{words} Unlabelled images were used {' and '.join(uses) or 'for scores alone'}."


def scores_of(bundle: Bundle) -> dict[str, float]:
    """The validation's scores that are numbers, by their names in SCORES."""
    known = {name: bundle.metrics[name] for name in SCORES if name in bundle.metrics}
    return {name: float(value) for name, value in known.items() if type(value) in (int, float) and math.isfinite(value)}


def held_out_of(bundle: Bundle) -> int | None:
    """How many captions the validation was over, if it is recorded."""
    count = bundle.metrics.get("held_out")
    return count if type(count) is int and count > 0 else None

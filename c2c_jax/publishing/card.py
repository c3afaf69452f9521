"""The model card of a published translator, built from its bundle."""

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

from c2c_jax.config import CAPTION_SCORES, PERTURBED_COSINE, PERTURBED_MRR, PERTURBED_SCORES, Config, flat_fields
from c2c_jax.io.resolve import EMBEDDED_OWNER
from c2c_jax.publishing.markdown import code, literal, plain
from c2c_jax.publishing.names import hub_name
from c2c_jax.translator.bundle import Bundle

LIBRARY = "c2c_jax"
NON_COMMERCIAL, UNKNOWN = "cc-by-nc-sa-4.0", "other"
# Prefix of a checkpoint's hub name → its licence: the hub's identifier, and a name for people.
LICENCES = {
    "cvssp/audioldm": (NON_COMMERCIAL, "CC-BY-NC-SA-4.0"),
    "laion/CLIP-": ("mit", "MIT"),
    "miniworld/": ("apache-2.0", "Apache-2.0"),
    "openai/clip-": ("mit", "MIT"),
    "laion/clap-": ("apache-2.0", "Apache-2.0"),
    "laion/larger_clap": ("apache-2.0", "Apache-2.0"),
}
SCORE_MEANINGS = {
    "recall@1": "fraction of captions whose own sound-space vector is the nearest of all held-out ones",
    "recall@5": "fraction of captions whose own target vector is among the 5 nearest",
    "recall@10": "fraction of captions whose own target vector is among the 10 nearest",
    "in_batch_top1": "fraction of captions whose own target vector is the nearest of the 32 in its group",
    "median_rank": "median rank of a caption's own vector, counted from 1",
    "mean_cosine": "mean cosine of a translation and its caption's own vector",
    PERTURBED_MRR: "mean of 1 / rank of the own vectors of perturbed captions, which represent images",
    PERTURBED_COSINE: "mean cosine of translations of perturbed captions and the captions' own vectors, both centred",
}
MAX_CANDIDATES = 20  # in a card, best first
# Prefix of a caption source → the hub's dataset of the same captions.
DATASETS = {"tfds:conceptual_captions": "google-research-datasets/conceptual_captions"}


def model_card(bundle: Bundle, name: str, graphs: Sequence[str] = ()) -> str:
    """The card (`README.md`) of a published bundle, with the hub's front matter.

    name: the hub name or folder that the example loads. graphs: names of the ONNX files in the same folder.
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
    settings = "translator.settings."
    defaults |= {settings + name: value for name, value in dataclasses.asdict(type(bundle.spec.settings)()).items()}
    fields = [
        (key, value)
        for key, value in flat_fields(bundle.recipe)
        if (key, value) not in defaults.items() and (key in defaults or not key.startswith(settings))
    ]
    choice = bundle.choice
    ranked = sorted(choice.scores, key=lambda candidate: -choice.scores[candidate]) if choice else []
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
        # The name of a hub repository is a good title; that of a folder may not be.
        title=name.rpartition("/")[2] if hub_name(name) else f"From {bundle.source.name} to {bundle.target.name}",
        parameters=sum(leaf.size for leaf in jax.tree.leaves(nnx.state(bundle.translator, nnx.Param))),
        imported="imported" in bundle.recipe,
        is_embedded=EMBEDDED_OWNER in (bundle.source.name.partition("/")[0], name.partition("/")[0]),
        is_centred=bundle.spec.input_norm == "centred",
        fields=fields,
        trained_on=training_summary(bundle),
        captions=_text_in(bundle, "data", "captions"),
        scores=validation_scores(bundle),
        meanings=SCORE_MEANINGS,
        held_out=held_out_count(bundle),
        candidates=ranked[:MAX_CANDIDATES],
        columns={score: scores for score in PERTURBED_SCORES if (scores := getattr(choice, score, None))},
    )


def licence(name: str) -> tuple[str, str]:
    """The licence of a space's checkpoint by its name: the hub's identifier, and a name for people."""
    known = (licence for prefix, licence in LICENCES.items() if hub_name(name) and name.startswith(prefix))
    return next(known, (UNKNOWN, "see its checkpoint"))


def _own_licence(bundle: Bundle) -> str:
    """The stricter of the two spaces' licences, or UNKNOWN if one is unknown."""
    licences = {licence(space.name)[0] for space in (bundle.source, bundle.target)}
    if UNKNOWN in licences or "imported" in bundle.recipe:
        return UNKNOWN
    return NON_COMMERCIAL if NON_COMMERCIAL in licences else "apache-2.0"


def _front_matter(bundle: Bundle) -> str:
    own = _own_licence(bundle)
    unknown_name = "not-stated" if "imported" in bundle.recipe else "see-the-spaces"
    bases = [hub_name(space.name) for space in (bundle.source, bundle.target)]
    fields = ModelCardData(
        license=own,
        license_name=unknown_name if own == UNKNOWN else None,
        library_name=LIBRARY,
        pipeline_tag="feature-extraction",
        tags=["clip", "clap", "audioldm", "image-to-audio", "cross-modal-retrieval", "embeddings"],
        base_model=[base for base in bases if base and not base.startswith(f"{EMBEDDED_OWNER}/")] or None,
        datasets=_datasets(bundle) or None,
    )
    return fields.to_yaml()


def _text_in(bundle: Bundle, part: str, field: str) -> str:
    """A string field of the recipe; "" if it is missing, as in imported bundles."""
    fields = bundle.recipe.get(part)
    text = fields.get(field) if isinstance(fields, dict) else None
    return text if isinstance(text, str) else ""


def _datasets(bundle: Bundle) -> list[str]:
    datasets: dict[str, None] = {}
    for part in _text_in(bundle, "data", "captions").split(" + "):
        spec = re.sub(r"^[0-9.]+\*", "", part.strip())
        name = re.split(r"[:@]", spec.removeprefix("hf:"))[0] if spec.startswith("hf:") else None
        name = name or next((dataset for prefix, dataset in DATASETS.items() if spec.startswith(prefix)), None)
        if name and hub_name(name):
            datasets[name] = None
    return list(datasets)


def training_summary(bundle: Bundle) -> str:
    """Sentences on the kind of data that the translator was trained on."""
    words = "It was trained on captions, without image–audio pairs."
    if not _text_in(bundle, "images", "files"):
        return words
    uses = ["to estimate their mean vector"] if bundle.recipe["images"].get("calibrate", True) else []
    is_selected = bundle.choice is not None and len(bundle.choice.scores) > 1
    if is_selected or bundle.recipe.get("select_by", PERTURBED_MRR) not in CAPTION_SCORES:
        uses.append("to select the published translator")
    return f"{words} Unlabelled images were used {' and '.join(uses) or 'only for scores'}."


def validation_scores(bundle: Bundle) -> dict[str, float]:
    """The finite validation scores, by their names in SCORE_MEANINGS."""
    known = {name: bundle.metrics[name] for name in SCORE_MEANINGS if name in bundle.metrics}
    return {name: float(value) for name, value in known.items() if type(value) in (int, float) and math.isfinite(value)}


def held_out_count(bundle: Bundle) -> int | None:
    """Number of captions in the validation, if it is recorded."""
    count = bundle.metrics.get("held_out")
    return count if type(count) is int and count > 0 else None

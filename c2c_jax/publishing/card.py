"""The model card: what a bundle's own config tells of a translator, and how to use it."""

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from huggingface_hub import ModelCardData

from c2c_jax.config import Config
from c2c_jax.publishing.markdown import code, plain
from c2c_jax.publishing.names import hub_name
from c2c_jax.publishing.usage import usage
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
USES = {NOISY_MRR: "used to retrieve", NOISY_COSINE: "compared with"}  # of translations, by selection score
MAX_CANDIDATES = 20  # listed in a card, best first
# A caption source → the hub's dataset of the same captions.
DATASETS = {"tfds:conceptual_captions": "google-research-datasets/conceptual_captions"}


def model_card(bundle: Bundle, name: str, graphs: Sequence[str] = ()) -> str:
    """The card (`README.md`) of a published bundle, with the hub's front matter.

    name: what the example loads it by: a hub name or a folder. graphs: ONNX files that lie beside it.
    """
    return "\n".join(
        [
            "---",
            _front_matter(bundle),
            "---",
            "",
            f"# {plain(_title(bundle, name))}",
            "",
            f"A translator of {LIBRARY}: it maps vectors of a picture-and-text space (CLIP) to vectors of the same "
            "meaning in a sound-and-text space (CLAP), where they condition AudioLDM or search a sound library. "
            f"{_built(bundle)}",
            "",
            "## Spaces and their licences",
            "",
            *_spaces(bundle),
            "",
            "## How to use it",
            "",
            *usage(bundle, name, graphs),
            "",
            "## Recipe",
            "",
            *_recipe(bundle),
            "",
            "## Data",
            "",
            _data(bundle),
            "",
            *_centring(bundle),
            *_memory(bundle),
            "## Validation",
            "",
            *_validation(bundle),
            "",
            *_kept(bundle),
            "## Limits",
            "",
            *_limits(bundle),
            "",
        ]
    )


def licence(name: str) -> tuple[str, str]:
    """The licence of a space's checkpoint by its name: the hub's identifier, and words for people."""
    for prefix, known in LICENCES.items():
        if hub_name(name) and name.startswith(prefix):
            return known
    return UNKNOWN, "see its checkpoint"


def _title(bundle: Bundle, name: str) -> str:
    """Of a hub repository its name; a folder may be called anything."""
    return name.rpartition("/")[2] if hub_name(name) else f"From {bundle.source.name} to {bundle.target.name}"


def _own_licence(bundle: Bundle) -> str:
    """The stricter of the two spaces' licences; one that is not known leaves the translator's open."""
    found = {licence(space.name)[0] for space in (bundle.source, bundle.target)}
    if UNKNOWN in found or "imported" in bundle.recipe:
        return UNKNOWN
    return NON_COMMERCIAL if NON_COMMERCIAL in found else "apache-2.0"


def _front_matter(bundle: Bundle) -> str:
    own = _own_licence(bundle)
    elsewhere = "not-stated" if "imported" in bundle.recipe else "see-the-spaces"
    bases = [
        base
        for space in (bundle.source, bundle.target)
        if (base := hub_name(space.name)) and not base.startswith(f"{EMBEDDED_OWNER}/")
    ]
    fields = ModelCardData(
        license=own,
        license_name=elsewhere if own == UNKNOWN else None,
        library_name=LIBRARY,
        pipeline_tag="feature-extraction",
        tags=["clip", "clap", "audioldm", "image-to-audio", "cross-modal-retrieval", "embeddings"],
        base_model=bases or None,
        datasets=_datasets(bundle) or None,
    )
    return fields.to_yaml()


def _built(bundle: Bundle) -> str:
    spec, count = bundle.spec, sum(leaf.size for leaf in jax.tree.leaves(nnx.state(bundle.translator, nnx.Param)))
    norm = {
        "none": "raw vectors in",
        "unit": "vectors made unit length on their way in",
        "centred": "inputs centred by the mean of their modality, outputs un-centred",
    }[spec.input_norm]
    clamp = f"outputs cut to ±{spec.clamp:g}" if spec.clamp else "outputs not cut"
    return f"Kind `{spec.kind}`, {count:,} parameters, {spec.source_dim} → {spec.target_dim}, {norm}, {clamp}."


def _spaces(bundle: Bundle) -> list[str]:
    lines = ["| | checkpoint | width | fingerprint | licence |", "|---|---|---|---|---|"]
    for role, space in (("source", bundle.source), ("target", bundle.target)):
        fingerprint = f"`{space.fingerprint[:16]}`" if space.fingerprint else "unknown"
        lines.append(f"| {role} | {code(space.name)} | {space.dim} | {fingerprint} | {licence(space.name)[1]} |")
    lines += ["", "The translator works between these two checkpoints alone; " + _licence_words(bundle)]
    return lines


def _licence_words(bundle: Bundle) -> str:
    if "imported" in bundle.recipe:
        return "its weights are another author's, and his licence is to be asked for."
    if _own_licence(bundle) == UNKNOWN:
        return "what its own weights may be used for depends on theirs."
    return "its own weights are given under the stricter of their licences."


def _recipe(bundle: Bundle) -> list[str]:
    defaults = dict(flat_fields(dataclasses.asdict(Config())))
    fields = [(key, value) for key, value in flat_fields(bundle.recipe) if (key, value) not in defaults.items()]
    if not fields:
        return [f"{LIBRARY}'s defaults."]
    told = "What the file says:" if "imported" in bundle.recipe else f"Where it differs from {LIBRARY}'s defaults:"
    rows = [f"| {code(key)} | {code(json.dumps(value, ensure_ascii=False))} |" for key, value in fields]
    return [told, "", "| field | value |", "|---|---|", *rows]


def flat_fields(recipe: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Nested fields as `a.b` with their values."""
    pairs: list[tuple[str, Any]] = []
    for key, value in recipe.items():
        pairs += flat_fields(value, f"{before}{key}.") if isinstance(value, dict) else [(before + key, value)]
    return pairs


def _captions(bundle: Bundle) -> str:
    return _text_in(bundle, "data", "captions")


def _text_in(bundle: Bundle, part: str, field: str) -> str:
    """A text of the recipe; "" where it has none, as one that came from elsewhere."""
    fields = bundle.recipe.get(part)
    text = fields.get(field) if isinstance(fields, dict) else None
    return text if isinstance(text, str) else ""


def _datasets(bundle: Bundle) -> list[str]:
    found = []
    for part in _captions(bundle).split(" + "):
        spec = re.sub(r"^[0-9.]+\*", "", part.strip())
        name = re.split(r"[:@]", spec.removeprefix("hf:"))[0] if spec.startswith("hf:") else None
        name = name or next((dataset for prefix, dataset in DATASETS.items() if spec.startswith(prefix)), None)
        if name and hub_name(name) and name not in found:
            found.append(name)
    return found


def _data(bundle: Bundle) -> str:
    if "imported" in bundle.recipe:
        return (
            f"Imported from {code(bundle.recipe['imported'])} of CLIP2CLAP (Wong), whose files do not name their "
            "captions; the paper's are COCO's and Google's Conceptual Captions."
        )
    if bundle.source.name.endswith(".npy"):
        return "Pairs of vectors that were made elsewhere."
    return f"{trained_on_words(bundle)} Captions: {code(_captions(bundle) or 'not recorded')}."


def trained_on_words(bundle: Bundle) -> str:
    """What the translator was trained on, in sentences without names."""
    words = "It was trained on captions, without image–audio pairs."
    if not _text_in(bundle, "pictures", "files"):
        return words
    settings = bundle.recipe["pictures"]
    uses = ["to estimate their mean vector"] if settings.get("calibrate", True) else []
    is_selected = bundle.choice is not None and len(bundle.choice.scores) > 1
    if is_selected or bundle.recipe.get("select_by", NOISY_MRR) not in CAPTION_SCORES:
        uses.append("to select the published translator")
    return f"{words} Unlabelled images were used {' and '.join(uses) or 'for scores alone'}."


def _centring(bundle: Bundle) -> list[str]:
    """The section on centring; empty for a translator of uncentred vectors."""
    if bundle.spec.input_norm != "centred":
        return []
    gap = bundle.gap
    stored = [
        words
        for mean, words in ((gap.source_image, "of pictures' source vectors"), (gap.target_audio, "of sounds' vectors"))
        if mean is not None
    ]
    lines = [
        "Inputs are centred: scaled to unit length, minus the mean of their modality, and scaled to unit length again. "
        "Outputs are un-centred: a mean is added again, and they are unit vectors. The bundle stores the means of its "
        f"captions' vectors in both spaces{''.join(f', and {words}' for words in stored)}."
    ]
    if gap.source_image is None:
        lines[0] += (
            " It has no mean of pictures: these lose their component along the captions' mean instead, which matches "
            "fewer of them correctly. `c2c calibrate` adds the mean from a few hundred general pictures."
        )
    if gap.target_audio is not None:
        lines[0] += (
            " Results are un-centred with the mean of captions, or with that of sounds "
            '(`from_image(x, among="audio")`, `infer --output-mean audio`).'
        )
    return ["## Centring", "", *lines, ""]


def _memory(bundle: Bundle) -> list[str]:
    if (memory := bundle.memory) is None:
        return []
    size = memory.source.nbytes / 2**20
    stored = (
        f"The bundle stores the source vectors of {len(memory.source):,} of these captions ({size:,.1f} MiB; no text). "
    )
    if not memory.weight:
        stored += "They are reference queries for `c2c search` and do not change its translations."
    else:
        stored += (
            "`from_image` turns a picture's vector towards the mean of the nearest ones (a softmax of cosines with "
            f"temperature {memory.temperature:g}), which make {memory.weight:.0%} of what the translator takes: this "
            "moves pictures nearer to captions. Captions' own vectors are not changed."
        )
    return ["## Caption memory", "", stored, ""]


def _kept(bundle: Bundle) -> list[str]:
    """The section on the candidate that the run selected; empty if none is recorded."""
    if (choice := bundle.choice) is None:
        return []
    count, use = len(choice.scores), USES[choice.selected_by]
    ranked = sorted(choice.scores, key=lambda name: -choice.scores[name])[:MAX_CANDIDATES]
    columns = {score: scores for score in NOISY_SCORES if (scores := getattr(choice, score))}
    rows = [f"| {code(name)} |" + "".join(f" {scores[name]:.4g} |" for scores in columns.values()) for name in ranked]
    return [
        "## Selection",
        "",
        f"This translator is {code(str(choice))}, the best of {count:,} candidate{'s' * (count != 1)} by "
        f"`{choice.selected_by}`, which needs no pairs: held-out captions are perturbed until they are about as far "
        f"from other captions as pictures are, translated, and {use} their own vectors. This assumes that a picture "
        f"and its caption have a cosine of {choice.pair_cosine:.2f}, both centred.",
        "",
        f"| candidate | {' | '.join(columns)} |",
        f"|---|{'---|' * len(columns)}",
        *rows,
        "",
    ]


def scores_of(bundle: Bundle) -> dict[str, float]:
    """The validation's scores that are numbers, by their names in SCORES."""
    known = {name: bundle.metrics[name] for name in SCORES if name in bundle.metrics}
    return {name: float(value) for name, value in known.items() if type(value) in (int, float) and math.isfinite(value)}


def held_out_of(bundle: Bundle) -> int | None:
    """How many captions the validation was over, if it is recorded."""
    count = bundle.metrics.get("held_out")
    return count if type(count) is int and count > 0 else None


def _validation(bundle: Bundle) -> list[str]:
    scores = scores_of(bundle)
    if not scores:
        return ["No validation is on record."]
    held_out = held_out_of(bundle)
    told = f"On {held_out:,} held-out captions" if held_out else "On held-out captions"
    cosine = "cosine of centred vectors" if bundle.spec.input_norm == "centred" else "cosine"
    rows = [f"| {name} | {value:.4g} | {SCORES[name]} |" for name, value in scores.items()]
    return [
        f"{told}, each translated and compared with all of their vectors by {cosine}:",
        "",
        "| score | | meaning |",
        "|---|---|---|",
        *rows,
    ]


def _limits(bundle: Bundle) -> list[str]:
    covers = "* It covers what its captions describe: expect poor results on other images and sounds."
    if bundle.spec.input_norm == "centred":
        return ["* It was trained on captions. Scores of captions are not scores of pictures.", covers]
    known = [
        what
        for mean, what in ((bundle.gap.source_image, "pictures'"), (bundle.gap.target_audio, "sounds'"))
        if mean is not None
    ]
    turns = bundle.memory is not None and bundle.memory.weight
    as_it_is = "" if turns else ", so `from_image` takes a picture's vector as it is"
    gap = (
        f"The bundle holds means that correct {' and '.join(known)} side; `from_image` applies them."
        if known
        else f"The bundle holds no statistics to correct it{as_it_is}; `c2c calibrate` estimates them from pictures "
        "without captions."
    )
    return [
        "* It learnt from captions, and pictures' vectors lie in another cone of CLIP's space than captions' "
        f"(the modality gap). Scores of captions are not scores of pictures. {gap}",
        "* Its outputs are not unit vectors; make them so before a generator or a cosine takes them.",
        covers,
    ]

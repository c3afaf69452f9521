"""Writes the model cards of the mini world's checkpoints, with description, training settings and scores."""

import json
import os
from pathlib import Path
from typing import Any

from c2c_jax.miniworld.world import CELLS, SOURCES

SCORES_FILE = "scores.json"
TITLES = {
    "clip": "a CLIP (transformers' CLIPModel) of images of the mini world and captions",
    "clap": "a CLAP (transformers' ClapModel, HTSAT and RoBERTa) of sounds of the mini world and captions",
    "audioldm": "an AudioLDM (diffusers' AudioLDMPipeline) of the mini world's sounds, conditioned on its CLAP",
}
LIBRARIES = {"audioldm": "diffusers"}
MEANINGS = {
    "source": "fraction of the test split for which the nearest of all cells' prompts has the right source",
    "cell": f"fraction for which the nearest prompt has the right cell (one of {CELLS}: source, count, size, place)",
    "seen": "the same, for cells that training has used",
    "held_out": "the same, for cells that no training has used",
    "sounds": "by the CLAP, of the test split's own sounds",
    "vocoder": "of their mel-spectrograms, by the vocoder",
    "vae": "of their mel-spectrograms through the autoencoder, by the vocoder",
    "from_sound": "generated from the CLAP vectors of the test split's sounds",
    "from_text": "generated from the CLAP vectors of their captions",
}


def write_card(folder: Path, *, scores: dict[str, float], recipe: dict[str, Any], minutes: float) -> None:
    """Writes `README.md` and `scores.json` into a checkpoint's folder. minutes: training time."""
    kind, cores = folder.name.partition("-")[0], len(os.sched_getaffinity(0))
    content = {"scores": scores, "recipe": recipe, "minutes": round(minutes, 1)}
    (folder / SCORES_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    lines = [
        "---",
        "license: apache-2.0",
        f"library_name: {LIBRARIES.get(kind, 'transformers')}",
        "---",
        "",
        f"# miniworld/{folder.name}",
        "",
        f"This is {TITLES[kind]}, small enough to be part of c2c_jax. It is trained only on the {len(SOURCES)} "
        "sources of a procedural world: use it to test and demonstrate translators, not for photographs.",
        "",
        "| score | value | |",
        "|---|---|---|",
        *(f"| {name} | {value:.3f} | {_meaning(name)} |" for name, value in scores.items()),
        "",
        f"Trained by `python -m tools.pretrain {kind} --seed {recipe['seed']}` in {minutes:.0f} minutes of "
        f"{cores} CPU core{'s' * (cores > 1)}:",
        "",
        *(f"* {name.replace('_', ' ')}: {value}" for name, value in recipe.items()),
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _meaning(score: str) -> str:
    stage, _, what = score.rpartition("_")
    return f"{what}: {MEANINGS[stage]}" if stage in MEANINGS else MEANINGS[score]

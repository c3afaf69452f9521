"""A run, its evaluation and its generated sounds, made by the package itself, with names that try to break the page."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from c2c_jax.config import Config, DataConfig
from c2c_jax.evaluation.report.page import write_report
from c2c_jax.evaluation.results import Missing, Results, Row, SkippedFile, write
from c2c_jax.generation.pipeline import Generation, images_to_audio
from c2c_jax.generation.sampling import Sampling
from c2c_jax.spaces.space import identify
from c2c_jax.training.log import RunLog
from c2c_jax.translator.bundle import Bundle, Choice, load_bundle
from c2c_jax.translator.kinds import TranslatorSpec, build_translator

HURT = "<script>window.hurt = 1</script><img src=x onerror='window.hurt = 1'>\"'{{ 7 * 7 }}</style>&amp;"
SECONDS = 0.64
MRR = {"rotation": 0.125, "trained": 0.25, "0.5 trained + rotation, memory": 0.375}
CHOICE = Choice(trained=0.5, linear="rotation", memory=True, pair_cosine=0.325, noisy_mrr=MRR)
RECALLS = {"translator": (0.25, 0.5, 0.75), "chance": (0.01, 0.05, 0.1)}


@pytest.fixture(scope="session")
def run(tmp_path_factory, clip_folder, audioldm_folder) -> Path:
    """A work directory as written by the trainer's own log: 10 steps of known losses, two validations."""
    folder = tmp_path_factory.mktemp("runs") / "mlp"
    spec = TranslatorSpec.from_json(dict(
        kind="mlp", source_dim=64, target_dim=64, width=32, depth=2, heads=1, mlp_width=1, dropout=0.0, clamp=0.0,
        input_norm="unit",
    ))  # fmt: skip
    config = Config(
        source=str(clip_folder), batch_size=40, log_every=1, data=DataConfig(captions=f"txt:/home/me/{HURT}")
    )
    with RunLog(folder, config) as log:
        log.start(0, 10, 400, "a test")
        for first, recall in ((10.0, 0.1), (5.0, 0.3)):
            losses = first - np.arange(5.0)
            log.log_steps({name: losses for name in ("loss", "grad_norm", "update_norm")}, 5, 1.0)
            scores = {"recall@1": recall, "recall@5": 2 * recall, "recall@10": 3 * recall, "in_batch_top1": 0.5}
            bundle = Bundle(
                translator=build_translator(spec, rngs=nnx.Rngs(0)),
                spec=spec,
                source=identify(str(clip_folder)),
                target=identify(f"{audioldm_folder}:text_encoder"),
                recipe=dataclasses.asdict(config),
                metrics={
                    "step": log.step, "held_out": 1000, "noisy_mrr": recall + 0.075, **scores, "median_rank": 4.0,
                    "mean_cosine": -0.25,
                },
                choice=CHOICE,
            )  # fmt: skip
            log.log_validation(bundle)
    return folder


@pytest.fixture(scope="session")
def generated(tmp_path_factory, run, audioldm_folder) -> Path:
    """Sounds of two images with control sounds, and of a third without. The images are in another folder."""
    folder = tmp_path_factory.mktemp("listened")
    (folder / "pictures").mkdir()
    for seed, name in enumerate(("a.png", "b '\"><img src=x onerror=window.hurt=1>.png", "c.png")):
        pixels = np.random.default_rng(seed).integers(0, 255, (300, 400, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / name)
    pictures = sorted((folder / "pictures").iterdir())
    generation = Generation(
        audioldm=str(audioldm_folder),
        sampling=Sampling(steps=2, seconds=SECONDS),
        controls=("a dog barks", HURT, "rain"),
    )
    written = images_to_audio(pictures, run / "bundle", generation=generation, out=folder / "sounds")
    assert len([*written]) == 6
    for control in (folder / "sounds").glob("c.control.*"):
        control.unlink()
    return folder / "sounds"


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory, run) -> Path:
    """An evaluation with known recalls, whose translated vectors equal the targets."""
    rng = np.random.default_rng(0)
    target = rng.normal(size=(60, 16))
    vectors = {"source_text": rng.normal(size=(60, 24)), "target_text": target, "translated_text": target}
    rows = [
        Row(
            task="captions",
            method=method,
            metric=f"recall@{k}",
            value=value,
            n=60,
            low=low,
            high=high,
            direction=direction,
        )
        for direction in ("source_to_target", "target_to_source")
        for method, values in RECALLS.items()
        for k, value in zip((1, 5, 10), values, strict=True)
        for low, high in [(value - 0.01, value + 0.02) if method == "translator" else (None, None)]
    ]
    rows.append(
        Row(task="captions", method="translator", metric="centred_recall@1", value=0.3125, n=60,
            direction="source_to_target")
    )  # fmt: skip
    rows.append(Row(task="gaps", method="source", metric="length(text, image)", value=0.83, n=60))
    rows.append(Row(task="generated", method="translator", metric="fad_clap", value=0.7, n=9, reference=HURT))
    left_out, missing = SkippedFile(file=f"{HURT}.wav", why="is silent"), Missing(what="oracle", why=f"no pairs {HURT}")
    folder = tmp_path_factory.mktemp("evaluated")
    bundle = load_bundle(run / "bundle")
    results = Results(
        bundle={"spec": bundle.spec.to_json(), "metrics": bundle.metrics},
        spaces={},
        settings={"captions": f"60 of txt:{HURT}", "pairs": None, "seed": 7},
        rows=rows,
        left_out=[left_out],
        missing=[missing],
        vectors=vectors,
        warnings=[f"collapsed {HURT}"],
    )
    write(results, folder)
    return folder


@pytest.fixture(scope="session")
def page(tmp_path_factory, run, evaluated, generated) -> Path:
    """A page with all sections."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    assert write_report(run, out, evaluation=evaluated, generated=generated) == []
    return out

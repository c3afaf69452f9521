"""`c2c evaluate`: tables, files, skipped inputs, and one-line errors."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from c2c_jax.cli.main import main
from c2c_jax.data.store import Store
from c2c_jax.io.audio import read_audio
from c2c_jax.io.images import read_image
from c2c_jax.spaces.space import load_space
from c2c_jax.training.loader import split_rows
from c2c_jax.translator.bundle import load_bundle
from c2c_jax.translator.inference import translate
from tests.cli.test_main import refused
from tests.fixtures.audio_files import FAST
from tests.fixtures.evaluations import by_hand, rows_of, saw, spoil, unit
from tests.generation.test_ranking import build_clap

LABELS = ("dog", "cat", "sea")
RECIPE = '''"""A ridge of centred vectors."""
from c2c_jax.config import Config, TranslatorConfig


def get_config():
    return Config(translator=TranslatorConfig(kind="ridge", input_norm="centred"))
'''
CAPTIONS = "a dog runs on the grass", "two cats | sleep", "the sea is loud"


@pytest.fixture(scope="module")
def run(tmp_path_factory, clip_folder, audioldm_folder, caption_list) -> Path:
    """The work directory of a ridge, which takes no steps; 40 of 400 short captions are held out."""
    workdir = tmp_path_factory.mktemp("run")
    (workdir / "captions.txt").write_text("\n".join(sorted(caption_list, key=len)[:400]), encoding="utf-8")
    (workdir / "recipe.py").write_text(RECIPE)
    arguments = [
        "train", "--config", str(workdir / "recipe.py"), "--workdir", str(workdir),
        f"--config.source={clip_folder}", f"--config.target={audioldm_folder}:text_encoder",
        f"--config.data.captions=txt:{workdir / 'captions.txt'}", "--config.data.validation_size=40",
    ]  # fmt: skip
    assert main(arguments) == 0
    return workdir


@pytest.fixture(scope="module")
def clap(tmp_path_factory, audioldm_folder) -> Path:
    """A CLAP with both towers, whose text tower is AudioLDM's."""
    return build_clap(tmp_path_factory.mktemp("clap") / "clap", audioldm_folder)


@pytest.fixture(scope="module")
def media_folder(tmp_path_factory) -> Path:
    """A folder of twelve noise images and sounds, and a manifest with labels and captions."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    with open(folder / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "audio", "label", "caption"])
        for number in range(12):
            Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(folder / f"{number}.png")
            soundfile.write(folder / f"{number}.wav", rng.uniform(-0.5, 0.5, 24_000), 48_000)
            table.writerow([f"{number}.png", f"{number}.wav", LABELS[number % 3], CAPTIONS[number % 3]])
    return folder


@pytest.fixture
def evaluate(run, tmp_path, capsys):
    """Runs the command on the run; returns the exit code, metrics.json, stdout and stderr."""

    def evaluated(*arguments, run=run, out=tmp_path / "evaluation"):
        capsys.readouterr()
        code = main(["evaluate", str(run), "--out", str(out), "--bootstrap", "50", *map(str, arguments)])
        stdout, stderr = capsys.readouterr()
        assert "Traceback" not in stderr
        content = json.loads((out / "metrics.json").read_text()) if (out / "metrics.json").exists() else None
        return code, content, stdout, stderr

    return evaluated


def test_captions_that_training_held_out(run, evaluate, tmp_path):
    code, content, stdout, _ = evaluate()
    assert code == 0
    direction = {"direction": "source_to_target"}
    expected = by_hand(run)
    for metric, value in expected.items():
        assert rows_of(content, "captions", "translator", metric, **direction) == pytest.approx([value], abs=1e-5), (
            metric
        )
    assert len(set(expected.values())) == len(expected)  # the scorings differ
    assert rows_of(content, "captions", "nearest_caption", "nnn_mrr", **direction)
    # The bundle is itself a ridge, so the ridge baseline scores the same.
    assert rows_of(content, "captions", "ridge", "mrr", **direction) == pytest.approx(
        rows_of(content, "captions", "translator", "mrr", **direction)
    )
    methods = {row["method"] for row in content["rows"]}
    assert methods == {"translator", "nearest_caption", "procrustes", "ridge", "chance", "spaces"}
    assert {row["task"] for row in content["rows"]} == {"captions", "gaps"}
    assert content["left_out"] == content["missing"] == []
    assert content["bundle"]["name"] == run.name and content["bundle"]["spec"]["kind"] == "ridge"
    assert content["settings"]["captions"] == "40 that training held out"
    for row in content["rows"]:
        assert row["low"] is None or row["low"] <= row["high"]
        has_none = row["method"] == "chance" or row["metric"].startswith(("frechet", "strangers"))
        assert row["n"] == 40 and (has_none or row["low"] is not None)
    assert stdout.strip().splitlines()[-1] == str(tmp_path / "evaluation") and "nearest caption" in stdout
    with np.load(tmp_path / "evaluation/vectors.npz") as vectors:
        assert {name: vectors[name].shape for name in vectors.files} == dict.fromkeys(
            ("source_text", "target_text", "translated_text"), (40, 64)
        )
    assert f'"{run}' not in (tmp_path / "evaluation/metrics.json").read_text()  # no place on this machine


def test_scorings_can_be_turned_off(evaluate):
    """The rows of plain cosines do not change."""
    _, whole_clap, stdout, _ = evaluate()
    kinds = [row for row in whole_clap["rows"] if row["metric"].startswith(("centred_", "nnn_"))]
    assert {row["method"] for row in kinds} == {"translator", "nearest_caption", "procrustes", "ridge"}
    titles = ("source text → target text, centred cosine,", "target text → source text, centred cosine,")
    assert all(f"captions, {title} n = 40" in stdout for title in titles)
    assert "captions, source text → target text, centred cosine minus hubness, n = 40" in stdout
    assert whole_clap["settings"]["centred_scores"] == "centred cosine"
    assert whole_clap["settings"]["nnn_scores"].startswith("centred cosine minus hubness: the mean of the 2 nearest")
    _, content, stdout, _ = evaluate("--no-hubness")
    assert content["rows"] == [row for row in whole_clap["rows"] if not row["metric"].startswith("nnn_")]
    assert "hubness" not in stdout and content["settings"]["nnn_scores"] is None and content["missing"] == []
    _, content, stdout, _ = evaluate("--no-centre")
    assert content["rows"] == [row for row in whole_clap["rows"] if row not in kinds]
    assert "centred" not in stdout and content["settings"]["centred_scores"] is None


def test_geometry(run, evaluate):
    """With captions only. The map between two random towers is not a rotation, and a ridge is nearer to it."""
    _, content, stdout, _ = evaluate("--geometry")
    assert content["missing"] == [] and content["settings"]["geometry"] is True
    store = Store.open(run / "store")
    rows, _ = split_rows(store.plan.rows, 40, load_bundle(run / "bundle").recipe["seed"])
    for side in ("source", "target"):
        vectors = unit(store.read_rows(side, rows).astype(np.float32))
        mean = np.linalg.norm(vectors.mean(axis=0))
        assert rows_of(content, "geometry", side, "text_mean") == pytest.approx([mean], abs=1e-5)
        assert len(rows_of(content, "geometry", side, "text_strangers_centred")) == 1
    by_method = {
        row["method"]: row for row in content["rows"] if (row["task"], row["metric"]) == ("rotation", "mean_cosine")
    }
    assert set(by_method) == {"procrustes", "ridge"} and all(row["n"] == 40 for row in by_method.values())
    assert -1 <= by_method["procrustes"]["value"] < by_method["ridge"]["value"] <= 1
    assert "the geometry of the two spaces" in stdout and "linear maps between the two text spaces" in stdout


@pytest.mark.slow
def test_geometry_of_pairs_without_a_store(run, clap, media_folder, evaluate, tmp_path):
    """A bundle without a store: both spaces are described, without the map between the texts."""
    published = Path(shutil.copytree(run / "bundle", tmp_path / "published"))
    _, content, _, _ = evaluate("--geometry", "--pairs", media_folder / "pairs.csv", "--clap", clap, run=published)
    for side in ("source", "target"):
        assert len(rows_of(content, "geometry", side, "pair_cosine")) == 1
        assert rows_of(content, "geometry", side, "pair_cosine_centred") == []
    whys = {entry["what"]: entry["why"] for entry in content["missing"]}
    assert "pass --store" in whys["linear maps between the two text spaces"]
    for side, kind in (("source", "images"), ("target", "sounds")):
        assert whys[f"geometry of the {side} space: centred figures"].startswith(f"12 texts and 12 {kind}; centring")
    assert whys["images and sounds: centred scores"] == "12 sounds; centring needs 32 or more"
    assert not [row for row in content["rows"] if row["metric"] in ("centred_mrr", "nnn_mrr")]


def test_bundle_folder_as_run(run, capsys):
    assert main(["evaluate", str(run / "bundle"), "--bootstrap", "0"]) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1] == str(run / "evaluation")
    assert {path.name for path in (run / "evaluation").iterdir()} == {
        "metrics.json", "table.md", "table.tex", "vectors.npz",
    }  # fmt: skip
    content = json.loads((run / "evaluation/metrics.json").read_text())
    assert all(row["low"] is None for row in content["rows"])


def test_pictures_and_sounds(run, clap, media_folder, evaluate, tmp_path):
    code, content, stdout, stderr = evaluate("--pairs", media_folder / "pairs.csv", "--clap", clap)
    assert code == 0 and content["left_out"] == []
    # By hand from the towers.
    clap_space, bundle = load_space(str(clap)), load_bundle(run / "bundle")
    images = [read_image(media_folder / f"{number}.png") for number in range(12)]
    translated = translate(bundle, load_space(bundle.source.name).encode_images(images))
    rate = clap_space.audio_preprocessor.sample_rate
    audio = [read_audio(media_folder / f"{number}.wav", rate) for number in range(12)]
    cosines = translated @ unit(clap_space.encode_audio(audio)).T
    ranks = 1 + np.sum(cosines >= np.diagonal(cosines)[:, None], axis=1) - 1
    assert rows_of(content, "images_to_sounds", "translator", "mrr") == pytest.approx([np.mean(1 / ranks)], abs=1e-5)
    back = np.sum(cosines.T >= np.diagonal(cosines)[:, None], axis=1)
    assert rows_of(content, "sounds_to_images", "translator", "median_rank") == [np.median(back)]
    labels = sorted(LABELS)
    prompts = unit(clap_space.encode_text([f"the sound of a {label}" for label in labels]))
    right = [labels[number] == LABELS[i % 3] for i, number in enumerate(np.argmax(translated @ prompts.T, axis=1))]
    assert rows_of(content, "images_to_sounds", "translator", "class_accuracy") == [np.mean(right)]
    by_task = {
        task: {r["method"] for r in content["rows"] if r["task"] == task} for task in ("images_to_sounds", "gaps")
    }
    every = {"translator", "nearest_caption", "procrustes", "ridge"}
    assert by_task["images_to_sounds"] == every | {"label_prompts", "caption", "sound", "oracle", "chance"}
    assert by_task["gaps"] == every | {"spaces"}
    gaps = {row["metric"] for row in content["rows"] if row["task"] == "gaps"}
    assert gaps >= {
        "length(source_text, source_image)", "direction_consistency(source_text, source_image)",
        "alignment(target_text, target_audio)", "length(translated_image, target_audio)", "uniformity(source_image)",
    }  # fmt: skip
    with np.load(tmp_path / "evaluation/vectors.npz") as vectors:
        np.testing.assert_allclose(vectors["translated_image"].astype(np.float32), translated, atol=1e-3)
        assert vectors["source_image"].shape == vectors["target_audio"].shape == (12, 64)
    assert "images → sounds" in stdout
    assert "12 pairs, 0 unpaired images, 0 unpaired sounds, 3 classes (manifest pairs.csv)" in stderr
    assert {role: space["name"] for role, space in content["spaces"].items()} == {
        "source": "clip", "target": "audioldm:text_encoder", "clip": "clip", "clap": "clap",
    }  # fmt: skip


def test_unreadable_inputs_are_reported_and_skipped(clap, media_folder, evaluate, tmp_path):
    folder = Path(shutil.copytree(media_folder, tmp_path / "world"))
    soundfile.write(folder / "0.wav", np.zeros(24_000), 48_000)
    (folder / "1.wav").write_bytes(b"")
    (folder / "2.wav").write_bytes((folder / "2.wav").read_bytes()[:20_000])
    (folder / "3.wav").unlink()
    (folder / "4.png").write_bytes(b"no image")
    (folder / "5.png").unlink()
    code, content, _, stderr = evaluate("--pairs", folder / "pairs.csv", "--clap", clap)
    assert code == 2
    message = {(Path(entry["file"]).name, word) for entry in content["left_out"] for word in entry["why"].split()}
    for expected in (
        ("0.wav", "silent:"), ("1.wav", "empty"), ("2.wav", "truncated:"), ("3.wav", "no"), ("3.png", "sound"),
        ("4.png", "damaged"), ("5.png", "no"), ("5.wav", "image"),
    ):  # fmt: skip
        assert expected in message
    assert len(content["left_out"]) == 8
    last = stderr.strip().splitlines()[-1]
    assert last == "c2c evaluate: 8 files or rows were skipped or only partly used; see above"
    assert f"{folder / '1.wav'}" in stderr
    # Six pairs are complete; images 0 to 3 and sounds 4 and 5 are still scored by their classes.
    ns = {
        (row["task"], row["metric"]): row["n"]
        for row in content["rows"]
        if row["method"] == "translator" and row["task"] != "captions"
    }
    assert ns["images_to_sounds", "recall@1"] == ns["sounds_to_images", "recall@1"] == 6
    assert ns["images_to_sounds", "class_accuracy"] == 10 and ns["sounds_to_images", "map"] == 8
    assert {"what": "oracle", "why": "6 different pairs; it learns from 8 or more"} in content["missing"]


def test_sets_of_pictures_or_sounds_alone(clap, media_folder, evaluate, tmp_path):
    """ImageHear has no sounds and needs no audio tower; ESC-50 has no images and needs no vision tower."""
    image_folder, audio_folder = tmp_path / "pictures", tmp_path / "esc"
    image_folder.mkdir()
    (audio_folder / "audio").mkdir(parents=True)
    (audio_folder / "meta").mkdir()
    for number in range(12):
        shutil.copy(media_folder / f"{number}.png", image_folder / f"{LABELS[number % 3]}{number}.png")
        shutil.copy(media_folder / f"{number}.wav", audio_folder / f"audio/{number}.wav")
    lines = [f"{number}.wav,{LABELS[number % 3]}" for number in range(12)]
    (audio_folder / "meta/esc50.csv").write_text("\n".join(["filename,category", *lines]))
    code, content, _, _ = evaluate("--pairs", image_folder)
    assert code == 0
    metrics = {row["metric"] for row in content["rows"] if row["task"] == "images_to_sounds"}
    assert metrics == {"class_accuracy", "centred_class_accuracy"}
    assert len(rows_of(content, "images_to_sounds", "label_prompts", "class_accuracy")) == 1
    code, content, _, _ = evaluate("--pairs", audio_folder, "--clap", clap, out=tmp_path / "second")
    assert code == 0
    assert {row["method"] for row in content["rows"] if row["task"] == "images_to_sounds"} == {"sound"}


def test_generated_sound(run, clap, media_folder, audioldm_folder, evaluate, tmp_path):
    generated = tmp_path / "made"
    arguments = [
        "infer", *(str(media_folder / f"{number}.png") for number in range(3)), "--translator", str(run / "bundle"),
        "--audioldm", str(audioldm_folder), "--out", str(generated), "--candidates", "2", "--control", "a dog barks",
        *FAST,
    ]  # fmt: skip
    assert main(arguments) == 0
    record = json.loads((generated / "2.sound.json").read_text())
    (generated / "2.wav").write_bytes(b"")  # the second candidate stands in
    code, content, _, _ = evaluate("--sounds", generated, "--pairs", media_folder / "pairs.csv", "--clap", clap)
    assert code == 2 and [Path(entry["file"]).name for entry in content["left_out"]] == ["2.wav"]
    clap_space, names = load_space(str(clap)), ("0.wav", "1.wav", "2.2.wav")
    audio = [read_audio(generated / name, clap_space.audio_preprocessor.sample_rate) for name in names]
    encoded = unit(clap_space.encode_audio(audio))
    prompt = np.array([json.loads((generated / f"{n}.sound.json").read_text())["clap_vector"] for n in range(3)])
    assert rows_of(content, "generated", "translator", "clap_score") == pytest.approx(
        [np.mean(np.sum(encoded * prompt, axis=1))], abs=1e-4
    )
    rows = {(row["method"], row["metric"]): row for row in content["rows"] if row["task"] == "generated"}
    for metric in ("caption_clap_score", "class_accuracy", "inception_score", "fad_clap", "diversity"):
        assert rows["translator", metric]["n"] == (2 if metric == "diversity" else 3)
    assert rows["translator", "fad_clap"]["reference"] == "the pairs' sounds, manifest pairs.csv"
    assert ("control", "clap_score") in rows and ("reference", "inception_score") in rows
    whys = {entry["what"]: entry["why"] for entry in content["missing"]}
    assert whys["generated sound: fad_clap_inf"] == "3 sounds; in 64 dimensions it takes 128 or more"
    # Sounds of another translator are left out, and a reference may be another folder.
    (generated / "0.sound.json").write_text(json.dumps({**record, "translator": {"path": "x", "sha256": "0" * 64}}))
    code, content, _, _ = evaluate("--sounds", generated, "--reference", media_folder, "--clap", clap)
    assert code == 2
    assert [entry["why"] for entry in content["left_out"] if entry["file"].endswith("0.sound.json")] == [
        "its sounds are of another translator"
    ]
    (row,) = [r for r in content["rows"] if (r["method"], r["metric"]) == ("translator", "fad_clap")]
    assert row["reference"] == f"the sounds of {media_folder.name}" and row["n"] == 2


def test_other_captions_and_a_missing_store(run, evaluate, tmp_path):
    """A published bundle has no store: its baselines are missing, and the reason is reported."""
    published = Path(shutil.copytree(run / "bundle", tmp_path / "published"))
    (tmp_path / "own.txt").write_text("\n".join([*CAPTIONS, CAPTIONS[0]]), encoding="utf-8")
    code, content, _, stderr = evaluate("--captions", f"txt:{tmp_path / 'own.txt'}", "--csls", "2", run=published)
    assert code == 0 and "1 duplicate dropped" in stderr
    assert content["settings"]["captions"] == "all 3 of txt:own.txt" and content["settings"]["csls_neighbours"] == 2
    assert {row["method"] for row in content["rows"]} == {"translator", "chance", "spaces"}
    assert len(rows_of(content, "captions", "translator", "csls_mrr", "target_to_source")) == 1
    assert content["missing"] == [
        {
            "what": "nearest_caption, procrustes, ridge",
            "why": "no store: pass --store, the store it was trained on",
        },
        {"what": "captions: centred scores", "why": "3 captions; centring needs 32 or more"},
    ]
    # With --store, the held-out captions and the baselines are back.
    code, content, _, _ = evaluate("--store", run / "store", run=published)
    assert code == 0 and content["settings"]["captions"] == "40 that training held out"


def test_training_captions_are_left_out(run, evaluate, tmp_path):
    """Only held-out captions of the training store or its texts are used; a store without any is refused."""
    _, held_out, _, _ = evaluate()
    sources = [run / "store", shutil.copytree(run / "store", tmp_path / "copy"), f"txt:{run / 'captions.txt'}"]
    for captions, where in zip(sources, ("the store store", "the store copy", "txt:captions.txt"), strict=True):
        code, content, _, _ = evaluate("--captions", captions)
        assert code == 0
        assert content["settings"]["captions"] == f"40 of {where}, without 360 that training saw"
        for method in ("translator", "nearest_caption"):
            (value,), (expected,) = (
                rows_of(rows, "captions", method, "mrr", "source_to_target") for rows in (content, held_out)
            )
            assert value == pytest.approx(expected, abs=1e-3)
    code, _, _, stderr = evaluate("--captions", f"txt:{saw(run, tmp_path)}", out=tmp_path / "none")
    assert code == 2 and "no caption of txt:saw.txt to evaluate on: training saw all 5 of them" in stderr


def test_evaluation_with_other_settings_is_not_replaced(run, evaluate, capsys, tmp_path):
    """Unless --out names its folder."""
    copy = Path(shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation")))
    (tmp_path / "own.txt").write_text("\n".join(CAPTIONS), encoding="utf-8")
    own = ["--captions", f"txt:{tmp_path / 'own.txt'}", "--bootstrap", "0", "--store", str(run / "store")]
    again = ["evaluate", str(copy), "--bootstrap", "0", "--store", str(run / "store")]
    assert main(again) == main(again) == 0
    before = (copy / "evaluation/metrics.json").read_bytes()
    message = refused(capsys, ["evaluate", str(copy), *own])
    assert (
        "/evaluation holds an evaluation with other settings (captions: 40 that training held out): pass another --out"
        in message
    )
    assert (copy / "evaluation/metrics.json").read_bytes() == before
    code, content, _, _ = evaluate(*own, run=copy, out=copy / "evaluation")
    assert code == 0 and content["settings"]["captions"] == "all 3 of txt:own.txt"


def test_misuse(run, clap, media_folder, evaluate, capsys, tmp_path, audioldm_folder, clip_folder):
    def message(*arguments):
        return refused(capsys, ["evaluate", *map(str, arguments)])

    published = Path(shutil.copytree(run / "bundle", tmp_path / "published"))
    assert "is a bundle outside of a work directory: pass --out" in message(published)
    assert "nothing to evaluate on: no captions (no store: pass --store" in message(published, "--out", tmp_path / "o")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.wav").write_bytes(b"no sound")
    (tmp_path / "bad" / "manifest.csv").write_text("audio\na.wav\n")
    bad = message(published, "--out", tmp_path / "o", "--pairs", tmp_path / "bad", "--clap", clap)
    assert "nothing could be evaluated: 1 files or rows were skipped, such as" in bad and "a.wav" in bad
    assert "no translator bundle" in message(tmp_path, "--out", tmp_path / "o")
    assert "needs --sounds DIR" in message(run, "--reference", media_folder)
    assert "--csls must be 1 or more, found 0" in message(run, "--csls", "0")
    assert "--bootstrap must be from 0 to 100,000, found 1000000000" in message(run, "--bootstrap", 10**9)
    assert "--seed must be from 0 to" in message(run, "--seed", 2**63)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "table.md").write_text("mine")
    assert "table.md would be replaced" in message(run, "--out", tmp_path / "mine")
    assert "is a file: pass a folder" in message(run, "--out", tmp_path / "mine" / "table.md")
    assert (tmp_path / "mine" / "table.md").read_text() == "mine"
    assert "expected a manifest or the folder of a data set at" in message(run, "--pairs", tmp_path / "gone.csv")
    assert f"{tmp_path} is not an embedding store" in message(run, "--store", tmp_path)
    assert "no image and no sound" in message(run, "--pairs", published)
    assert "contains no .sound.json record" in message(run, "--sounds", media_folder)
    pairs = run, "--out", tmp_path / "o", "--pairs", media_folder / "pairs.csv"
    assert "has no audio tower to encode sounds with: pass --clap" in message(*pairs)
    other = build_clap(tmp_path / "other", audioldm_folder)
    spoil(other)
    assert "is another CLAP than the translator's" in message(*pairs, "--clap", other)
    assert "trained with the CLIP" in message(*pairs, "--clap", clap, "--clip", clap)
    assert not (tmp_path / "o").exists()

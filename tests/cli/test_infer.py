"""`c2c infer` on several images: sounds, spectrograms and records."""

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from flax import nnx
from PIL import Image

from c2c_jax.cli.main import main
from c2c_jax.generation.audioldm import AudioLDM
from c2c_jax.generation.records import read_records
from c2c_jax.generation.sampling import Sampling
from c2c_jax.io.images import read_image
from c2c_jax.spaces.space import identify, load_space
from c2c_jax.spaces.space_id import SpaceId
from c2c_jax.translator.bundle import load_bundle, save_bundle
from c2c_jax.translator.centring import ModalityMeans
from c2c_jax.translator.inference import translate
from c2c_jax.translator.kinds import build_translator
from c2c_jax.translator.memory import Memory
from tests.fixtures.audio_files import FAST, read_audio
from tests.generation.test_ranking import build_clap

ROOT = Path(__file__).parents[2]
DRAWN = Sampling(steps=2, seconds=0.64)


def vectors(infer, tmp_path, *arguments) -> np.ndarray:
    code, _, err = infer(*arguments, "--save-embedding", tmp_path / "v.npy", audioldm=None)
    assert code == 0, err
    return np.load(tmp_path / "v.npy")


def test_a_folder_and_a_pattern(infer, image_folder, tmp_path):
    code, files, _ = infer(image_folder, f"{image_folder}/*.png", "--out", tmp_path / "sounds")
    assert code == 0
    assert [file.name for file in files] == ["a.wav", "b.wav", "c.wav"]  # each once
    written = {path.name for path in (tmp_path / "sounds").iterdir()}
    assert written == {f"{name}.{kind}" for name in "abc" for kind in ("wav", "mel.png", "sound.json")}
    # Each sound equals that of its image alone: the same seed.
    code, (alone,), _ = infer(image_folder / "b.jpg", "--out", tmp_path / "alone.flac")
    assert code == 0 and soundfile.info(alone).format == "FLAC"
    np.testing.assert_allclose(read_audio(alone), read_audio(files[1]), atol=2e-4)
    assert np.abs(read_audio(files[0]) - read_audio(files[1])).max() > 1e-2


def test_spectrograms_are_not_taken_for_pictures(infer, image_folder):
    code, files, _ = infer(image_folder, "--format", "flac")
    assert code == 0 and files == [image_folder / f"{name}.flac" for name in "abc"]
    with Image.open(image_folder / "a.mel.png") as shown:
        assert shown.size == (800, 300)
    code, again, _ = infer(image_folder, "--format", "flac")
    assert code == 0 and again == files


def test_record_reproduces_the_sound(infer, image_folder, bundle, clip_folder, audioldm_folder, tmp_path):
    _, (file,), _ = infer(image_folder / "a.png", "--out", tmp_path / "a.wav", "--seed", "5", "--guidance", "3")
    record = json.loads((tmp_path / "a.sound.json").read_text())
    assert record["sounds"][0]["file"] == "a.wav" and record["sounds"][0]["seed"] == 5
    assert record["clip"]["fingerprint"] == identify(str(clip_folder)).fingerprint
    assert record["clap"]["name"] == f"{audioldm_folder}:text_encoder"
    assert record["translator"]["path"] == str(bundle) and record["pictures"][0]["path"].endswith("a.png")
    assert {"jax", "torch", "diffusers", "transformers", "c2c_jax"} <= record["versions"].keys()
    assert record["sounds"][0]["peak"] == pytest.approx(np.abs(read_audio(file)).max(), abs=1e-4)
    assert record["audioldm"]["name"] == str(audioldm_folder) and len(record["audioldm"]["fingerprint"]) == 64
    # Everything that made the sound is in the record.
    audio = AudioLDM.load(record["audioldm"]["name"], device=record["audioldm"]["device"]).generate(
        np.array([record["clap_vector"]], np.float32),
        Sampling(**record["sampling"]),
        seeds=[record["sounds"][0]["seed"]],
    )
    np.testing.assert_allclose(audio[0], read_audio(file), atol=1e-4)
    np.testing.assert_allclose(record["clap_vector"], vectors(infer, tmp_path, image_folder / "a.png"), atol=1e-6)


def test_candidates_are_ranked_by_clap(infer, image_folder, audioldm_folder, tmp_path):
    clap = build_clap(tmp_path / "clap", audioldm_folder)
    flags = "--candidates", "3", "--seed", "7", "--batch-size", "2"
    code, files, err = infer(image_folder / "a.png", *flags, "--out", tmp_path / "plain")
    assert code == 0 and "in the order of their seeds: pass --ranker" in err
    assert [file.name for file in files] == ["a.wav", "a.2.wav", "a.3.wav"]
    plain = json.loads((tmp_path / "plain/a.sound.json").read_text())["sounds"]
    assert [record["seed"] for record in plain] == [7, 8, 9] and plain[0]["clap_score"] is None
    code, _, err = infer(image_folder / "a.png", *flags, "--out", tmp_path / "ranked", "--ranker", clap)
    assert code == 0 and "--ranker" not in err
    ranked = json.loads((tmp_path / "ranked/a.sound.json").read_text())["sounds"]
    scores = [record["clap_score"] for record in ranked]
    assert scores == sorted(scores, reverse=True) and scores[0] > scores[2]
    assert sorted(record["seed"] for record in ranked) == [7, 8, 9]
    for record in ranked:  # the same sounds, in another order
        same = files[record["seed"] - 7]
        np.testing.assert_array_equal(read_audio(tmp_path / "ranked" / record["file"]), read_audio(same))


def test_another_clap_cannot_rank(infer, image_folder, audioldm_folder, tmp_path):
    clap = build_clap(tmp_path / "clap", audioldm_folder)
    from safetensors.torch import load_file, save_file

    weights = load_file(clap / "model.safetensors")
    weights["text_projection.linear2.bias"] += 1
    save_file(weights, clap / "model.safetensors", metadata={"format": "pt"})
    code, files, err = infer(image_folder / "a.png", "--candidates", "2", "--ranker", clap)
    assert code == 2 and not files and "is another CLAP" in err


def test_translator_to_a_clap_and_generator_with_its_text_tower(infer, image_folder, bundle, audioldm_folder, tmp_path):
    """The generator's text tower lies in other files than the CLAP that the translator was trained for: their vectors
    of one text are compared."""
    clap = build_clap(tmp_path / "clap", audioldm_folder)
    code, (expected,), _ = infer(image_folder / "a.png", "--out", tmp_path / "own.wav")
    whole_clap = dataclasses.replace(load_bundle(bundle), target=identify(str(clap)))
    save_bundle(tmp_path / "whole", whole_clap)
    code, (file,), err = infer(image_folder / "a.png", "--out", tmp_path / "a.wav", "--translator", tmp_path / "whole")
    assert code == 0, err
    np.testing.assert_allclose(read_audio(file), read_audio(expected), atol=1e-4)

    from safetensors.torch import load_file, save_file

    weights = load_file(clap / "model.safetensors")
    weights["text_projection.linear2.bias"] += 1
    save_file(weights, clap / "model.safetensors", metadata={"format": "pt"})
    save_bundle(tmp_path / "other", dataclasses.replace(whole_clap, target=identify(str(clap))))
    code, files, err = infer(image_folder / "a.png", "--translator", tmp_path / "other")
    assert code == 2 and not files and "is another CLAP than the translator's" in err


def test_flags_override_the_checkpoints_settings(infer, image_folder, audioldm_folder, tmp_path):
    folder = shutil.copytree(audioldm_folder, tmp_path / "audioldm")
    (folder / "sampling.json").write_text('{"guidance": 2.5, "scheduler": "unipc", "negative_prompt": "noise"}')
    arguments = ("--out", tmp_path / "a.wav", "--guidance", "3", "--audioldm", folder)
    code, _, err = infer(image_folder / "a.png", *arguments)
    assert code == 0, err
    sampling = json.loads((tmp_path / "a.sound.json").read_text())["sampling"]
    assert (sampling["guidance"], sampling["scheduler"], sampling["negative_prompt"]) == (3, "unipc", "noise")
    (folder / "sampling.json").write_text('{"guidence": 2.5}')
    code, _, err = infer(image_folder / "a.png", *arguments)
    assert code == 2 and "sampling.json: unknown guidence; known are guidance, negative_prompt" in err


def test_control_is_the_sound_of_the_text(infer, image_folder, audioldm_folder):
    code, files, _ = infer(image_folder / "a.png", image_folder / "c.png", "--control", "a dog barks")
    assert code == 0
    assert [file.name for file in files] == ["a.wav", "a.control.wav", "c.control.wav", "c.wav"]
    generator = AudioLDM.load(audioldm_folder, device="cpu")
    expected = generator.generate(generator.encode_text(["a dog barks"]), DRAWN, seeds=[0])[0]
    for name in "ac":
        np.testing.assert_allclose(read_audio(image_folder / f"{name}.control.wav"), expected, atol=2e-4)
        assert json.loads((image_folder / f"{name}.control.sound.json").read_text())["control"] == "a dog barks"
        assert (image_folder / f"{name}.control.mel.png").is_file()
    assert np.abs(read_audio(image_folder / "a.wav") - expected).max() > 1e-2


def test_controls_belong_to_their_pictures(infer, image_folder, audioldm_folder, tmp_path):
    """Also if the first image cannot be read."""
    (image_folder / "a.png").write_bytes(b"no image")
    texts = ["--control", "rain", "--control", "a dog", "--control", "a train"]
    code, files, _ = infer(image_folder, *texts)
    assert code == 2 and [file.name for file in files] == ["b.wav", "b.control.wav", "c.wav", "c.control.wav"]
    for name, text in (("b", "a dog"), ("c", "a train")):
        record = json.loads((image_folder / f"{name}.control.sound.json").read_text())
        assert record["control"] == text and "mixed_in" not in record
    generator = AudioLDM.load(audioldm_folder, device="cpu")
    expected = generator.generate(generator.encode_text(["a dog"]), DRAWN, seeds=[0])[0]
    np.testing.assert_allclose(read_audio(image_folder / "b.control.wav"), expected, atol=2e-4)
    code, _, err = infer(image_folder, "--average", *texts[:4])
    assert code == 2 and "1 sounds and 2 --control texts" in err


def test_no_text_tower_is_needed_without_texts(infer, image_folder, audioldm_folder, tmp_path):
    copy = Path(shutil.copytree(audioldm_folder, tmp_path / "copy"))
    for part in ("text_encoder", "tokenizer"):
        shutil.rmtree(copy / part)
    code, (file,), err = infer(image_folder / "a.png", "--guidance", "1", audioldm=copy)
    assert code == 0, err
    assert json.loads(file.with_suffix(".sound.json").read_text())["clap"]["fingerprint"] == ""
    code, _, err = infer(image_folder / "a.png", audioldm=copy)
    assert code == 2 and "download text_encoder/config.json" in err


def test_bundle_without_fingerprints(bundle, image_folder, audioldm_folder, tmp_path, capsys):
    """Such as an imported one: only widths are compared, and a line says so."""
    whole_clap = load_bundle(bundle)
    for dim, expected in ((64, 0), (32, 2)):
        spec = dataclasses.replace(whole_clap.spec, target_dim=dim)
        unseen = dataclasses.replace(
            whole_clap,
            spec=spec,
            translator=build_translator(spec, rngs=nnx.Rngs(0)),
            source=dataclasses.replace(whole_clap.source, fingerprint=""),
            target=SpaceId(name="somewhere/else", dim=dim, fingerprint=""),
        )
        save_bundle(tmp_path / "unseen", unseen)
        command = [str(image_folder / "a.png"), "--translator", str(tmp_path / "unseen"), "--audioldm"]
        assert main(["infer", *command, str(audioldm_folder), *FAST]) == expected
        err = capsys.readouterr().err
        if expected:
            assert "is another space" in err and "64 wide" in err
        else:
            assert "stores no fingerprint of its CLIP" in err and "of its CLAP, somewhere/else" in err


@pytest.mark.slow
def test_progress_bar_and_paths_do_not_mix(bundle, image_folder, audioldm_folder, tmp_path):
    """stderr is a terminal and stdout a file, as in `infer.py ... > list.txt`."""
    import pty

    ours, theirs = pty.openpty()
    command = [
        sys.executable, "infer.py", str(image_folder / "a.png"), str(image_folder / "c.png"),
        "--translator", str(bundle), "--audioldm", str(audioldm_folder), *FAST,
    ]  # fmt: skip
    with open(tmp_path / "list.txt", "w") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=theirs)
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal tells that its other end is gone
            while part := os.read(ours, 4096):
                shown += part
        assert process.wait() == 0
    os.close(ours)
    assert (tmp_path / "list.txt").read_text().split() == [str(image_folder / f"{name}.wav") for name in "ac"]
    assert b"sampling" in shown and b"reading" in shown


def test_mixing_is_a_weighted_sum(infer, image_folder, audioldm_folder, tmp_path):
    a, b, c = vectors(infer, tmp_path, image_folder)
    (text,) = AudioLDM.load(audioldm_folder, device="cpu").encode_text(["rain"])
    flags = [image_folder / "a.png", "--save-embedding", tmp_path / "m.npy", "--out", tmp_path / "m.wav"]
    for more, expected in (
        (["--prompt", "rain", "--mix", "0.3"], 0.7 * a + 0.3 * text),
        (["--prompt", "rain"], 0.5 * a + 0.5 * text),
        (["--blend", image_folder / "b.jpg", "--blend", image_folder / "c.png", "--mix", "0.5"],
         0.5 * a + 0.25 * b + 0.25 * c),
        (["--blend", image_folder / "b.jpg", "--prompt", "rain", "--mix", "0.2", "--mix", "0.4"],
         0.4 * a + 0.2 * text + 0.4 * b),
        (["--blend", image_folder / "b.jpg", "--blend", image_folder / "b.jpg", "--mix", "0.5"], 0.5 * a + 0.5 * b),
        (["--prompt", "rain", "--mix", "1"], text),
    ):  # fmt: skip
        code, _, err = infer(*flags, *more)
        assert code == 0, err
        np.testing.assert_allclose(np.load(tmp_path / "m.npy"), expected / np.linalg.norm(expected), atol=1e-5)
    assert json.loads((tmp_path / "m.sound.json").read_text())["mixed_in"] == [{"what": "rain", "weight": 1.0}]


def test_a_video_folder_is_averaged(infer, image_folder, tmp_path):
    mean = vectors(infer, tmp_path, image_folder).mean(axis=0)
    np.testing.assert_allclose(
        vectors(infer, tmp_path, image_folder, "--average"), mean / np.linalg.norm(mean), atol=1e-5
    )
    code, files, _ = infer(image_folder, "--average")
    assert code == 0 and files == [tmp_path / "pictures.wav"]
    record = json.loads((tmp_path / "pictures.sound.json").read_text())
    assert [Path(image["path"]).name for image in record["pictures"]] == ["a.png", "b.jpg", "c.png"]


def test_without_guidance_the_negative_prompt_has_no_effect(infer, image_folder, tmp_path):
    sounds = []
    for number, text in enumerate(("a dog", "rain")):
        _, (file,), _ = infer(
            image_folder / "a.png", "--guidance", "1", "--negative-prompt", text, "--out", tmp_path / f"{number}.wav"
        )
        sounds.append(read_audio(file))
    np.testing.assert_array_equal(*sounds)


def test_a_vector_needs_no_torch(bundle, image_folder, tmp_path):
    """Importing it would take most of the time."""
    program = (
        "import sys; from c2c_jax.cli.main import main; "
        f"code = main(['infer', {str(image_folder / 'a.png')!r}, '--translator', {str(bundle)!r}, '--save-embedding', "
        f"{str(tmp_path / 'x.npy')!r}]); assert not {{'torch', 'transformers'}} & set(sys.modules); sys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
    assert np.load(tmp_path / "x.npy").shape == (64,)


@pytest.mark.slow
def test_interrupted_runs_leave_complete_files(bundle, image_folder, audioldm_folder):
    """Ctrl-C during the second sound: the first is complete, and no file is incomplete."""
    arguments = [
        "infer", str(image_folder), "--translator", str(bundle), "--audioldm", str(audioldm_folder),
        "--steps", "3", "--seconds", "2", "--batch-size", "1",
    ]  # fmt: skip
    program = f"""
import os, signal
from c2c_jax.cli.main import program
from c2c_jax.generation.audioldm import AudioLDM

generate, calls = AudioLDM.generate, []

def interrupted(self, *inputs, on_step, **options):
    calls.append(inputs)
    def step():
        on_step()
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
    return generate(self, *inputs, on_step=step, **options)

AudioLDM.generate = interrupted
program({arguments!r})
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    out, err = done.stdout, done.stderr
    assert out.strip() == str(image_folder / "a.wav")
    assert done.returncode == 130 and err.strip().splitlines()[-1] == "c2c infer: interrupted"
    assert len(read_audio(image_folder / "a.wav")) == 32_000
    left = {path.name for path in image_folder.iterdir()} - {"a.png", "b.jpg", "c.png"}
    assert left == {"a.wav", "a.mel.png", "a.sound.json"}


def test_caption_memory_is_reported(infer, image_folder, bundle, tmp_path):
    """It is reported on stderr and in the record, and changes the vector."""
    source_MS = np.random.default_rng(0).normal(size=(20, 64))
    source_MS = (source_MS / np.linalg.norm(source_MS, axis=1, keepdims=True)).astype(np.float16)
    memory = Memory(source=source_MS, weight=0.5, temperature=0.01)
    save_bundle(tmp_path / "remembering", dataclasses.replace(load_bundle(bundle), memory=memory))
    reports, records = [], []
    for name, translator in (("with", tmp_path / "remembering"), ("without", bundle)):
        code, _, err = infer(image_folder / "a.png", "--translator", translator, "--out", tmp_path / f"{name}.wav")
        assert code == 0
        reports.append("caption memory of 20 captions, weight 0.5 in use\n" in err)
        records.append(json.loads((tmp_path / f"{name}.sound.json").read_text()))
    assert reports == [True, False]
    known = [record["caption_memory"] for record in records]
    assert known == [{"captions": 20, "share": 0.5, "temperature": 0.01}, None]
    assert np.abs(np.subtract(*(record["clap_vector"] for record in records))).max() > 0.01


def centred(bundle: Path, folder: Path, *names: str) -> Path:
    """Copies the bundle as a translator of centred vectors with these means."""
    whole_clap = load_bundle(bundle)
    spec, rng = dataclasses.replace(whole_clap.spec, input_norm="centred"), np.random.default_rng(0)
    means = {name: (rng.normal(size=64) / 12).astype(np.float32) for name in names}
    translator = build_translator(spec, rngs=nnx.Rngs(0))
    save_bundle(folder, dataclasses.replace(whole_clap, spec=spec, translator=translator, means=ModalityMeans(**means)))
    return folder


def test_the_output_mean(infer, image_folder, bundle, tmp_path):
    """Results lie among captions or among sounds. The record says which; those of other translators do not."""
    translator = centred(bundle, tmp_path / "centred", "source_text", "source_image", "target_text", "target_audio")
    image = image_folder / "a.png"
    records = {}
    for output_mean, more in (("text", []), ("audio", ["--output-mean", "audio"])):
        code, _, err = infer(image, "--translator", translator, *more, "--out", tmp_path / f"{output_mean}.wav")
        assert code == 0, err
        assert "centring images with the mean stored in the translator\n" in err
        assert ("un-centring results with the mean of sounds stored in the translator\n" in err) == (
            output_mean == "audio"
        )
        records[output_mean] = json.loads((tmp_path / f"{output_mean}.sound.json").read_text())
        assert records[output_mean]["output_mean"] == output_mean
    space, loaded = load_space(str(load_bundle(translator).source.name)), load_bundle(translator)
    raw = space.encode_images([read_image(image)])
    for output_mean, record in records.items():
        np.testing.assert_allclose(record["clap_vector"], translate(loaded, raw, output_mean)[0], atol=1e-5)
    assert np.abs(np.subtract(*(record["clap_vector"] for record in records.values()))).max() > 0.05
    flags = "--translator", translator, "--output-mean", "audio"  # what is mixed in lies there as well
    mixed = vectors(infer, tmp_path, image, *flags, "--blend", image, "--mix", "0.5")
    np.testing.assert_allclose(mixed, records["audio"]["clap_vector"], atol=1e-5)
    code, _, _ = infer(image, "--out", tmp_path / "plain.wav", "--control", "rain")
    assert code == 0 and json.loads((tmp_path / "plain.sound.json").read_text())["output_mean"] is None
    assert "output_mean" not in json.loads((tmp_path / "plain.control.sound.json").read_text())


def test_records_with_an_output_mean_and_older_ones(infer, image_folder, bundle, tmp_path, capsys):
    translator = centred(bundle, tmp_path / "centred", "source_text", "target_text", "target_audio")
    out, flags = tmp_path / "sounds", ("--translator", translator, "--output-mean", "audio")
    code, _, err = infer(image_folder / "a.png", *flags, "--out", out / "a.wav", "--control", "rain")
    assert code == 0 and "stores no mean of images" in err
    capsys.readouterr()
    (record,), (control,), errors = read_records(out)
    assert not errors and record.content.output_mean == "audio" and control.content.output_mean is None
    content = record.raw.copy()
    del content["output_mean"]
    (out / "a.sound.json").write_text(json.dumps(content))
    (record,), _, errors = read_records(out)
    assert not errors and record.content.output_mean is None and "does not state" not in capsys.readouterr().err
    (out / "a.sound.json").write_text(json.dumps(content | {"output_mean": "images"}))
    assert "output_mean" in str(read_records(out)[2])


def test_references_without_weight_are_not_recorded(infer, image_folder, bundle, tmp_path):
    """A memory of weight 0 is for searches only."""
    source_MS = np.eye(20, 64, dtype=np.float16)
    memory = Memory(source=source_MS, weight=0.0, temperature=0.01)
    save_bundle(tmp_path / "referring", dataclasses.replace(load_bundle(bundle), memory=memory))
    code, _, err = infer(image_folder / "a.png", "--translator", tmp_path / "referring", "--out", tmp_path / "a.wav")
    assert code == 0 and "caption memory" not in err
    assert json.loads((tmp_path / "a.sound.json").read_text())["caption_memory"] is None

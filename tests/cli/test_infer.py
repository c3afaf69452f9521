"""`c2c infer` beyond one picture: files in, sounds, spectrograms and records out."""

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
from c2c_jax.spaces.space import SpaceId, identify, load_space
from c2c_jax.translator.bundle import load_bundle, save_bundle
from c2c_jax.translator.centring import ModalityMeans
from c2c_jax.translator.inference import translate
from c2c_jax.translator.kinds import build_translator
from c2c_jax.translator.memory import Memory
from tests.fixtures.sounds import FAST, sound
from tests.generation.test_ranking import build_clap

ROOT = Path(__file__).parents[2]
DRAWN = Sampling(steps=2, seconds=0.64)


def vectors(infer, tmp_path, *arguments) -> np.ndarray:
    code, _, err = infer(*arguments, "--save-embedding", tmp_path / "v.npy", audioldm=None)
    assert code == 0, err
    return np.load(tmp_path / "v.npy")


def test_a_folder_and_a_pattern(infer, pictures, tmp_path):
    code, files, _ = infer(pictures, f"{pictures}/*.png", "--out", tmp_path / "sounds")
    assert code == 0
    assert [file.name for file in files] == ["a.wav", "b.wav", "c.wav"]  # each once
    beside = {path.name for path in (tmp_path / "sounds").iterdir()}
    assert beside == {f"{name}.{kind}" for name in "abc" for kind in ("wav", "mel.png", "sound.json")}
    # Each is the sound of the picture alone: the same seed, whatever else was asked for.
    code, (alone,), _ = infer(pictures / "b.jpg", "--out", tmp_path / "alone.flac")
    assert code == 0 and soundfile.info(alone).format == "FLAC"
    np.testing.assert_allclose(sound(alone), sound(files[1]), atol=2e-4)
    assert np.abs(sound(files[0]) - sound(files[1])).max() > 1e-2


def test_spectrograms_beside_pictures_are_no_pictures(infer, pictures):
    code, files, _ = infer(pictures, "--format", "flac")
    assert code == 0 and files == [pictures / f"{name}.flac" for name in "abc"]
    with Image.open(pictures / "a.mel.png") as shown:
        assert shown.size == (800, 300)
    code, again, _ = infer(pictures, "--format", "flac")
    assert code == 0 and again == files


def test_the_record_repeats_the_sound(infer, pictures, bundle, clip_folder, audioldm_folder, tmp_path):
    _, (file,), _ = infer(pictures / "a.png", "--out", tmp_path / "a.wav", "--seed", "5", "--guidance", "3")
    record = json.loads((tmp_path / "a.sound.json").read_text())
    assert record["sounds"][0]["file"] == "a.wav" and record["sounds"][0]["seed"] == 5
    assert record["clip"]["fingerprint"] == identify(str(clip_folder)).fingerprint
    assert record["clap"]["name"] == f"{audioldm_folder}:text_encoder"
    assert record["translator"]["path"] == str(bundle) and record["pictures"][0]["path"].endswith("a.png")
    assert {"jax", "torch", "diffusers", "transformers", "c2c_jax"} <= record["versions"].keys()
    assert record["sounds"][0]["peak"] == pytest.approx(np.abs(sound(file)).max(), abs=1e-4)
    assert record["audioldm"]["name"] == str(audioldm_folder) and len(record["audioldm"]["fingerprint"]) == 64
    # All that made the sound, from the record alone.
    made = AudioLDM.load(record["audioldm"]["name"], device=record["audioldm"]["device"]).generate(
        np.array([record["clap_vector"]], np.float32),
        Sampling(**record["sampling"]),
        seeds=[record["sounds"][0]["seed"]],
    )
    np.testing.assert_allclose(made[0], sound(file), atol=1e-4)
    np.testing.assert_allclose(record["clap_vector"], vectors(infer, tmp_path, pictures / "a.png"), atol=1e-6)


def test_candidates_are_ranked_by_clap(infer, pictures, audioldm_folder, tmp_path):
    clap = build_clap(tmp_path / "clap", audioldm_folder)
    asked = "--candidates", "3", "--seed", "7", "--batch-size", "2"
    code, files, err = infer(pictures / "a.png", *asked, "--out", tmp_path / "plain")
    assert code == 0 and "in the order of their seeds: pass --ranker" in err
    assert [file.name for file in files] == ["a.wav", "a.2.wav", "a.3.wav"]
    plain = json.loads((tmp_path / "plain/a.sound.json").read_text())["sounds"]
    assert [one["seed"] for one in plain] == [7, 8, 9] and plain[0]["clap_score"] is None
    code, _, err = infer(pictures / "a.png", *asked, "--out", tmp_path / "ranked", "--ranker", clap)
    assert code == 0 and "--ranker" not in err
    ranked = json.loads((tmp_path / "ranked/a.sound.json").read_text())["sounds"]
    scores = [one["clap_score"] for one in ranked]
    assert scores == sorted(scores, reverse=True) and scores[0] > scores[2]
    assert sorted(one["seed"] for one in ranked) == [7, 8, 9]
    for one in ranked:  # the same sounds, in another order
        same = files[one["seed"] - 7]
        np.testing.assert_array_equal(sound(tmp_path / "ranked" / one["file"]), sound(same))


def test_another_clap_may_not_rank(infer, pictures, audioldm_folder, tmp_path):
    clap = build_clap(tmp_path / "clap", audioldm_folder)
    from safetensors.torch import load_file, save_file

    weights = load_file(clap / "model.safetensors")
    weights["text_projection.linear2.bias"] += 1
    save_file(weights, clap / "model.safetensors", metadata={"format": "pt"})
    code, files, err = infer(pictures / "a.png", "--candidates", "2", "--ranker", clap)
    assert code == 2 and not files and "is another CLAP" in err


def test_a_translator_to_the_whole_clap_drives_the_generator_that_has_its_text_tower(
    infer, pictures, bundle, audioldm_folder, tmp_path
):
    """The generator's text tower lies in other files than the CLAP that the translator was trained for: their vectors
    of one text are compared."""
    clap = build_clap(tmp_path / "clap", audioldm_folder)
    code, (expected,), _ = infer(pictures / "a.png", "--out", tmp_path / "own.wav")
    whole = dataclasses.replace(load_bundle(bundle), target=identify(str(clap)))
    save_bundle(tmp_path / "whole", whole)
    code, (file,), err = infer(pictures / "a.png", "--out", tmp_path / "a.wav", "--translator", tmp_path / "whole")
    assert code == 0, err
    np.testing.assert_allclose(sound(file), sound(expected), atol=1e-4)

    from safetensors.torch import load_file, save_file

    weights = load_file(clap / "model.safetensors")
    weights["text_projection.linear2.bias"] += 1
    save_file(weights, clap / "model.safetensors", metadata={"format": "pt"})
    save_bundle(tmp_path / "other", dataclasses.replace(whole, target=identify(str(clap))))
    code, files, err = infer(pictures / "a.png", "--translator", tmp_path / "other")
    assert code == 2 and not files and "is another CLAP than the translator's" in err


def test_a_checkpoints_own_settings_give_way_to_flags(infer, pictures, audioldm_folder, tmp_path):
    folder = shutil.copytree(audioldm_folder, tmp_path / "audioldm")
    (folder / "sampling.json").write_text('{"guidance": 2.5, "scheduler": "unipc", "negative_prompt": "noise"}')
    arguments = ("--out", tmp_path / "a.wav", "--guidance", "3", "--audioldm", folder)
    code, _, err = infer(pictures / "a.png", *arguments)
    assert code == 0, err
    sampling = json.loads((tmp_path / "a.sound.json").read_text())["sampling"]
    assert (sampling["guidance"], sampling["scheduler"], sampling["negative_prompt"]) == (3, "unipc", "noise")
    (folder / "sampling.json").write_text('{"guidence": 2.5}')
    code, _, err = infer(pictures / "a.png", *arguments)
    assert code == 2 and "sampling.json: unknown guidence; known are guidance, negative_prompt" in err


def test_control_is_the_texts_own_sound(infer, pictures, audioldm_folder):
    code, files, _ = infer(pictures / "a.png", pictures / "c.png", "--control", "a dog barks")
    assert code == 0
    assert [file.name for file in files] == ["a.wav", "a.control.wav", "c.control.wav", "c.wav"]
    generator = AudioLDM.load(audioldm_folder, device="cpu")
    expected = generator.generate(generator.encode_text(["a dog barks"]), DRAWN, seeds=[0])[0]
    for name in "ac":
        np.testing.assert_allclose(sound(pictures / f"{name}.control.wav"), expected, atol=2e-4)
        assert json.loads((pictures / f"{name}.control.sound.json").read_text())["control"] == "a dog barks"
        assert (pictures / f"{name}.control.mel.png").is_file()
    assert np.abs(sound(pictures / "a.wav") - expected).max() > 1e-2


def test_each_control_goes_with_its_own_picture(infer, pictures, audioldm_folder, tmp_path):
    """The first picture cannot be read: the others' texts stay theirs."""
    (pictures / "a.png").write_bytes(b"no picture")
    texts = ["--control", "rain", "--control", "a dog", "--control", "a train"]
    code, files, _ = infer(pictures, *texts)
    assert code == 2 and [file.name for file in files] == ["b.wav", "b.control.wav", "c.wav", "c.control.wav"]
    for name, text in (("b", "a dog"), ("c", "a train")):
        record = json.loads((pictures / f"{name}.control.sound.json").read_text())
        assert record["control"] == text and "mixed_in" not in record
    generator = AudioLDM.load(audioldm_folder, device="cpu")
    expected = generator.generate(generator.encode_text(["a dog"]), DRAWN, seeds=[0])[0]
    np.testing.assert_allclose(sound(pictures / "b.control.wav"), expected, atol=2e-4)
    code, _, err = infer(pictures, "--average", *texts[:4])
    assert code == 2 and "1 sounds and 2 --control texts" in err


def test_no_text_tower_is_needed_without_texts(infer, pictures, audioldm_folder, tmp_path):
    copy = Path(shutil.copytree(audioldm_folder, tmp_path / "copy"))
    for part in ("text_encoder", "tokenizer"):
        shutil.rmtree(copy / part)
    code, (file,), err = infer(pictures / "a.png", "--guidance", "1", audioldm=copy)
    assert code == 0, err
    assert json.loads(file.with_suffix(".sound.json").read_text())["clap"]["fingerprint"] == ""
    code, _, err = infer(pictures / "a.png", audioldm=copy)
    assert code == 2 and "download text_encoder/config.json" in err


def test_a_bundle_that_never_saw_its_spaces(bundle, pictures, audioldm_folder, tmp_path, capsys):
    """As an imported one: widths are compared, and that is told."""
    whole = load_bundle(bundle)
    for dim, expected in ((64, 0), (32, 2)):
        spec = dataclasses.replace(whole.spec, target_dim=dim)
        unseen = dataclasses.replace(
            whole,
            spec=spec,
            translator=build_translator(spec, rngs=nnx.Rngs(0)),
            source=dataclasses.replace(whole.source, fingerprint=""),
            target=SpaceId(name="somewhere/else", dim=dim, fingerprint=""),
        )
        save_bundle(tmp_path / "unseen", unseen)
        command = [str(pictures / "a.png"), "--translator", str(tmp_path / "unseen"), "--audioldm"]
        assert main(["infer", *command, str(audioldm_folder), *FAST]) == expected
        err = capsys.readouterr().err
        if expected:
            assert "is another space" in err and "64 wide" in err
        else:
            assert "stores no fingerprint of its CLIP" in err and "of its CLAP, somewhere/else" in err


def test_pictures_of_the_bar_and_paths_do_not_mix(bundle, pictures, audioldm_folder, tmp_path):
    """stderr is a terminal and stdout a file, as in `infer.py ... > list.txt`."""
    import pty

    ours, theirs = pty.openpty()
    command = [
        sys.executable, "infer.py", str(pictures / "a.png"), str(pictures / "c.png"), "--translator", str(bundle),
        "--audioldm", str(audioldm_folder), *FAST,
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
    assert (tmp_path / "list.txt").read_text().split() == [str(pictures / f"{name}.wav") for name in "ac"]
    assert b"sampling" in shown and b"reading" in shown


def test_mixing_is_a_weighted_sum(infer, pictures, audioldm_folder, tmp_path):
    a, b, c = vectors(infer, tmp_path, pictures)
    (text,) = AudioLDM.load(audioldm_folder, device="cpu").encode_text(["rain"])
    asked = [pictures / "a.png", "--save-embedding", tmp_path / "m.npy", "--out", tmp_path / "m.wav"]
    for more, expected in (
        (["--prompt", "rain", "--mix", "0.3"], 0.7 * a + 0.3 * text),
        (["--prompt", "rain"], 0.5 * a + 0.5 * text),
        (["--blend", pictures / "b.jpg", "--blend", pictures / "c.png", "--mix", "0.5"], 0.5 * a + 0.25 * b + 0.25 * c),
        (["--blend", pictures / "b.jpg", "--prompt", "rain", "--mix", "0.2", "--mix", "0.4"],
         0.4 * a + 0.2 * text + 0.4 * b),
        (["--blend", pictures / "b.jpg", "--blend", pictures / "b.jpg", "--mix", "0.5"], 0.5 * a + 0.5 * b),
        (["--prompt", "rain", "--mix", "1"], text),
    ):  # fmt: skip
        code, _, err = infer(*asked, *more)
        assert code == 0, err
        np.testing.assert_allclose(np.load(tmp_path / "m.npy"), expected / np.linalg.norm(expected), atol=1e-5)
    assert json.loads((tmp_path / "m.sound.json").read_text())["mixed_in"] == [{"what": "rain", "weight": 1.0}]


def test_a_video_folder_is_averaged(infer, pictures, tmp_path):
    mean = vectors(infer, tmp_path, pictures).mean(axis=0)
    np.testing.assert_allclose(vectors(infer, tmp_path, pictures, "--average"), mean / np.linalg.norm(mean), atol=1e-5)
    code, files, _ = infer(pictures, "--average")
    assert code == 0 and files == [tmp_path / "pictures.wav"]
    record = json.loads((tmp_path / "pictures.sound.json").read_text())
    assert [Path(one["path"]).name for one in record["pictures"]] == ["a.png", "b.jpg", "c.png"]


def test_without_guidance_no_negative_prompt_counts(infer, pictures, tmp_path):
    sounds = []
    for number, text in enumerate(("a dog", "rain")):
        _, (file,), _ = infer(
            pictures / "a.png", "--guidance", "1", "--negative-prompt", text, "--out", tmp_path / f"{number}.wav"
        )
        sounds.append(sound(file))
    np.testing.assert_array_equal(*sounds)


def test_a_vector_needs_no_torch(bundle, pictures, tmp_path):
    """Importing it would take most of the time."""
    program = (
        "import sys; from c2c_jax.cli.main import main; "
        f"code = main(['infer', {str(pictures / 'a.png')!r}, '--translator', {str(bundle)!r}, '--save-embedding', "
        f"{str(tmp_path / 'x.npy')!r}]); assert not {{'torch', 'transformers'}} & set(sys.modules); sys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
    assert np.load(tmp_path / "x.npy").shape == (64,)


def test_interrupted_runs_leave_whole_files(bundle, pictures, audioldm_folder):
    """Ctrl-C while the second sound is made: the first is whole, and no other file is left half."""
    arguments = [
        "infer", str(pictures), "--translator", str(bundle), "--audioldm", str(audioldm_folder),
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
    assert out.strip() == str(pictures / "a.wav")
    assert done.returncode == 130 and err.strip().splitlines()[-1] == "c2c infer: interrupted"
    assert len(sound(pictures / "a.wav")) == 32_000
    left = {path.name for path in pictures.iterdir()} - {"a.png", "b.jpg", "c.png"}
    assert left == {"a.wav", "a.mel.png", "a.sound.json"}


def test_a_caption_memory_is_told_of(infer, pictures, bundle, tmp_path):
    """On stderr and in the record; and it is another sound's vector then."""
    source_MS = np.random.default_rng(0).normal(size=(20, 64))
    source_MS = (source_MS / np.linalg.norm(source_MS, axis=1, keepdims=True)).astype(np.float16)
    memory = Memory(source=source_MS, weight=0.5, temperature=0.01)
    save_bundle(tmp_path / "remembering", dataclasses.replace(load_bundle(bundle), memory=memory))
    told, records = [], []
    for name, translator in (("with", tmp_path / "remembering"), ("without", bundle)):
        code, _, err = infer(pictures / "a.png", "--translator", translator, "--out", tmp_path / f"{name}.wav")
        assert code == 0
        told.append("caption memory of 20 captions, share 0.5 in use\n" in err)
        records.append(json.loads((tmp_path / f"{name}.sound.json").read_text()))
    assert told == [True, False]
    known = [record["caption_memory"] for record in records]
    assert known == [{"captions": 20, "share": 0.5, "temperature": 0.01}, None]
    assert np.abs(np.subtract(*(record["clap_vector"] for record in records))).max() > 0.01


def centred(bundle: Path, folder: Path, *names: str) -> Path:
    """The bundle as a translator of centred vectors that has these means."""
    whole = load_bundle(bundle)
    spec, rng = dataclasses.replace(whole.spec, input_norm="centred"), np.random.default_rng(0)
    means = {name: (rng.normal(size=64) / 12).astype(np.float32) for name in names}
    translator = build_translator(spec, rngs=nnx.Rngs(0))
    save_bundle(folder, dataclasses.replace(whole, spec=spec, translator=translator, means=ModalityMeans(**means)))
    return folder


def test_the_output_mean(infer, pictures, bundle, tmp_path):
    """Results lie among captions or among sounds; the record says which, and of other translators nothing."""
    translator = centred(bundle, tmp_path / "centred", "source_text", "source_image", "target_text", "target_audio")
    image = pictures / "a.png"
    found = {}
    for output_mean, more in (("text", []), ("audio", ["--output-mean", "audio"])):
        code, _, err = infer(image, "--translator", translator, *more, "--out", tmp_path / f"{output_mean}.wav")
        assert code == 0, err
        assert "centring pictures with the mean stored in the translator\n" in err
        assert ("un-centring results with the mean of sounds stored in the translator\n" in err) == (
            output_mean == "audio"
        )
        found[output_mean] = json.loads((tmp_path / f"{output_mean}.sound.json").read_text())
        assert found[output_mean]["output_mean"] == output_mean
    space, loaded = load_space(str(load_bundle(translator).source.name)), load_bundle(translator)
    raw = space.encode_image([read_image(image)])
    for output_mean, record in found.items():
        np.testing.assert_allclose(record["clap_vector"], translate(loaded, raw, output_mean)[0], atol=1e-5)
    assert np.abs(np.subtract(*(record["clap_vector"] for record in found.values()))).max() > 0.05
    asked = "--translator", translator, "--output-mean", "audio"  # what is mixed in lies there as well
    mixed = vectors(infer, tmp_path, image, *asked, "--blend", image, "--mix", "0.5")
    np.testing.assert_allclose(mixed, found["audio"]["clap_vector"], atol=1e-5)
    code, _, _ = infer(image, "--out", tmp_path / "plain.wav", "--control", "rain")
    assert code == 0 and json.loads((tmp_path / "plain.sound.json").read_text())["output_mean"] is None
    assert "output_mean" not in json.loads((tmp_path / "plain.control.sound.json").read_text())


def test_records_with_an_output_mean_and_older_ones(infer, pictures, bundle, tmp_path, capsys):
    translator = centred(bundle, tmp_path / "centred", "source_text", "target_text", "target_audio")
    out, asked = tmp_path / "sounds", ("--translator", translator, "--output-mean", "audio")
    code, _, err = infer(pictures / "a.png", *asked, "--out", out / "a.wav", "--control", "rain")
    assert code == 0 and "stores no mean of pictures" in err
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


def test_references_that_turn_nothing_are_not_recorded(infer, pictures, bundle, tmp_path):
    """A memory of share 0 is for searches alone."""
    source_MS = np.eye(20, 64, dtype=np.float16)
    memory = Memory(source=source_MS, weight=0.0, temperature=0.01)
    save_bundle(tmp_path / "referring", dataclasses.replace(load_bundle(bundle), memory=memory))
    code, _, err = infer(pictures / "a.png", "--translator", tmp_path / "referring", "--out", tmp_path / "a.wav")
    assert code == 0 and "caption memory" not in err
    assert json.loads((tmp_path / "a.sound.json").read_text())["caption_memory"] is None

"""`c2c infer` beyond one picture: files in, sounds, spectrograms and records out."""

import contextlib
import dataclasses
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from flax import nnx
from PIL import Image

from c2c_jax.cli.main import main
from c2c_jax.generation.audioldm import AudioLDM
from c2c_jax.generation.sampling import Sampling
from c2c_jax.models.translator import TranslatorSpec, build_translator
from c2c_jax.spaces import SpaceId, identify
from c2c_jax.weights.translator import Bundle, load_bundle, save_bundle
from tests.generation.test_ranking import build_clap

ROOT = Path(__file__).parents[2]
FAST = ["--steps", "2", "--seconds", "0.64"]
DRAWN = Sampling(steps=2, seconds=0.64)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, clip_folder, audioldm_folder) -> Path:
    """An untrained translator between the tiny spaces."""
    source, target = identify(str(clip_folder)), identify(f"{audioldm_folder}:text_encoder")
    spec = TranslatorSpec(
        kind="mlp", source_dim=64, target_dim=64, width=32, depth=2, heads=1, mlp_width=1, dropout=0.0, clamp=0.0,
        input_norm="unit",
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    translator = build_translator(spec, rngs=nnx.Rngs(0))
    save_bundle(folder, Bundle(translator=translator, spec=spec, source=source, target=target, recipe={}, metrics={}))
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with a.png, b.jpg and c.png."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed, name in enumerate(("a.png", "b.jpg", "c.png")):
        pixels = np.random.default_rng(seed).integers(0, 255, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture
def infer(bundle, audioldm_folder, capsys):
    """Runs the verb; gives the exit code, the files it printed, and its stderr."""

    def run(*arguments: str | Path, audioldm: Path | None = audioldm_folder):
        capsys.readouterr()
        generator = ["--audioldm", str(audioldm), *FAST] if audioldm else []
        code = main(["infer", *map(str, arguments), "--translator", str(bundle), *generator])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, [Path(line) for line in out.splitlines()], err

    return run


def vectors(infer, tmp_path, *arguments) -> np.ndarray:
    code, _, err = infer(*arguments, "--save-embedding", tmp_path / "v.npy", audioldm=None)
    assert code == 0, err
    return np.load(tmp_path / "v.npy")


def sound(path: Path) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == 16_000
    return samples


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


def test_no_sound_is_written_over_another(infer, pictures, tmp_path):
    shutil.copy(pictures / "a.png", pictures / "a.2.png")
    code, files, err = infer(pictures, "--candidates", "2")
    assert code == 2 and not files and "a.2.png and" in err and "would both be written to" in err
    (pictures / "a.2.png").rename(pictures / "a.control.png")
    code, files, err = infer(pictures, "--control", "rain")
    assert code == 2 and not files and "would both be written to" in err
    assert infer(pictures)[0] == 0


def test_files_of_the_users_own_stay(infer, pictures):
    (pictures / "a.json").write_text('{"taken": "in Rome"}')
    assert infer(pictures / "a.png")[0] == 0
    assert (pictures / "a.json").read_text() == '{"taken": "in Rome"}'


def test_no_text_tower_is_needed_without_texts(infer, pictures, audioldm_folder, tmp_path):
    copy = Path(shutil.copytree(audioldm_folder, tmp_path / "copy"))
    for part in ("text_encoder", "tokenizer"):
        shutil.rmtree(copy / part)
    code, (file,), err = infer(pictures / "a.png", "--guidance", "1", audioldm=copy)
    assert code == 0, err
    assert json.loads(file.with_suffix(".sound.json").read_text())["clap"]["fingerprint"] == ""
    code, _, err = infer(pictures / "a.png", audioldm=copy)
    assert code == 2 and "lacks text_encoder/config.json" in err


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
            assert "does not know the fingerprint of its CLIP" in err and "of its CLAP, somewhere/else" in err


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
        assert process.wait(timeout=60) == 0
    os.close(ours)
    assert (tmp_path / "list.txt").read_text().split() == [str(pictures / f"{name}.wav") for name in "ac"]
    assert b"sampling" in shown and b"reading" in shown


def test_names_are_told_as_they_are(infer, pictures):
    odd = (pictures / "b.jpg").rename(pictures / "b [red] [x].jpg")
    odd.write_bytes(b"no picture")
    code, _, err = infer(pictures)
    assert code == 2 and f"left out: {odd} is damaged" in err


def test_a_full_disk_names_the_file(infer, pictures, tmp_path):
    """A limit on the size of files stands for it: the sound fits, its picture does not."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (25_000, limits[1]))
    try:
        code, _, err = infer(pictures / "a.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 2 and f"{pictures / 'a.mel.png'}: File too large" in err
    assert len(sound(pictures / "a.wav")) == 10_240
    assert {path.suffix for path in pictures.iterdir()} == {".png", ".jpg", ".wav"}


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


def test_unreadable_pictures_are_told_of_and_the_others_made(infer, pictures):
    (pictures / "b.jpg").write_bytes(b"no picture")
    code, files, err = infer(pictures)
    assert code == 2 and [file.name for file in files] == ["a.wav", "c.wav"]
    assert f"left out: {pictures / 'b.jpg'} is damaged" in err
    assert err.strip().splitlines()[-1] == "c2c infer: 1 of 3 pictures could not be read; they are named above"


def test_silence_is_told(infer, pictures, audioldm_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    mute = Path(shutil.copytree(audioldm_folder, tmp_path / "mute"))
    path = mute / "vocoder/model.safetensors"
    weights = load_file(path)
    for name in ("weight", "bias"):
        weights[f"conv_post.{name}"].zero_()
    save_file(weights, path, metadata={"format": "pt"})
    code, (file,), err = infer(pictures / "a.png", audioldm=mute)
    assert code == 0 and f"{file} is silent" in err
    assert json.loads(file.with_suffix(".sound.json").read_text())["sounds"][0]["defects"] == [
        "silent: its peak is 0 of full scale"
    ]


def test_without_guidance_no_negative_prompt_counts(infer, pictures, tmp_path):
    sounds = []
    for number, text in enumerate(("a dog", "rain")):
        _, (file,), _ = infer(
            pictures / "a.png", "--guidance", "1", "--negative-prompt", text, "--out", tmp_path / f"{number}.wav"
        )
        sounds.append(sound(file))
    np.testing.assert_array_equal(*sounds)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--out", "x.wav"], "3 sounds and one file x.wav: name a folder"),
        (["--out", "x.mp3"], "ends in .mp3: name a .wav or .flac file, or a folder"),
        (["--mix", "0.3"], "0 things to mix in and 1 weights"),
        (["--prompt", "a", "--mix", "1.5"], "take numbers above 0 that sum to 1 at most"),
        (["--prompt", "a", "--prompt", "b", "--blend", "c", "--mix", "0.1", "--mix", "0.1"], "3 things .* 2 weights"),
        (["--control", "a", "--control", "b"], "3 sounds and 2 --control texts"),
        (["--candidates", "0"], "candidates is 0"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--device", "abacus"], "torch cannot use device 'abacus'"),
        (["--dtype", "float16", "--device", "cpu"], "float16 is for GPUs"),
        (["--ranker", "no/such"], "hf download no/such"),
        (["--blend", "nothing.png"], "nothing.png, found no file"),
        (["nothing/*.png"], "pattern nothing/\\*.png holds no picture"),
    ],
)  # fmt: skip
def test_misuse_is_one_line_and_writes_nothing(infer, pictures, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, files, err = infer(pictures, *arguments)
    assert code == 2 and not files
    (line,) = [line for line in err.splitlines() if line.startswith("c2c infer: ")]
    assert re.search(told, line), line
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_and_two_of_one_name(infer, pictures, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = infer(tmp_path / "empty")
    assert code == 2 and "holds no picture" in err
    shutil.copy(pictures / "a.png", pictures / "a.jpg")
    code, _, err = infer(pictures)
    assert code == 2 and "a.jpg and" in err and "would both be written to" in err
    code, _, err = infer(pictures / "a.png", "--prompt", "rain", "--save-embedding", tmp_path / "x.npy", audioldm=None)
    assert code == 2 and "--prompt needs --audioldm" in err


def test_a_vector_needs_no_torch(bundle, pictures, tmp_path):
    """Importing it would take most of the time."""
    program = (
        "import sys; from c2c_jax.cli.main import main; "
        f"code = main(['infer', {str(pictures / 'a.png')!r}, '--translator', {str(bundle)!r}, '--save-embedding', "
        f"{str(tmp_path / 'x.npy')!r}]); assert not {{'torch', 'transformers'}} & set(sys.modules); sys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=100)
    assert np.load(tmp_path / "x.npy").shape == (64,)


def test_interrupted_runs_leave_whole_files(bundle, pictures, audioldm_folder):
    """Ctrl-C once the first sound is there: it is whole, and no other file is left half."""
    command = [
        sys.executable, "infer.py", str(pictures), "--translator", str(bundle), "--audioldm", str(audioldm_folder),
        "--steps", "200", "--seconds", "2", "--batch-size", "1",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == str(pictures / "a.wav")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.strip().splitlines()[-1] == "c2c infer: interrupted"
    assert len(sound(pictures / "a.wav")) == 32_000
    left = {path.name for path in pictures.iterdir()} - {"a.png", "b.jpg", "c.png"}
    assert left == {"a.wav", "a.mel.png", "a.sound.json"}

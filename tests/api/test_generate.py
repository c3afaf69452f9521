"""`pipeline` and `Audio`, compared with the files that `c2c infer` writes and with AudioLDM itself."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import c2c_jax
from c2c_jax.cli.main import main
from c2c_jax.errors import BundleError, CheckpointError, ConfigError, GenerationError, ImageError
from c2c_jax.generation.audioldm import AudioLDM
from c2c_jax.generation.sampling import Sampling

TRANSLATOR, GENERATOR, DOG = "miniworld/translator", "miniworld/audioldm", "examples/dog.png"
QUICK = {"steps": 2, "seconds": 0.6}


@pytest.fixture(scope="module")
def pipe():
    return c2c_jax.pipeline(TRANSLATOR, generator=GENERATOR, progress=False)


@pytest.fixture(scope="module")
def audio(pipe):
    return pipe(DOG, seed=3, **QUICK)


def samples_16_bit(audio):
    return np.round(np.clip(audio.samples, -1, 1) * 32767).astype(np.int16)


def test_sound_is_that_of_the_command(audio, tmp_path):
    flags = ["--steps", "2", "--seconds", "0.6", "--seed", "3"]
    assert main(["infer", DOG, *flags, "--out", str(tmp_path / "dog.wav")]) == 0
    expected, rate = soundfile.read(tmp_path / "dog.wav", dtype="int16")
    assert rate == audio.sample_rate == 16_000 and len(expected) == 9600
    np.testing.assert_allclose(samples_16_bit(audio), expected, atol=1)


def test_audio_is_saved_drawn_and_played(audio, tmp_path):
    assert re.fullmatch(r"Audio\(0\.60 s, 16,000 Hz, clap_score=-?0\.\d{3}, seed=3\)", repr(audio))
    assert audio.seconds == 0.6 and audio.samples.dtype == np.float32 and audio.samples.shape == (9600,)
    for name in ("dog.wav", "dog.flac"):
        stored, _ = soundfile.read(audio.save(tmp_path / name), dtype="int16")
        np.testing.assert_array_equal(stored, samples_16_bit(audio))
    with pytest.raises(GenerationError, match=r"\.wav or \.flac"):
        audio.save(tmp_path / "dog.mp3")
    player = re.fullmatch(r'<audio controls src="data:audio/wav;base64,(.*)"></audio>', audio._repr_html_())
    played, _ = soundfile.read(io.BytesIO(base64.b64decode(player[1])), dtype="int16")
    np.testing.assert_allclose(played, samples_16_bit(audio), atol=1)
    assert audio.spectrogram("dog").size == (800, 300)


def test_clap_score_is_the_cosine_to_the_vector(pipe, audio):
    clap = c2c_jax.load_space("miniworld/clap")
    vector_E = clap.encode_audio([audio.samples])[0]  # of the same sample rate
    assert clap.audio_preprocessor.sample_rate == 16_000
    np.testing.assert_allclose(audio.clap_vector, pipe.encode_images(DOG)[0], atol=1e-6)
    assert audio.clap_score == pytest.approx(vector_E @ audio.clap_vector / np.linalg.norm(vector_E), abs=1e-5)


def test_sound_depends_on_image_and_seed_alone(pipe, audio):
    with Image.open(DOG) as file:
        image = file.copy()
    sounds = pipe([image, "examples/piano.png", np.asarray(image)], seed=3, **QUICK)
    for sound in sounds[::2]:
        np.testing.assert_allclose(sound.samples, audio.samples, atol=5e-3)  # a batch rounds differently
    assert np.abs(sounds[1].samples - audio.samples).max() > 0.01
    assert np.abs(pipe(DOG, seed=4, **QUICK).samples - audio.samples).max() > 0.01


def test_loaded_spaces_and_few_images(pipe, audio):
    clip, clap = c2c_jax.load_space("miniworld/clip"), c2c_jax.load_space("miniworld/clap")
    pipe = c2c_jax.pipeline(pipe.translator, clip=clip, clap=clap, generator=Path(GENERATOR), progress=False)
    (sound,) = pipe((path for path in [DOG]), seed=3, **QUICK)
    assert sound.clap_score == pytest.approx(audio.clap_score, abs=1e-4)
    assert pipe([]) == [] and pipe.encode_text([]).shape == (0, 64)
    with pytest.raises(ConfigError, match="batch_size must be 1 or more"):
        c2c_jax.pipeline(TRANSLATOR, batch_size=0)


def test_best_candidate_is_returned(pipe):
    single = [pipe(DOG, seed=seed, **QUICK) for seed in (5, 6, 7)]
    best = pipe(DOG, seed=5, candidates=3, **QUICK)
    expected = max(single, key=lambda sound: sound.clap_score)
    assert best.seed == expected.seed and best.clap_score == pytest.approx(expected.clap_score, abs=1e-4)


def test_prompts_and_vectors(pipe):
    image_E, text_E = pipe.encode_images(DOG)[0], pipe.encode_text("rain")[0]
    mixed = pipe(DOG, prompt="rain", mix=0.25, **QUICK)
    expected_E = 0.75 * image_E + 0.25 * text_E
    np.testing.assert_allclose(mixed.clap_vector, expected_E / np.linalg.norm(expected_E), atol=1e-5)
    (sound,) = pipe.generate(2 * text_E[None], guidance=1.0, scheduler="ddim", **QUICK)
    model = AudioLDM.load(GENERATOR, device="cpu")
    settings = Sampling(steps=2, seconds=0.6, guidance=1.0, scheduler="ddim")
    expected = model.generate(text_E[None], settings, seeds=[0])[0]
    np.testing.assert_allclose(sound.samples, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"seconds": -1.0}, GenerationError, "seconds"),
        ({"scheduler": "euler"}, GenerationError, "scheduler"),
        ({"candidates": 0}, GenerationError, "candidates"),
        ({"prompt": " "}, ConfigError, "empty"),
        ({"prompt": "rain", "mix": 2.0}, ConfigError, "mixing weights"),
        ({"images": "nofile.png"}, ImageError, "nofile.png"),
        ({"output_mean": "sound"}, ConfigError, "output_mean"),
    ],
)
def test_mistakes_are_one_line(pipe, arguments, error, words):
    with pytest.raises(error, match=words) as raised:
        pipe(**{"images": DOG, **QUICK, **arguments})
    assert "\n" not in str(raised.value) and "--" not in str(raised.value)


def test_parts_that_do_not_fit_are_refused(clip_folder, audioldm_folder):
    with pytest.raises(BundleError, match="another space"):
        c2c_jax.pipeline(TRANSLATOR, clip=str(clip_folder))
    with pytest.raises(BundleError):
        c2c_jax.pipeline(TRANSLATOR, generator=str(audioldm_folder))
    with pytest.raises(CheckpointError, match="miniworld/nothing"):
        c2c_jax.pipeline(TRANSLATOR, generator="miniworld/nothing")


@pytest.mark.slow
def test_a_generator_is_needed_for_sounds_alone():
    rng = np.random.default_rng(0)
    spaces = ("miniworld/clip", "miniworld/audioldm:text_encoder")
    fitted = c2c_jax.fit(*rng.normal(size=(2, 100, 64)), "mlp", spaces=spaces, steps=1, batch_size=64, progress=False)
    pipe = c2c_jax.pipeline(fitted, progress=False)
    assert repr(pipe) == "Pipeline(miniworld/clip → untitled → no generator)"
    assert pipe.encode_images(DOG).shape == (1, 64)
    with pytest.raises(ConfigError, match="pass generator="):
        pipe(DOG)
    pipe = c2c_jax.pipeline(fitted, generator=GENERATOR, progress=False)
    assert pipe(DOG, **QUICK).clap_score is None  # the target is a text tower alone
    with pytest.raises(ConfigError, match="pass clap"):
        pipe(DOG, candidates=2, **QUICK)

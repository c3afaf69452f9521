import dataclasses
import math
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AudioLDMPipeline
from safetensors.torch import load_file, save_file

from c2c_jax.errors import CheckpointError, GenerationError
from c2c_jax.generation.audioldm import AudioLDM, build_scheduler
from c2c_jax.generation.sampling import STEPS, Sampling

SHORT = Sampling(scheduler="ddim", steps=2, seconds=0.1)
# Rounding depends on the batch size, and guidance of 7.5 in two long steps amplifies it: differences of up to 2e-5 were
# measured in sounds with peaks of 0.5. The tolerance is three quantisation steps of 16-bit audio.
ROUNDING = 1e-4
DIFFERENT = 1e-2


@pytest.fixture(scope="module")
def pipeline(folder):
    pipeline = AudioLDMPipeline.from_pretrained(folder, local_files_only=True)
    return pipeline


def vectors(count, width=64, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def units(clap_BE):
    return torch.from_numpy(clap_BE / np.sqrt((clap_BE.astype(np.float64) ** 2).sum(1, keepdims=True))).float()


@torch.no_grad()
def text_vector(pipeline, text):
    tokens = pipeline.tokenizer([text], return_tensors="pt")
    vector = pipeline.text_encoder(**tokens).text_embeds
    return units(torch.nn.functional.normalize(vector).numpy())


def by_hand(pipeline, clap_BE, seeds, sampling, negative):
    """Generates sounds with diffusers' own pipeline."""
    pipeline = AudioLDMPipeline(
        **{**pipeline.components, "scheduler": build_scheduler(sampling.scheduler, dict(pipeline.scheduler.config))}
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt_embeds=units(clap_BE),
        negative_prompt_embeds=negative,
        audio_length_in_s=sampling.seconds,
        num_inference_steps=sampling.steps,
        guidance_scale=sampling.guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    ).audios


def short(**fields):
    return dataclasses.replace(SHORT, **fields)


def generate(model, sampling=SHORT, vector_seed=0, seed=0, **more):
    return model.generate(vectors(1, seed=vector_seed), sampling, seeds=[seed], **more)


def test_sizes_are_read_from_the_checkpoint(model):
    assert (model.sample_rate, model.dim) == (16000, 64)


@pytest.mark.parametrize("scheduler", STEPS)
def test_sound_equals_the_pipelines(model, pipeline, scheduler):
    clap_BE, sampling = vectors(2), short(scheduler=scheduler, steps=4, guidance=3.5, negative_prompt="rain")
    expected = by_hand(pipeline, clap_BE, [7, 9], sampling, text_vector(pipeline, "rain").repeat(2, 1))
    actual = model.generate(clap_BE, sampling, seeds=[7, 9])
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, expected)
    # The random weights must be sensitive to text and guidance, or the equality above is trivial.
    for other in (dict(negative_prompt="a"), dict(guidance=2.5)):
        actual = model.generate(clap_BE, dataclasses.replace(sampling, **other), seeds=[7, 9])
        assert np.abs(actual - expected).max() > DIFFERENT


def test_schedulers_differ(model):
    clips = [generate(model, short(scheduler=name, steps=4)) for name in STEPS]
    assert min(np.abs(a - b).max() for i, a in enumerate(clips) for b in clips[:i]) > 1e-3


def test_the_negative_prompt_is_encoded_as_the_pipeline_does(model, pipeline):
    both = pipeline._encode_prompt(["a dog"], "cpu", 1, True, ["Low quality"]).detach()
    expected = by_hand(pipeline, vectors(1), [0], SHORT, both[:1])
    np.testing.assert_allclose(generate(model), expected, atol=ROUNDING)
    np.testing.assert_allclose(generate(model, negative_E=3 * both[0].numpy()), expected, atol=ROUNDING)


def test_text_vectors_do_not_depend_on_the_batch(model, pipeline):
    texts = ["a dog barks at the rain", "a", "a" + " b" * 30]
    actual = model.encode_text(texts)
    for text, vector in zip(texts, actual, strict=True):
        np.testing.assert_allclose(vector, text_vector(pipeline, text)[0], atol=1e-5)


def test_a_negative_prompt_beyond_the_towers_positions_is_cut(model):
    # RoBERTa's 514 positions hold 512 tokens, including start and end.
    (longest,) = model.encode_text(["a" + " a" * 509])
    np.testing.assert_array_equal(model.encode_text(["a" + " a" * 700])[0], longest)
    assert np.abs(model.encode_text(["a" + " b" * 400])[0] - longest).max() > 1e-4


@pytest.mark.parametrize("guidance", [1.0, 0.0, -2.0])
def test_guidance_of_one_or_less_is_the_pipeline_without_guidance(model, pipeline, guidance):
    expected = by_hand(pipeline, vectors(1), [0], short(guidance=1.0), None)
    np.testing.assert_array_equal(generate(model, short(guidance=guidance)), expected)


def test_no_text_tower_is_needed_for_vectors(copy, model):
    shutil.rmtree(copy / "text_encoder")
    shutil.rmtree(copy / "tokenizer")
    without = AudioLDM.load(copy, device="cpu")
    np.testing.assert_array_equal(generate(without, short(guidance=1.0)), generate(model, short(guidance=1.0)))
    away_E = vectors(1, seed=3)[0]
    np.testing.assert_array_equal(generate(without, negative_E=away_E), generate(model, negative_E=away_E))
    with pytest.raises(CheckpointError, match="download text_encoder/config.json, tokenizer/vocab.json"):
        generate(without)


# 4480 samples are 28 frames: diffusers rounds 0.29 s down to 28 of its 29.
@pytest.mark.parametrize("seconds, samples", [(0.04, 640), (0.1, 1600), (0.1234, 1974), (0.29, 4640)])
def test_length_is_seconds_times_sample_rate(model, seconds, samples):
    assert generate(model, short(steps=1, seconds=seconds, guidance=1.0)).shape == (1, samples)


def test_only_the_direction_of_vectors_matters(model):
    expected = generate(model)
    long = model.generate(1e30 * vectors(1), SHORT, seeds=[0])
    np.testing.assert_allclose(long, expected, atol=ROUNDING)
    assert np.abs(generate(model, vector_seed=1) - expected).max() > DIFFERENT


def test_vectors_of_numpy_jax_and_torch(model):
    clap_BE = vectors(2)
    expected = model.generate(clap_BE, SHORT, seeds=[0, 1])
    for same in (jnp.asarray(clap_BE), torch.from_numpy(clap_BE), torch.from_numpy(clap_BE).requires_grad_()):
        np.testing.assert_array_equal(model.generate(same, SHORT, seeds=[0, 1]), expected)
    for half in (jnp.asarray(clap_BE, jnp.bfloat16), torch.from_numpy(clap_BE).bfloat16()):
        rounded = np.asarray(half, np.float32) if isinstance(half, jnp.ndarray) else half.float().numpy()
        actual = model.generate(half, SHORT, seeds=[0, 1])
        np.testing.assert_array_equal(actual, model.generate(rounded, SHORT, seeds=[0, 1]))


def test_seed_determines_the_samples(model):
    first = generate(model, seed=3)
    np.testing.assert_array_equal(generate(model, seed=3), first)
    assert np.abs(generate(model, seed=4) - first).max() > DIFFERENT


def test_clips_do_not_depend_on_the_batch(model):
    clap_BE, seeds = vectors(3), [5, 11, 5]
    batch = model.generate(clap_BE, SHORT, seeds=seeds)
    for i in range(3):
        alone = model.generate(clap_BE[i : i + 1], SHORT, seeds=seeds[i : i + 1])
        np.testing.assert_allclose(alone[0], batch[i], atol=ROUNDING)


def test_offloading_gives_the_same_sound(folder, model):
    offloaded = AudioLDM.load(folder, device="cpu", offload=True)
    np.testing.assert_array_equal(generate(offloaded), generate(model))


def test_bfloat16_is_near(folder, model):
    half = AudioLDM.load(folder, device="cpu", dtype="bfloat16")
    actual, expected = generate(half, short(guidance=1.0)), generate(model, short(guidance=1.0))
    assert actual.dtype == np.float32
    assert 1e-5 < np.abs(actual - expected).mean() < 0.1 * np.abs(expected).mean()


@pytest.mark.parametrize(
    ("dtype", "message"), [("float16", "float16 is for GPUs"), ("int8", "dtype must be one of .*, found 'int8'")]
)
def test_unsupported_dtypes_are_refused(folder, dtype, message):
    with pytest.raises(GenerationError, match=message):
        AudioLDM.load(folder, device="cpu", dtype=dtype)


def test_on_step_is_called_for_every_step(model):
    steps = []
    generate(model, short(steps=7), on_step=lambda: steps.append(1))
    assert len(steps) == 7


def test_a_seed_for_each_vector(model):
    with pytest.raises(GenerationError, match="2 vectors and 1 seeds"):
        model.generate(vectors(2), SHORT, seeds=[0])


@pytest.mark.parametrize(
    "wrong, value, words",
    [
        ("scheduler", "euler", "one of dpm"),
        ("steps", 0, "1 or more"),
        ("steps", -3, "1 or more"),
        ("steps", 1000, "1 to 999"),
        ("seed", -1, "0 to 9223372036854775807"),
        ("seed", 2**63, "0 to 9223372036854775807"),
        ("seconds", 0.0, "at most 600"),
        ("seconds", -1.0, "at most 600"),
        ("seconds", 0.0399, "0.04 to 600"),
        ("seconds", math.inf, "at most 600"),
        ("seconds", math.nan, "at most 600"),
        ("seconds", 601.0, "at most 600"),
        ("guidance", math.nan, "finite"),
        ("candidates", 0, "1 to 1,000"),
    ],
)
def test_invalid_settings_are_refused_with_their_range(model, wrong, value, words):
    with pytest.raises(GenerationError, match=rf"^{wrong} must be .*{words}.*, found {value!r}$"):
        generate(model, short(**{wrong: value}))


def test_maximum_number_of_steps(pipeline):
    pipeline.scheduler.set_timesteps(999)
    assert pipeline.scheduler.timesteps.max() == 999
    pipeline.scheduler.set_timesteps(1000)
    assert pipeline.scheduler.timesteps.max() == len(pipeline.scheduler.alphas_cumprod)  # one too far


@pytest.mark.parametrize("shape", [(1, 32), (2, 65), (0, 64)])
def test_vectors_of_another_shape_are_refused(model, shape):
    with pytest.raises(GenerationError, match=rf"\(B, 64\), found \({shape[0]}, {shape[1]}\)"):
        model.generate(np.ones(shape, np.float32), SHORT, seeds=[0] * shape[0])


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_vectors_without_a_direction_are_refused(model, value):
    clap_BE = vectors(3)
    clap_BE[1] = value
    with pytest.raises(GenerationError, match="vector 1 is zero or not finite"):
        model.generate(clap_BE, SHORT, seeds=[0, 1, 2])


def test_sound_that_is_not_finite_is_refused(copy):
    path = copy / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["decoder.conv_out.bias"].fill_(3e38)  # finite, but the output is not
    save_file(weights, path)
    with pytest.raises(GenerationError, match=r"NaN or inf \(float32, 2 steps, guidance 7.5\): use other values"):
        generate(AudioLDM.load(copy, device="cpu"))
    with pytest.raises(GenerationError, match=r"NaN or inf \(bfloat16, .*\): use float32"):
        generate(AudioLDM.load(copy, device="cpu", dtype="bfloat16"))


def test_unknown_devices_are_refused(folder):
    with pytest.raises(GenerationError, match="^torch cannot use device 'abacus'.*: use cpu$"):
        AudioLDM.load(folder, device="abacus")
    with pytest.raises(GenerationError, match="^torch cannot use device 'meta'.*: use cpu$"):
        AudioLDM.load(folder, device="meta")

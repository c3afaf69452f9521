"""Properties of the mini world's sounds: numbers of events, spectral centroids, lines and levels."""

import dataclasses
import itertools

import numpy as np
import pytest

from c2c_jax.miniworld import audio, voices
from c2c_jax.miniworld.audio import SAMPLES, synthesise
from c2c_jax.miniworld.event import SAMPLE_RATE, Event, band_noise
from c2c_jax.miniworld.voices import string
from c2c_jax.miniworld.world import COUNTS, ECHOES, NOISES, PLACES, SIZES, SOURCES, Scene, scene_at

PLAIN = Scene(source="bell", count=1, size="small", place="field", colour="red", sky="grey", echo="dry", noise="none")


def clip(seed: int, **changes) -> np.ndarray:
    return synthesise(dataclasses.replace(PLAIN, **changes), np.random.default_rng(seed))


def frames(samples: np.ndarray) -> np.ndarray:
    """Returns the RMS of each 20 ms."""
    return np.sqrt(np.mean(samples.reshape(-1, 320).astype(float) ** 2, axis=1))


def count_events(samples: np.ndarray) -> int:
    """Counts parts within 40 dB of the loudest 20 ms that are at least 0.2 s from each other."""
    loud = np.flatnonzero(frames(samples) > 0.01 * frames(samples).max())
    return 1 + int(np.sum(np.diff(loud) > 10))


def centroid(samples: np.ndarray) -> float:
    """Returns the centroid of the power spectrum in log-frequency, in octaves above 1 Hz."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    audible = hertz > 30
    return float(np.sum(power[audible] * np.log2(hertz[audible])) / np.sum(power[audible]))


def level(samples: np.ndarray, low: float, high: float) -> float:
    """Returns the level between two frequencies, in dB relative to full scale."""
    power = 2 * np.abs(np.fft.rfft(samples)) ** 2 / len(samples) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    return float(10 * np.log10(power[(hertz >= low) & (hertz < high)].sum()))


def test_sound_is_a_function_of_scene_and_generator():
    first, second = (synthesise(*scene_at("test", 77)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, synthesise(*scene_at("test", 77, seed=1)))


def test_colour_and_sky_do_not_change_the_sound():
    np.testing.assert_array_equal(clip(3), clip(3, colour="blue", sky="dark"))


def test_level_of_every_combination():
    combinations = itertools.product(SOURCES, COUNTS, SIZES, PLACES)
    # five of each in a row, so that echo and noise vary independently of the count
    audio_only = itertools.cycle(itertools.product(ECHOES, NOISES, range(5)))
    for seed, (combination, (echo, noise, _)) in enumerate(zip(combinations, audio_only, strict=False)):
        shared = dict(zip(("source", "count", "size", "place"), combination, strict=True))
        samples = clip(seed, **shared, echo=echo, noise=noise)
        assert samples.shape == (40_960,) and samples.dtype == np.float32
        assert np.abs(samples).max() <= 0.98
        assert 0.005 < np.sqrt(np.mean(samples**2)) < 0.2


@pytest.mark.parametrize("source", SOURCES)
def test_number_of_events_is_the_count(source):
    for count, size, seed in itertools.product(COUNTS, SIZES, range(3)):
        assert count_events(clip(seed, source=source, count=count, size=size)) == count, (count, size, seed)


@pytest.mark.parametrize("source", SOURCES)
def test_small_things_have_a_higher_pitch(source):
    """Pitches are at least 0.35 octaves above or below the mean, so the two sizes differ by at least 0.7."""
    high, low = ([centroid(clip(seed, source=source, size=size)) for seed in range(6)] for size in SIZES)
    assert np.mean(high) - np.mean(low) > 0.7
    assert min(high) > max(low)


@pytest.mark.parametrize(("size", "low", "high"), [("small", 2**0.35, 2**0.8), ("large", 2**-0.8, 2**-0.35)])
def test_pitch_of_a_size(size, low, high):
    """A cricket is a tone of 3,500 Hz times its pitch, ±2 % between events."""
    for seed in range(20):
        spectrum = np.abs(np.fft.rfft(clip(seed, source="cricket", size=size)))
        hertz = spectrum.argmax() * SAMPLE_RATE / SAMPLES
        assert 0.97 * low < hertz / 3500 < 1.03 * high


def trim_silence(clip: np.ndarray, decibels: float = 60) -> np.ndarray:
    """Cuts samples before the first and after the last one within `decibels` of the peak."""
    loud = np.flatnonzero(np.abs(clip) > 10 ** (-decibels / 20) * np.abs(clip).max())
    return clip[loud[0] : loud[-1] + 1]


def test_events_are_equally_loud_in_every_source():
    """Either the RMS of an event is 0.09 or its peak is six times that, whichever is quieter, ±15 %."""
    for source, seed in itertools.product(set(SOURCES) - {"dog"}, range(3)):  # a bark may end before its event
        event = trim_silence(audio.events(dataclasses.replace(PLAIN, source=source), np.random.default_rng(seed)))
        loudness = max(np.sqrt(np.mean(event**2)) / 0.09, np.abs(event).max() / (6 * 0.09))
        assert 0.84 < loudness < 1.2, (source, seed)  # trimming raises the RMS slightly


def quietest_part(samples: np.ndarray, seconds: float = 0.2) -> np.ndarray:
    """Returns the quietest part."""
    width = int(seconds / 0.02)
    power = np.convolve(frames(samples) ** 2, np.ones(width), "valid")
    first = 320 * int(power.argmin())
    return samples[first : first + 320 * width]


def background(seed: int, **changes) -> np.ndarray:
    """Synthesises a clip with long pauses."""
    return clip(seed, **{"source": "drum", **changes})


def test_surf_is_12_to_16_decibels_below_the_events():
    """Scenes that differ only in place differ by the surf. An event of a kettle has RMS 0.09 ± 15 %, or 1.4 dB. The air
    is below the threshold of trimming."""
    for seed in range(8):
        field, shore = (clip(seed, source="kettle", place=place) for place in PLACES)
        waves = shore - field
        below = 20 * np.log10(np.sqrt(np.mean(waves**2)) / np.sqrt(np.mean(trim_silence(field, 34) ** 2)))
        assert -16 - 1.4 < below < -12 + 1.5
        assert level(waves, 200, 2500) - level(waves, 4500, 7500) > 20  # a band, not white noise


def test_surf_fills_pauses():
    """A field's air is 53 to 57 dB below the events, so pauses at the shore are 37 to 45 dB louder, or less between two
    swells."""
    for seed in range(8):
        field, shore = (level(quietest_part(background(seed, place=place)), 30, 8000) for place in PLACES)
        assert 25 < shore - field < 45


def test_surf_level():
    for seed in range(5):
        waves = audio.surf(np.random.default_rng(seed))
        assert waves.shape == (SAMPLES,) and waves.dtype == np.float32
        np.testing.assert_allclose(np.sqrt(np.mean(waves**2)), 1, rtol=0.01)
        foam = frames(waves).reshape(8, 16).mean(1)  # 0.32 s each
        assert 1.3 < foam.max() / foam.min() < 6  # it swells but is never silent


def test_hiss_is_white():
    for seed in range(8):
        quiet = quietest_part(background(seed, noise="hiss"))
        octaves = [level(quiet, 500 * 2**k, 1000 * 2**k) for k in range(4)]
        np.testing.assert_allclose(np.diff(octaves), 3.01, atol=1.8)  # 3 dB more for twice the width
        assert -58 < level(quiet, 30, 8000) < -42


def test_hum_has_lines_at_50_hertz_and_its_multiples():
    for seed in range(8):
        samples = background(seed, noise="hum", size="small", source="cricket")
        power = np.abs(np.fft.rfft(samples)) ** 2  # 128 bins are 50 Hz exactly
        for harmonic in (1, 2, 3):
            line = 128 * harmonic
            assert power[line] > 100 * np.delete(power[line - 40 : line + 41], 40).max()
        assert power[64 - 20 : 64 + 21].max() < 0.01 * power[128]


def test_echo_lengthens_the_decay():
    """The tail decays by 60 dB in 0.35 to 0.5 s; its energy is 0.5 to 0.8 of the sound's."""
    dry = np.zeros(SAMPLES, np.float32)
    dry[8000:16000] = band_noise(8000, 300, 3000, np.random.default_rng(1))
    for seed in range(6):
        wet = audio.with_echo(dry, np.random.default_rng(seed))
        assert wet.shape == (SAMPLES,) and wet.dtype == np.float32
        np.testing.assert_allclose(wet[:8000], 0, atol=1e-4)
        after = [10 * np.log10(np.mean(wet[16000 + at : 16000 + at + 800] ** 2)) for at in (800, 1600, 2400, 3200)]
        decay = np.polyfit(np.array([800, 1600, 2400, 3200]) / SAMPLE_RATE, after, 1)[0]  # decibels a second
        assert -60 / 0.35 * 1.3 < decay < -60 / 0.5 / 1.3
        assert after[0] > -25
        assert np.abs(wet[16000 + 8000 + 1 :]).max() < 1e-3
        np.testing.assert_allclose(np.sum(wet**2) / np.sum(dry**2), 1.65, rtol=0.2)


def test_echo_keeps_the_count():
    """The level falls by at least 15 dB between echoing events."""
    for source, seed in itertools.product(SOURCES, range(2)):
        loud = frames(clip(seed, source=source, count=3, echo="echo"))
        smooth = np.convolve(loud, np.ones(3) / 3, "same")
        quiet = smooth > 10 ** (-15 / 20) * smooth.max()
        runs = np.flatnonzero(quiet)
        assert 1 + np.sum(np.diff(runs) > 5) == 3, (source, seed)


@pytest.mark.parametrize("source", SOURCES)
def test_events_with_equal_traits_are_equal(source):
    """Traits characterise a thing: other traits with the same random numbers give another sound."""
    first, same, other = (
        getattr(voices, source)(Event(8000, 1.0, [trait] * 4, np.random.default_rng(5))) for trait in (0.2, 0.2, 0.9)
    )
    np.testing.assert_array_equal(first, same)
    assert first.shape == (8000,)
    assert not np.allclose(first / first.std(), other / other.std(), atol=0.05)


def test_tone_against_sines():
    """Compares harmonics of a constant pitch, without those above 7.6 kHz."""
    event = Event(4000, 1.0, [0.5] * 4, np.random.default_rng(0))
    seconds = np.arange(1, 4001) / SAMPLE_RATE
    expected = sum(a * np.sin(2 * np.pi * 1000 * k * seconds) for k, a in ((1, 1.0), (2, 0.5), (7, 0.25)))
    tone = event.tone(1000.0, (1.0, 0.5, 0, 0, 0, 0, 0.25, 9.0))
    np.testing.assert_allclose(tone, expected, atol=2e-3)


def test_band_noise_stays_in_its_band():
    noise = band_noise(16_000, 500, 1000, np.random.default_rng(0))
    np.testing.assert_allclose(np.sqrt(np.mean(noise**2)), 1, rtol=1e-3)
    assert level(noise, 400, 1250) - level(noise, 1600, 8000) > 60
    assert level(noise, 400, 1250) - level(noise, 1, 320) > 60


def test_frequencies_of_formants():
    """Filters white noise with formants at 500 and 1,500 Hz, an octave higher for a pitch of 2."""
    event = Event(16_000, 2.0, [0.5] * 4, np.random.default_rng(0))
    white = event.rng.standard_normal(16_000).astype(np.float32)
    spoken = event.spoken(white, (500, 1500))
    assert level(spoken, 950, 1050) - level(spoken, 1950, 2050) > 10
    assert level(spoken, 2950, 3050) - level(spoken, 1950, 2050) > 5


def test_string_equals_the_karplus_strong_loop():
    """Compares with the loop that averages a period of noise with its neighbour in every turn."""
    period = np.random.default_rng(0).uniform(-1, 1, 81)
    expected, turn = [], period
    for _ in range(25):
        expected.append(turn)
        turn = 0.99 * 0.5 * (turn + np.roll(turn, 1))
    np.testing.assert_allclose(string(period, 0.99, 2000), np.concatenate(expected)[:2000], atol=1e-4)

"""Scores of generated sounds from records and vectors: copies, ranked candidates, unit vectors."""

import json

import numpy as np
import pytest

from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.generated import diversities, generated_rows, inception_row, label_probabilities, read_generated
from c2c_jax.evaluation.geometry import frechet_distance
from c2c_jax.io.files import sha256_of
from c2c_jax.io.vectors import unit_rows

E = 4
OURS = "0" * 64


def record(folder, name, *, vector, control=None, seeds=(0,), scores=None):
    """Writes NAME.sound.json as infer.py does; its sounds are NAME.0.wav, …"""
    scores = scores or [None] * len(seeds)
    content = {
        "sounds": [
            {"file": f"{name}.{n}.wav", "seed": seed, "clap_score": score, "defects": [], "peak": 1 / len(name)}
            for n, (seed, score) in enumerate(zip(seeds, scores, strict=True))
        ],
        "clap": {"name": "laion/clap", "dim": len(vector), "fingerprint": ""}, "clap_vector": vector,
        "sample_rate": 16_000, "sampling": {"guidance": 2.5}, "versions": {"torch": "2"},
    }  # fmt: skip
    content |= {"control": control} if control else {
        "translator": {"path": "bundle", "sha256": OURS}, "averaged": False, "mixed_in": [],
        "pictures": [{"path": f"{name}.png", "sha256": OURS}],
    }  # fmt: skip
    (folder / f"{name}.sound.json").write_text(json.dumps(content))


def vectors(seed, rows):
    return np.random.default_rng(seed).normal(size=(rows, E)).astype(np.float32) + 1


def files(generated):
    return [file for group in generated.values() for audio in group for file in audio.files]


def encoded(generated, seed=0):
    return dict(zip(files(generated), vectors(seed, len(files(generated))), strict=True))


def scored(generated, reference=None, scale=1):
    vectors_by_file = {file: scale * x for file, x in encoded(generated).items()}
    reference = None if reference is None else (reference, "real sounds")
    rows, missing = generated_rows(generated, vectors_by_file, [], None, {}, reference, Bootstrap(resamples=100))
    return {(row.method, row.metric): row for row in rows}, {entry.what: entry.why for entry in missing}


def test_a_control_sound_counts_once(tmp_path):
    """Written beside three images it is one sound: no interval, no distance. Another seed, vector or text is another
    sound."""
    for name in ("a", "bb", "ccc"):
        record(tmp_path, name, vector=[1.0, 0, 0, 0])
        record(tmp_path, f"{name}.control", vector=[0.0, 1, 0, 0], control="a dog barks")
    generated, _ = read_generated(tmp_path, OURS, E, [])
    assert [audio.files[0].name for audio in generated["control"]] == ["a.control.0.wav"] and len(files(generated)) == 4
    rows, missing = scored(generated, vectors(1, 20))
    control = rows["control", "clap_score"]
    assert control.n == 1 and control.low is control.high is None
    assert ("translator", "fad_clap") in rows and ("control", "fad_clap") not in rows
    assert missing["generated sound: fad_clap of control sounds"].startswith("1 different sounds and 20")
    record(tmp_path, "d.control", vector=[0.0, 1, 0, 0], control="a dog barks", seeds=(1,))
    record(tmp_path, "e.control", vector=[0.0, 0, 1, 0], control="a cat meows")
    rows, _ = scored(read_generated(tmp_path, OURS, E, [])[0], vectors(1, 20))
    assert rows["control", "clap_score"].n == 3 and ("control", "fad_clap") in rows


def test_a_sound_that_does_not_match_its_record_is_skipped(tmp_path):
    """This happens if a run over an earlier one was interrupted."""
    record(tmp_path, "a", vector=[1, 0, 0, 0], seeds=(0, 1))
    content = json.loads((tmp_path / "a.sound.json").read_text())
    for sound in content["sounds"]:
        (tmp_path / sound["file"]).write_bytes(b"as it was made")
        sound["sha256"] = sha256_of(tmp_path / sound["file"])
    (tmp_path / "a.sound.json").write_text(json.dumps(content))
    (tmp_path / "a.1.wav").write_bytes(b"made later")
    generated, (left_out,) = read_generated(tmp_path, OURS, E, [])
    assert files(generated) == [tmp_path / "a.0.wav"]
    assert left_out.file.endswith("a.1.wav") and "is not the sound that a.sound.json describes" in left_out.why


def test_the_best_of_several_is_named_as_such(tmp_path):
    record(tmp_path, "a", vector=[1.0, 0, 0, 0], seeds=(2, 0, 1), scores=[0.5, 0.4, 0.1])
    record(tmp_path, "b", vector=[1.0, 0, 0, 0], seeds=(1, 0, 2), scores=[0.6, 0.4, 0.1])
    rows, _ = scored(read_generated(tmp_path, OURS, E, [])[0])
    assert set(rows) == {("translator, best of 3", "clap_score"), ("translator, best of 3", "diversity")}
    record(tmp_path, "b", vector=[1.0, 0, 0, 0], seeds=(0, 1, 2))  # in the order of their seeds
    rows, _ = scored(read_generated(tmp_path, OURS, E, [])[0])
    assert ("translator, best of 1 to 3", "clap_score") in rows
    record(tmp_path, "a", vector=[1.0, 0, 0, 0], seeds=(0,), scores=[0.5])
    rows, _ = scored(read_generated(tmp_path, OURS, E, [])[0])
    assert ("translator", "clap_score") in rows


def test_distances_use_unit_vectors(tmp_path):
    for number in range(6):
        record(tmp_path, f"p{number}", vector=[1.0, 0, 0, 0])
    generated, _ = read_generated(tmp_path, OURS, E, [])
    reference = vectors(1, 20)
    distance, again = (
        scored(generated, scale * reference, scale)[0]["translator", "fad_clap"].value for scale in (1, 3)
    )
    assert distance == pytest.approx(frechet_distance(unit_rows(vectors(0, 6)), unit_rows(reference)), rel=1e-6)
    assert distance == pytest.approx(again, rel=1e-5)


def test_label_probabilities_by_hand():
    """Cosines 0.6 and 0.8 at temperature 0.1: logits 6 and 8."""
    probabilities = label_probabilities(np.array([[3.0, 4]]), np.array([[2.0, 0], [0, 7]]), temperature=0.1)
    np.testing.assert_allclose(probabilities, [[1 / (1 + np.e**2), np.e**2 / (1 + np.e**2)]])


def test_inception_score_by_hand():
    """Sounds along the axes are classified with certainty by the prompts."""
    quiet, prompts = Bootstrap(resamples=0), np.eye(4)

    def score(audio, bootstrap=quiet):
        return inception_row("m", audio, prompts[:, : audio.shape[1]], bootstrap)

    assert score(np.eye(4)).value == pytest.approx(4)  # clear, and evenly over four labels
    assert score(np.ones((5, 4))).value == pytest.approx(1)  # none is clear
    assert score(np.tile(np.eye(4)[:1], (5, 1))).value == pytest.approx(1)  # all alike
    audio = np.array([[0.705, 0.7, 0, 0], [0.7, 0.705, 0, 0]])
    probabilities = label_probabilities(audio, prompts)
    mean = probabilities.mean(0)
    expected = np.exp(np.mean([np.sum(row * np.log(row / mean)) for row in probabilities]))
    row = score(audio, Bootstrap())
    assert row.value == pytest.approx(expected) and 1.01 < expected < 1.9
    assert row.low == pytest.approx(1) and row.high == pytest.approx(expected)  # one sound twice, or both


def test_diversity_by_hand():
    """Three candidates with cosines 0, 0 and −1; two that are equal."""
    three = np.array([[1.0, 0], [0, 2], [0, -1]])
    np.testing.assert_allclose(diversities([three, np.ones((2, 2))]), [(1 + 1 + 2) / 3, 0], atol=1e-12)

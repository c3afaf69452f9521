"""Scores of made sounds from records and vectors: copies, choices, and unit vectors."""

import json

import numpy as np
import pytest

from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.frechet import frechet_distance
from c2c_jax.evaluation.sounds_made import Judge, made_rows, read_made
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


def judge(reference=None):
    return Judge(
        labels=[],
        prompts_CE=None,
        captions={},
        reference=None if reference is None else (reference, "real sounds"),
        bootstrap=Bootstrap(resamples=100),
    )


def vectors(seed, rows):
    return np.random.default_rng(seed).normal(size=(rows, E)).astype(np.float32) + 1


def heard(made, seed=0):
    return dict(zip(made.files, vectors(seed, len(made.files)), strict=True))


def scored(made, reference=None):
    rows, missing = made_rows(made.made, heard(made), judge(reference))
    return {(row.method, row.metric): row for row in rows}, {one.what: one.why for one in missing}


def test_a_control_sound_counts_once(tmp_path):
    """Written beside three pictures it is one sound: no interval, no distance. Another seed, vector or text is another
    sound."""
    for name in ("a", "bb", "ccc"):
        record(tmp_path, name, vector=[1.0, 0, 0, 0])
        record(tmp_path, f"{name}.control", vector=[0.0, 1, 0, 0], control="a dog barks")
    made = read_made(tmp_path, OURS, E, [])
    assert [one.files[0].name for one in made.made["control"]] == ["a.control.0.wav"] and len(made.files) == 4
    rows, missing = scored(made, vectors(1, 20))
    control = rows["control", "clap_score"]
    assert control.n == 1 and control.low is control.high is None
    assert ("translator", "fad_clap") in rows and ("control", "fad_clap") not in rows
    assert missing["generated sound: fad_clap of control sounds"].startswith("1 different sounds and 20")
    record(tmp_path, "d.control", vector=[0.0, 1, 0, 0], control="a dog barks", seeds=(1,))
    record(tmp_path, "e.control", vector=[0.0, 0, 1, 0], control="a cat meows")
    rows, _ = scored(read_made(tmp_path, OURS, E, []), vectors(1, 20))
    assert rows["control", "clap_score"].n == 3 and ("control", "fad_clap") in rows


def test_a_sound_that_its_record_is_not_of_is_left_out(tmp_path):
    """As where a run over an earlier one was stopped."""
    record(tmp_path, "a", vector=[1, 0, 0, 0], seeds=(0, 1))
    content = json.loads((tmp_path / "a.sound.json").read_text())
    for sound in content["sounds"]:
        (tmp_path / sound["file"]).write_bytes(b"as it was made")
        sound["sha256"] = sha256_of(tmp_path / sound["file"])
    (tmp_path / "a.sound.json").write_text(json.dumps(content))
    (tmp_path / "a.1.wav").write_bytes(b"made later")
    made = read_made(tmp_path, OURS, E, [])
    assert made.files == [tmp_path / "a.0.wav"]
    (left_out,) = made.left_out
    assert left_out.file.endswith("a.1.wav") and "is not the sound that a.sound.json is of" in left_out.why


def test_the_best_of_several_is_called_so(tmp_path):
    record(tmp_path, "a", vector=[1.0, 0, 0, 0], seeds=(2, 0, 1), scores=[0.5, 0.4, 0.1])
    record(tmp_path, "b", vector=[1.0, 0, 0, 0], seeds=(1, 0, 2), scores=[0.6, 0.4, 0.1])
    rows, _ = scored(read_made(tmp_path, OURS, E, []))
    assert set(rows) == {("translator, best of 3", "clap_score"), ("translator, best of 3", "diversity")}
    record(tmp_path, "b", vector=[1.0, 0, 0, 0], seeds=(0, 1, 2))  # in the order of their seeds
    rows, _ = scored(read_made(tmp_path, OURS, E, []))
    assert ("translator, best of 1 to 3", "clap_score") in rows
    record(tmp_path, "a", vector=[1.0, 0, 0, 0], seeds=(0,), scores=[0.5])
    rows, _ = scored(read_made(tmp_path, OURS, E, []))
    assert ("translator", "clap_score") in rows


def test_distances_are_of_unit_vectors(tmp_path):
    for number in range(6):
        record(tmp_path, f"p{number}", vector=[1.0, 0, 0, 0])
    made = read_made(tmp_path, OURS, E, [])
    reference = vectors(1, 20)
    rows, _ = made_rows(made.made, heard(made), judge(reference))
    again, _ = made_rows(made.made, {file: 3 * x for file, x in heard(made).items()}, judge(7 * reference))
    (distance,) = [row.value for row in rows if row.metric == "fad_clap"]
    assert distance == pytest.approx(frechet_distance(unit_rows(vectors(0, 6)), unit_rows(reference)), rel=1e-6)
    assert distance == pytest.approx(next(row.value for row in again if row.metric == "fad_clap"), rel=1e-5)

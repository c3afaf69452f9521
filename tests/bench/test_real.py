"""The benchmark on real vectors, with small synthetic files of the same layout and known figures."""

import json

import numpy as np
import pytest
from rich.console import Console

from bench.real import recommended, rows
from bench.real.__main__ import Bench, main
from bench.real.material import COUNTERPARTS, Material, View, centred, mean_of
from bench.real.tasks import images_to_sounds, images_to_sounds_chance, photographs, sounds
from c2c_jax.retrieval.scoring import Scoring

S, E, A = 24, 24, 16
TINY = ["--config.steps=5", "--config.epochs=1", "--config.translator.settings.width=16", "--config.eval_every=5"]


def directions(count, dim, seed):
    x_ND = np.random.default_rng(seed).normal(size=(count, dim))
    return (x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)).astype(np.float32)


def rotation(seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(S, E)))[0].astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Captions' vectors are rotated meanings; a photograph's is that of its caption, in a cone of images."""
    folder = tmp_path_factory.mktemp("vectors")
    labels, captions, photographs = (directions(count, S, seed) for seed, count in enumerate((300, 60, 50)))
    cone = 5 * directions(1, S, 9)
    turn = rotation(1)
    classes = list(dict.fromkeys(name for names in COUNTERPARTS.values() for name in names))
    class_text = directions(len(classes), A, 5)
    written = directions(40, E, 6)
    np.savez(folder / "clip_b32_text_labels.npz", text=labels)
    np.savez(
        folder / "clip_b32_flickr8k_100x5.npz", text=captions, caption=np.asarray([f"caption {n}" for n in range(60)])
    )
    names = np.asarray([f"photograph {n}" for n in range(49)] + ["caption 3"])
    np.savez(folder / "clip_b32_flickr8k_1000img.npz", image=photographs + cone, caption=names)
    np.savez(
        folder / "e5_texts.npz", labels=labels @ turn, flickr8k_100x5=captions @ turn,
        flickr8k_1000img=photographs @ turn, audiocaps497=written,
    )  # fmt: skip
    general = (photographs + cone) / np.linalg.norm(photographs + cone, axis=1, keepdims=True)
    np.savez(folder / "clip_image_means_splice.npz", **{"clip_ViT-B-32": general.mean(0)})
    np.savez(
        folder / "clip_b32_cifar10_250.npz", image=directions(20, S, 7), classes=np.asarray([*COUNTERPARTS, "ship"]),
        label=np.arange(20) % 8,
    )  # fmt: skip
    texts, audio = (written[:, :A] + 4 * directions(1, A, seed) for seed in (10, 11))
    np.savez(folder / "clap_audiocaps497.npz", text=texts, audio=audio)
    np.savez(
        folder / "clap_esc50_folds1to4.npz", audio=np.repeat(class_text, 12, axis=0),
        label=np.repeat(np.arange(len(classes)), 12), classes=np.asarray(classes), class_text=class_text,
    )  # fmt: skip
    return folder


def test_photographs_of_training_captions_are_left_out(folder):
    material = Material.read(folder)
    assert len(material.image_PS) == 49 and len(material.text_NS) == 360


def test_centring_removes_a_cone(folder):
    """The rotation retrieves every caption; without centring, the cone makes all images retrieve the same one."""
    material, turn = Material.read(folder), rotation(1)
    view = {kind: View.of(kind, material.text_NS, material.text_NE) for kind in ("raw", "moved", "centred")}
    first = {
        kind: photographs(material, each_view, lambda x_BS: x_BS @ turn)["r1"].mean()
        for kind, each_view in view.items()
    }
    assert first["centred"] == 1 and first["moved"] == 1 and first["raw"] <= 0.9


def test_sounds_in_another_cone_are_retrieved_when_centred(folder):
    figures = sounds(Material.read(folder))
    assert figures["centred"]["text_to_sound"]["r1"].mean() > 0.9 > figures["raw"]["text_to_sound"]["r1"].mean()


def test_images_to_sounds_by_hand(folder):
    material = Material.read(folder)
    own = [material.classes.index(COUNTERPARTS.get(name, ("dog",))[0]) for name in material.small_classes_C]
    vectors = centred(material.class_text_KA, material.class_text_KA.mean(axis=0))[own]
    scorings = [
        Scoring(query_mean_E=np.zeros(A, np.float32), candidate_mean_E=mean_of(x))
        for x in (material.audio_NA, material.class_text_KA)
    ]
    figures = images_to_sounds(material, vectors, *scorings)
    counts = [material.small_classes_C.count(name) for name in COUNTERPARTS]  # 3 of most classes, 2 of some
    weights = np.concatenate([np.full(count, np.mean(counts) / count) for count in counts])
    for figure in ("p10", "top1"):
        np.testing.assert_allclose(figures[figure], weights)
        assert figures[figure].mean() == pytest.approx(1)
    assert not images_to_sounds(material, -vectors, *scorings)["top1"].any()


def test_the_recommended_recipe_finds_a_rotation(folder, tmp_path, monkeypatch):
    """With images in a cone: every photograph of the other half retrieves its caption."""
    monkeypatch.setattr(recommended, "OVERRIDES", TINY)
    material = Material.read(folder)
    figures, bundles = recommended.photographs("recommended", material, slice(None), 0, tmp_path)
    assert figures["r1"].mean() > 0.9 and figures["r1"].shape == (49,)
    assert len(bundles) == 2 and all(bundle.choice.linear or bundle.choice.trained for bundle in bundles)
    again, _ = recommended.photographs("recommended", material, slice(None), 0, tmp_path)  # read, not trained
    np.testing.assert_array_equal(again["r1"], figures["r1"])


def test_chance_by_hand(folder):
    """Eight classes of twelve sounds each; three of the seven image classes have two counterparts."""
    assert images_to_sounds_chance(Material.read(folder)) == pytest.approx((10 / 7 / 8, 10 / 7 / 8))


def test_two_translators_in_sequence(folder, tmp_path, monkeypatch):
    """Each gets vectors like those of its training. Here translators are identities, except for the means."""
    inputs = []

    def translators(name, store, seeds, workdir):
        del name, seeds, workdir
        wide = store.plan.target.dim
        return [lambda x_BS: inputs.append(x_BS) or np.pad(x_BS, ((0, 0), (0, wide)))[:, :wide]]

    monkeypatch.setattr("bench.real.__main__.translators", translators)
    material = Material.read(folder)
    bench = Bench(material, 1, tmp_path, Console())
    for kind in ("raw", "moved", "centred"):
        bench.images(kind, ["procrustes"])
    (raw, between_raw), (moved, between_moved), (middle, between_middle) = inputs[:2], inputs[2:4], inputs[4:]
    texts = View.of("raw", material.text_NS, material.text_NE)
    np.testing.assert_array_equal(raw, material.small_CS)
    np.testing.assert_allclose(moved, material.small_CS - material.general_S + texts.source_mean_S, atol=1e-6)
    np.testing.assert_allclose(middle, centred(material.small_CS, material.general_S), atol=1e-6)
    for went_in, came_out in ((raw, between_raw), (moved, between_moved), (middle, between_middle)):
        lengths = np.linalg.norm(went_in, axis=1, keepdims=True)
        np.testing.assert_allclose(came_out, went_in / lengths, atol=1e-6)


def test_command_line(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(rows, "STEPS", 5)
    monkeypatch.setattr(recommended, "OVERRIDES", TINY)
    written = tmp_path / "real.json"
    main(["--data", str(folder), "--quick", "--workdir", str(tmp_path / "work"), "--json", str(written)])
    figures = json.loads(written.read_text())
    assert figures["procrustes.r1"] == 1 and figures["procrustes.r1_low"] == 1 and figures["procrustes_raw.r1"] < 1
    keys = {"before_moved.r10", "recommended.r1", "recommended.r10", "text_to_sound.r1", "sound_to_text.r1"}
    keys |= {"recommended_noisy_cosine.r1", "pictures_to_sounds.recommended_noisy_cosine.top1"}
    assert keys | {"pictures_to_sounds.p10", "pictures_to_sounds.top1", "pictures_to_sounds.before.p10"} <= set(figures)
    assert "49 photographs retrieve their captions' vectors" in capsys.readouterr().out
    (tmp_path / "none").mkdir()
    with pytest.raises(SystemExit) as caught:
        main(["--data", str(tmp_path / "none")])
    assert caught.value.code == 2 and "clip_b32_text_labels.npz" in capsys.readouterr().err

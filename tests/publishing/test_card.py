"""Model cards: hostile names are escaped, and the example code runs."""

import ast
import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from c2c_jax.io.images import read_image
from c2c_jax.io.resolve import EMBEDDED
from c2c_jax.publishing.card import model_card, training_summary
from c2c_jax.publishing.export import publish
from c2c_jax.publishing.markdown import code, literal, plain
from c2c_jax.publishing.names import without_local_paths
from c2c_jax.spaces.space import load_space
from c2c_jax.spaces.space_id import SpaceId
from c2c_jax.translator.bundle import Bundle, Choice, load_bundle
from c2c_jax.translator.centring import ModalityMeans
from c2c_jax.translator.inference import translate
from tests.fixtures.versions import USES_IMAGE_PROCESSOR
from tests.torch.test_translator import random_bundle, spec

HOSTILE = (
    "x\n\n# Owned\n<script>alert(1)</script> ![p](http://evil/x.png) [a](javascript:b) `c` ``d`` | e \x1b[31m --- "
    "www.evil.com"
)


def chosen(**fields: Any) -> Choice:
    known = {"trained": 0.5, "linear": "rotation", "memory": False, "pair_cosine": 0.3214}
    return Choice(**{**known, "noisy_mrr": {"trained": 0.4}, **fields})


def centred(*names: str, **fields: Any) -> Bundle:
    """A translator of centred vectors with the captions' means and these."""
    known = {name: np.full(8, 0.1, np.float32) for name in ("source_text", "target_text", *names)}
    return random_bundle(spec("residual", 8, 8, input_norm="centred"), means=ModalityMeans(**known), **fields)


def snippet(card: str) -> str:
    (found,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return found


def test_text_in_markdown():
    assert plain("a_b-1.0 c") == "a_b-1.0 c"
    assert plain("# <b> [x](y) `z` *w* & www.a.b") == r"\# \<b\> \[x\]\(y\) \`z\` \*w\* \& www\.a.b"
    assert plain("a\nb") == r"a\\nb" and plain("\x1b[0m") == r"\\x1b\[0m"
    assert code("plain") == "`plain`" and code("a|b") == r"`a\|b`" and code("a\nb") == r"`a\nb`"
    assert code("a`b") == "``a`b``" and code("`a``") == "``` `a`` ```" and code("") == "`  `"


def test_hostile_names_stay_text():
    """Names, values and keys add no lines, no markup outside code spans, and no front matter."""
    bundle = random_bundle(
        spec("mlp", 8, 8),
        source=SpaceId(name=HOSTILE, dim=8, fingerprint=""),
        target=SpaceId(name=f"owner/{HOSTILE}", dim=8, fingerprint="f" * 64),
        recipe={"data": {"captions": HOSTILE}, HOSTILE: HOSTILE, "images": {"files": HOSTILE}},
        metrics={"recall@1": 0.5, "held_out": HOSTILE, "mean_cosine": HOSTILE},
        choice=chosen(linear=HOSTILE, noisy_mrr={HOSTILE: 0.5, "trained": 0.25}),
    )
    harmless = random_bundle(
        spec("mlp", 8, 8),
        source=SpaceId(name="a", dim=8, fingerprint=""),
        target=SpaceId(name="b", dim=8, fingerprint="f" * 64),
        recipe={"data": {"captions": "c"}, "d": "e", "images": {"files": "f"}},
        metrics={"recall@1": 0.5},
        choice=chosen(linear="rotation", noisy_mrr={"g": 0.5, "trained": 0.25}),
    )
    card, expected = model_card(bundle, HOSTILE), model_card(harmless, "x")
    assert len(card.splitlines()) == len(expected.splitlines()) and "\x1b" not in card
    assert ModelCard(card).data.to_dict() == ModelCard(expected).data.to_dict()
    outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", card.replace(snippet(card), ""))
    for markup in ("<script", "](", "![", "\n# Owned"):
        assert not re.search(rf"(?<!\\){re.escape(markup)}", outside), markup
    assert sum(line.startswith("# ") for line in card.splitlines()) == 1
    texts = {node.value for node in ast.walk(ast.parse(snippet(card))) if isinstance(node, ast.Constant)}
    assert texts >= {HOSTILE, *HOSTILE.split(":", 1)}


@pytest.mark.parametrize("recipe", [{"data": 5}, {"data": {"captions": ["x"]}}, {"images": None}, {"imported": [1]}])
@pytest.mark.parametrize("metrics", [{}, {"recall@1": "high", "median_rank": [1], "held_out": True}])
def test_fields_of_wrong_types(recipe, metrics):
    card = model_card(random_bundle(spec("mlp", 8, 8), recipe=recipe, metrics=metrics), "x")
    assert "No validation is recorded." in card


def test_card_of_the_embedded_translator():
    folder = EMBEDDED / "translator"
    card = model_card(without_local_paths(load_bundle(folder)), "miniworld/translator")
    assert (folder / "README.md").read_text(encoding="utf-8") == card
    assert "# translator\n" in card and "without image–audio pairs" in card and "Unlabelled images were used" in card


@pytest.mark.parametrize("name", ["miniworld/translator", "published"])
def test_example_with_embedded_spaces_runs(name, tmp_path, monkeypatch):
    """For the embedded translator and for an export of it."""
    monkeypatch.chdir(tmp_path)
    folder = EMBEDDED / "translator"
    if name == "published":
        assert publish(Path("miniworld/translator"), out=tmp_path / name) == [str(tmp_path / name)]
        folder = tmp_path / name
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    names: dict[str, Any] = {}
    exec(snippet((folder / "README.md").read_text(encoding="utf-8")), names)
    image_BS = load_space("miniworld/clip", only="image").encode_images([read_image(Path("photo.png"))])
    np.testing.assert_allclose(names["clap"], translate(load_bundle(folder), image_BS), atol=1e-6)


@USES_IMAGE_PROCESSOR
def test_example_with_subfolder_and_hub_name_runs(tmp_path, monkeypatch, clip_folder):
    """The subfolder is passed to transformers as a separate argument."""
    (tmp_path / "all").mkdir()
    shutil.copytree(clip_folder, tmp_path / "all" / "clip")
    bundle = random_bundle(spec("mlp", 64, 8), source=SpaceId(name="all:clip", dim=64, fingerprint=""))
    from c2c_jax.translator.bundle import save_bundle

    save_bundle(tmp_path / "me" / "translator", bundle)  # this folder stands for the hub name
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 48), "red").save("photo.png")
    names: dict[str, Any] = {}
    exec(snippet(model_card(bundle, "me/translator")), names)
    assert names["clap"].shape == (1, 8) and abs(float(names["clap"].norm()) - 1) < 1e-5


def test_use_of_unlabelled_images_is_stated():
    bundle = random_bundle(spec("mlp", 8, 8), recipe={"data": {"captions": "txt:a.txt"}})
    assert "without image–audio pairs. Captions: `txt:a.txt`." in model_card(bundle, "x")
    with_images = dataclasses.replace(bundle, recipe={**bundle.recipe, "images": {"files": "photos"}})
    assert "Unlabelled images were used" in model_card(with_images, "x")


@pytest.mark.parametrize(
    ("calibrate", "select_by", "expected"),
    [
        (True, "noisy_mrr", "to estimate their mean vector and to select the published translator"),
        (True, "", "to estimate their mean vector and to select the published translator"),  # of earlier versions
        (True, "recall@1", "to estimate their mean vector."),
        (False, "agreement@1", "to select the published translator"),
        (False, "recall@1", "only for scores"),
    ],
)
def test_purposes_of_unlabelled_images(calibrate, select_by, expected):
    """If candidates competed, images were used for the selection, whichever score selected the step."""
    competed = load_bundle(EMBEDDED / "translator")
    recipe = {**competed.recipe, "images": {"files": "x", "calibrate": calibrate}, "select_by": select_by}
    bundle = dataclasses.replace(competed, recipe=recipe, choice=None)
    assert f"Unlabelled images were used {expected}" in training_summary(bundle)
    words = training_summary(dataclasses.replace(bundle, choice=competed.choice))
    assert "to select the published translator" in words and "only for scores" not in words


def test_centring():
    """Only cards of translators of centred vectors describe centring, with the stored means."""
    card = model_card(centred(), "x")
    assert "## Centring" in card and "means of its captions' vectors in both spaces. It has no mean of images" in card
    assert "their component along the captions' mean is removed" in card and "output-mean" not in card
    card = model_card(centred("source_image"), "x")
    assert "in both spaces, and of images' source vectors.\n" in card and "no mean of images" not in card
    card = model_card(centred("source_image", "target_audio"), "x", ["model.onnx", "model_from_image.onnx"])
    assert "and of images' source vectors, and of sounds' vectors." in card
    assert (
        "`infer --output-mean audio`" in card
        and "its output `target_audio` is un-centred by the mean of sounds" in card
    )
    assert "by cosine of centred vectors" in model_card(centred(metrics={"recall@1": 0.5}), "x")
    for words in ("not unit vectors", "modality gap", "c2c calibrate` estimates them"):
        assert words not in card and words in model_card(random_bundle(spec("residual", 8, 8)), "x")
    assert "## Centring" not in model_card(random_bundle(spec("residual", 8, 8)), "x")


def test_selection():
    """The card has the choice, the assumed cosine, and the scores, best first."""
    scores = {"trained": 0.4, "rotation": 0.41, "0.5 trained + rotation, memory": 0.4321}
    card = model_card(centred(choice=chosen(memory=True, noisy_mrr=scores)), "x")
    assert "This translator is `50% trained + 50% rotation, with the caption memory`, the best of 3" in card
    assert "have a cosine of 0.32, both centred" in card
    table = card[card.index("| candidate | noisy_mrr |") :].splitlines()[2:5]
    assert table == ["| `0.5 trained + rotation, memory` | 0.4321 |", "| `rotation` | 0.41 |", "| `trained` | 0.4 |"]
    cosines = {"trained": 0.7, "rotation": 0.72, "0.5 trained + rotation, memory": -0.0625}
    by_cosine = chosen(linear="rotation", noisy_mrr=scores, noisy_cosine=cosines, selected_by="noisy_cosine")
    card = model_card(centred(choice=by_cosine), "x")
    assert "the best of 3 candidates by `noisy_cosine`" in card and "compared with their own vectors" in card
    table = card[card.index("| candidate | noisy_mrr | noisy_cosine |") :].splitlines()[2:5]
    assert table[0] == "| `rotation` | 0.41 | 0.72 |" and table[2].endswith("| 0.4321 | -0.0625 |")
    many = {f"candidate {number}": number / 100 for number in range(60)}
    card = model_card(centred(choice=chosen(noisy_mrr=many)), "x")
    assert "the best of 60 candidates" in card and card.count("| `candidate ") == 20 and "candidate 59" in card
    for choice in (None, chosen(noisy_mrr={})):  # an imported bundle has none
        assert ("## Selection" in model_card(centred(choice=choice), "x")) == (choice is not None)


def test_scores_of_earlier_versions_are_omitted():
    metrics = {"noisy_mrr": 0.4, "agreement@1": 0.2, "agreement@10": 0.5, "transfer": 0.3, "recall@1": 0.6}
    card = model_card(centred(metrics=metrics), "x")
    assert "agreement" not in card and "transfer" not in card
    assert "| noisy_mrr | 0.4 | mean of 1 / rank" in card and "| recall@1 | 0.6 |" in card


@pytest.mark.parametrize(
    "name", ["a\u202eb", "a\\b", "a\\\\u202e", 'a"b', "a\nb", "caf\u00e9", "a\x7f", "a\udcff", "\U000e0041"]
)
def test_literals_give_the_original_text(name):
    found = literal(name)
    assert ast.literal_eval(found) == name and found.isprintable()

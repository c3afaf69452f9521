"""`c2c export`: the folder, its card, and the upload to a simulated hub."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from c2c_jax.cli.main import main
from c2c_jax.config import Config, DataConfig, TranslatorConfig
from c2c_jax.io.images import read_image
from c2c_jax.publishing.card import model_card
from c2c_jax.publishing.names import public_caption_spec, public_name, without_local_paths
from c2c_jax.spaces.space import identify, load_space
from c2c_jax.spaces.space_id import SpaceId
from c2c_jax.torch import Translator
from c2c_jax.translator.bundle import Bundle, Choice, load_bundle, save_bundle
from c2c_jax.translator.centring import ModalityMeans
from c2c_jax.translator.inference import translate
from tests.cli.test_main import ROOT, refused
from tests.fixtures.hub import TOKEN, stand_in, use
from tests.fixtures.versions import USES_IMAGE_PROCESSOR
from tests.torch.test_translator import random_bundle, spec

SCORES = {
    "step": 40, "held_out": 1000, "recall@1": 0.305, "recall@5": 0.538, "recall@10": 0.644, "in_batch_top1": 0.81,
    "median_rank": 5.0, "mean_cosine": 0.283,
}  # fmt: skip


def trained(source: SpaceId, target: SpaceId, **recipe: Any) -> Bundle:
    """A bundle as a run writes it, with random weights and means."""
    config = Config(
        source=source.name, target=target.name, batch_size=256, translator=TranslatorConfig(kind="residual"),
        data=DataConfig(captions="tfds:conceptual_captions:train"),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    means = {
        "source_text": source.dim,
        "source_image": source.dim,
        "target_text": target.dim,
        "target_audio": target.dim,
    }
    return random_bundle(
        spec("residual", source.dim, target.dim),
        source=source,
        target=target,
        recipe={**dataclasses.asdict(config), **recipe},
        metrics=SCORES,
        means=ModalityMeans(**{name: 0.1 * rng.normal(size=size).astype(np.float32) for name, size in means.items()}),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory, clip_folder, audioldm_folder) -> Path:
    """The work directory of a run with local checkpoints; every path in its config is a local one."""
    workdir = tmp_path_factory.mktemp("run")
    data = DataConfig(
        captions=f"2*csv:{workdir}/more.csv:text + txt:{workdir}/captions.txt", store=str(workdir / "store")
    )
    data.data_dir, data.manual_dir = "sets/tfds", "~/manual"
    spaces = identify(str(clip_folder)), identify(f"{audioldm_folder}:text_encoder")
    save_bundle(workdir / "bundle", trained(*spaces, data=dataclasses.asdict(data)))
    (workdir / "config.json").write_text("{}")  # a run has a config.json of its own
    return workdir


def test_folder_is_a_bundle_and_a_card(run, tmp_path, capsys):
    assert main(["export", str(run), "--out", str(tmp_path / "pub")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "pub")]
    assert {path.name for path in (tmp_path / "pub").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    weights = "model.safetensors"
    assert (tmp_path / "pub" / weights).read_bytes() == (run / "bundle" / weights).read_bytes()
    original, published = load_bundle(run / "bundle"), load_bundle(tmp_path / "pub")
    assert published.spec == original.spec and published.metrics == SCORES
    assert published.source == dataclasses.replace(original.source, name="clip")
    assert published.target == dataclasses.replace(original.target, name="audioldm:text_encoder")
    assert main(["export", str(run / "bundle"), "--out", str(tmp_path / "pub")]) == 0  # over the earlier one
    card = (tmp_path / "pub" / "README.md").read_text()
    for part in (
        "| recall@10 | 0.644 | fraction of captions",
        "On 1,000 held-out captions",
        f"| source | `clip` | 64 | `{original.source.fingerprint[:16]}` | see its checkpoint |",
        "| `batch_size` | `256` |",
        '| `translator.kind` | `"residual"` |',
        "`2*csv:more.csv:text + txt:captions.txt`",
        "correct images' and sounds' side",
    ):
        assert part in card
    assert "`epochs`" not in card  # it is the default
    metadata = ModelCard(card).data
    assert (metadata.library_name, metadata.license, metadata.base_model) == ("c2c_jax", "other", None)


@pytest.mark.slow
def test_no_local_path_is_published(run, tmp_path):
    assert main(["export", str(run), "--out", str(tmp_path / "pub"), "--onnx"]) == 0
    places = [str(place).encode() for place in (tmp_path, run, ROOT, sys.prefix)]
    for path in (tmp_path / "pub").iterdir():
        assert not [place for place in places if place in path.read_bytes()], path
    for path in ("config.json", "README.md"):
        assert "~" not in (tmp_path / "pub" / path).read_text()
    recipe = json.loads((tmp_path / "pub" / "config.json").read_text())["recipe"]
    assert recipe["data"]["captions"] == "2*csv:more.csv:text + txt:captions.txt"
    assert (recipe["source"], recipe["target"]) == ("clip", "audioldm:text_encoder")
    assert [recipe["data"][field] for field in ("store", "data_dir", "manual_dir")] == ["store", "tfds", "manual"]
    session = onnxruntime.InferenceSession(
        tmp_path / "pub" / "model_from_image.onnx", providers=["CPUExecutionProvider"]
    )
    source = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    with torch.no_grad():
        expected = Translator.from_pretrained(run / "bundle").from_image(torch.from_numpy(source))
    np.testing.assert_allclose(session.run(["target"], {"source": source})[0], expected, atol=1e-5, rtol=0)


def test_a_translator_of_centred_vectors(run, tmp_path, capsys):
    """Its means, its choice among candidates, and an ONNX model with an output among sounds."""
    whole = load_bundle(run / "bundle")
    choice = Choice(trained=1.0, linear="", memory=False, pair_cosine=0.32, noisy_mrr={"trained": 0.4, "ridge": 0.3})
    centred = dataclasses.replace(whole, spec=dataclasses.replace(whole.spec, input_norm="centred"), choice=choice)
    save_bundle(tmp_path / "centred", centred)
    assert main(["export", str(tmp_path / "centred"), "--out", str(tmp_path / "pub"), "--onnx"]) == 0
    published = load_bundle(tmp_path / "pub")
    assert published.choice == choice and published.means.known == whole.means.known
    card = (tmp_path / "pub" / "README.md").read_text()
    assert "## Centring" in card and "This translator is `trained`, the best of 2 candidates" in card
    assert "its output `target_audio` is un-centred by the mean of sounds" in card
    source = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    twin = Translator.from_pretrained(tmp_path / "pub")
    with torch.no_grad():
        inputs = torch.from_numpy(source)
        expected = [twin(inputs), twin.from_image(inputs), twin.from_image(inputs, "audio")]
    outputs = []
    for name in ("model.onnx", "model_from_image.onnx"):
        session = onnxruntime.InferenceSession(tmp_path / "pub" / name, providers=["CPUExecutionProvider"])
        outputs += session.run(None, {"source": source})
    for output, reference in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(output, reference, atol=1e-5, rtol=0)
    np.testing.assert_allclose(outputs[1], translate(published, source), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ("cvssp/audioldm-l-full:text_encoder", "cvssp/audioldm-l-full:text_encoder"),
        ("/home/me/checkpoints/audioldm:text_encoder", "audioldm:text_encoder"),
        ("~/clip/", "clip"),
        ("../checkpoints/deep/clip", "clip"),
        ("gs://bucket/clip", "clip"),
        ("images.npy", "images.npy"),
    ],
)
def test_names_of_spaces(name, public):
    assert public_name(name) == public


def test_folder_that_could_be_a_hub_name(tmp_path, monkeypatch):
    assert public_name("checkpoints/clip") == "checkpoints/clip"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints" / "clip").mkdir(parents=True)
    assert public_name("checkpoints/clip") == "clip"
    assert public_name(".") == tmp_path.name


@pytest.mark.parametrize(
    ("captions", "public"),
    [
        ("tfds:conceptual_captions:train[:1000]", "tfds:conceptual_captions:train[:1000]"),
        ("hf:me/captions@en:train:text", "hf:me/captions@en:train:text"),
        ("0.5*hf:/home/me/captions:train:text", "0.5*hf:captions:train:text"),
        ("tsv:/data/gcc/*.tsv + 2*jsonl:~/more.jsonl:caption", "tsv:*.tsv + 2*jsonl:more.jsonl:caption"),
    ],
)
def test_names_of_captions(captions, public):
    assert public_caption_spec(captions) == public


@USES_IMAGE_PROCESSOR
def test_code_of_the_card_runs(run, clip_folder, tmp_path, monkeypatch):
    """The card's code runs unchanged next to the folders that it names, and gives the vectors of tower and
    translator."""
    assert main(["export", str(run), "--out", str(tmp_path / "pub")]) == 0
    code = re.search(r"```python\n(.*?)```", (tmp_path / "pub" / "README.md").read_text(), re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    (tmp_path / "clip").symlink_to(clip_folder)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    image = load_space(str(clip_folder)).encode_images([read_image(tmp_path / "photo.png")])
    with torch.no_grad():
        expected = torch.nn.functional.normalize(
            Translator.from_pretrained(run / "bundle").from_image(torch.from_numpy(image))
        )
    np.testing.assert_allclose(names["clap"], expected, atol=1e-5, rtol=0)


HUB_SPACES = (
    SpaceId(name="laion/CLIP-ViT-B-32-laion2B-s34B-b79K", dim=24, fingerprint="a" * 64),
    SpaceId(name="cvssp/audioldm-l-full:text_encoder", dim=16, fingerprint=""),
)


def test_card_of_hub_spaces():
    card = model_card(without_local_paths(trained(*HUB_SPACES)), "me/translator")
    metadata = ModelCard(card).data
    assert metadata.license == "cc-by-nc-sa-4.0"
    assert metadata.base_model == ["laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "cvssp/audioldm-l-full"]
    assert metadata.datasets == ["google-research-datasets/conceptual_captions"]
    assert "| `laion/CLIP-ViT-B-32-laion2B-s34B-b79K` | 24 | `aaaaaaaaaaaaaaaa` | MIT |" in card
    assert "| `cvssp/audioldm-l-full:text_encoder` | 16 | unknown | CC-BY-NC-SA-4.0 |" in card
    assert (
        'Translator.from_pretrained("me/translator")' in card
        and card.splitlines()[len(metadata.to_yaml().splitlines()) + 3] == "# translator"
    )
    clap = dataclasses.replace(HUB_SPACES[1], name="laion/clap-htsat-unfused")
    assert ModelCard(model_card(trained(HUB_SPACES[0], clap), "x")).data.license == "apache-2.0"


def test_card_of_imports_and_arrays(tmp_path):
    """Imports have no metrics and another author; translators trained on arrays have no checkpoints to run."""
    imported = dataclasses.replace(
        trained(*HUB_SPACES), metrics={}, recipe={"imported": "a|b.pt", "ignored": []}, means=ModalityMeans()
    )
    card = model_card(imported, "x")
    assert "No validation is recorded." in card and ModelCard(card).data.license == "other"
    assert "Imported from `a\\|b.pt` of CLIP2CLAP" in card and '| `imported` | `"a\\|b.pt"` |' in card
    assert "has no means to correct it" in card and "datasets:" not in card
    captions = dataclasses.replace(imported, means=ModalityMeans(source_text=np.zeros(24, np.float32)))
    assert "has no means to correct it" in model_card(captions, "x")
    arrays = trained(*(SpaceId(name=f"{name}.npy", dim=4, fingerprint=name) for name in ("a", "b")))
    card = model_card(arrays, "x", ["model.onnx"])
    assert 'np.load("a.npy")' in card and "Pairs of vectors of unknown origin." in card and "`model.onnx`" in card


def test_existing_folders(run, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert "is a file: pass a folder" in refused(capsys, ["export", str(run), "--out", str(tmp_path / "file")])
    (tmp_path / "empty").mkdir()
    assert main(["export", str(run), "--out", str(tmp_path / "empty")]) == 0
    taken = "exists and is not an earlier export"
    (tmp_path / "empty" / "notes.txt").write_text("mine")
    assert taken in refused(capsys, ["export", str(run), "--out", str(tmp_path / "empty")])
    bundle = Path(shutil.copytree(run / "bundle", tmp_path / "bundle"))
    assert taken in refused(capsys, ["export", str(run), "--out", str(bundle)])
    (bundle / "README.md").write_text("my notes of this bundle")
    assert taken in refused(capsys, ["export", str(run), "--out", str(bundle)])
    assert (bundle / "README.md").read_text() == "my notes of this bundle"


def test_misuse(run, tmp_path, capsys):
    out = ["--out", str(tmp_path / "pub")]
    assert "contains the current directory" in refused(capsys, ["export", str(run), "--out", "."])
    assert "255 are allowed" in refused(capsys, ["export", str(run), "--out", "n" * 256])
    assert "nowhere to export to" in refused(capsys, ["export", str(run)])
    assert "--private needs --push" in refused(capsys, ["export", str(run), *out, "--private"])
    assert "contains no translator bundle" in refused(capsys, ["export", str(tmp_path), *out])
    assert "HF_HUB_OFFLINE is set" in refused(capsys, ["export", str(run), *out, "--push", "me/translator"])
    assert "not a valid hub name; pass OWNER/NAME" in refused(capsys, ["export", str(run), *out, "--push", "a b"])
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "config.json").write_text("{")
    assert "config.json" in refused(capsys, ["export", str(tmp_path), *out])
    assert not (tmp_path / "pub").exists()


def test_onnx_that_differs_writes_nothing(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("c2c_jax.publishing.onnx.TOLERANCE", -1.0)
    message = refused(capsys, ["export", str(run), "--out", str(tmp_path / "pub"), "--onnx"])
    assert "differs from the torch translator" in message and list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_upload_and_download(run, tmp_path):
    """In separate processes, because the hub's address is read once. The download equals the export."""
    with stand_in() as hub:
        online = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "hf")}
        environment = {**os.environ, **online}
        verb = ["-m", "c2c_jax.cli.main", "export", str(run), "--out", str(tmp_path / "pub")]
        more = ["--push", "me/translator", "--private"]
        done = subprocess.run([sys.executable, *verb, *more], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [str(tmp_path / "pub"), f"{hub.address}/me/translator"]
        assert hub.repositories == {"me/translator": True}
        assert hub.files["me/translator"] == {path.name: path.read_bytes() for path in (tmp_path / "pub").iterdir()}
        code = "from c2c_jax.torch import Translator\nprint(Translator.from_pretrained('me/translator').kind)"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == "residual", done.stderr


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A simulated hub that this process uses."""
    with stand_in() as hub:
        use(hub, monkeypatch, tmp_path / "cache")
        yield hub


def test_push_without_a_folder(run, hub, capsys):
    assert main(["export", str(run), "--push", "me/translator"]) == 0
    assert capsys.readouterr().out.split() == [f"{hub.address}/me/translator"]
    assert set(hub.files["me/translator"]) == {"config.json", "model.safetensors", "README.md"}
    assert hub.repositories == {"me/translator": False}
    assert b'Translator.from_pretrained("me/translator")' in hub.files["me/translator"]["README.md"]
    assert "exists and is public" in refused(capsys, ["export", str(run), "--push", "me/translator", "--private"])
    assert main(["export", str(run), "--push", "me/translator"]) == 0  # the repository is there already


def test_hub_refuses_the_push(run, hub, tmp_path, capsys, monkeypatch):
    push = ["export", str(run), "--push", "me/translator"]
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    message = refused(capsys, push)
    assert "401" in message and "hub refused the upload" in message and hub.files == {}
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.refuse = 507
    assert "the disk of the stand-in is full" in refused(capsys, push)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "no Hugging Face token; run `hf auth login`" in refused(capsys, push)


def test_hub_does_not_answer(run, hub, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "ConnectError" in refused(capsys, ["export", str(run), "--push", "me/translator"])

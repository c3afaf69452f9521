"""RUN arguments: runs, bundles, embedded names, and repositories of a local stand-in for the hub."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from c2c_jax.cli.main import main
from c2c_jax.errors import BundleError, CheckpointError
from c2c_jax.translator.bundle import load_bundle, save_bundle
from c2c_jax.translator.resolve import bundle_folder, is_local, run_name
from tests.cli.test_main import ROOT, refused
from tests.fixtures.hub import TOKEN, stand_in
from tests.torch.test_translator import random_bundle, spec


@pytest.fixture
def run(tmp_path) -> Path:
    save_bundle(tmp_path / "run" / "bundle", random_bundle(spec("mlp", 8, 8)))
    (tmp_path / "run" / "config.json").write_text("{}")
    return tmp_path / "run"


@pytest.fixture
def hub(monkeypatch, tmp_path, run):
    """A stand-in for the hub that has the run as `me/published`, and an empty cache."""
    with stand_in() as hub:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        template = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        assert main(["export", str(run), "--push", "me/published"]) == 0
        yield hub


def test_run_bundle_and_embedded_name(run, monkeypatch):
    assert bundle_folder(run) == bundle_folder(run / "bundle") == run / "bundle"
    assert run_name(run) == run_name(run / "bundle") == "run" and is_local(run)
    embedded = bundle_folder(Path("miniworld/translator"))
    assert load_bundle(embedded).target.name == "miniworld/clap"
    assert run_name(Path("miniworld/translator")) == "miniworld/translator"
    with pytest.raises(CheckpointError, match="c2c_jax has no checkpoint miniworld/none"):
        bundle_folder(Path("miniworld/none"))


def test_missing_bundles(run, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (run / "bundle" / "model.safetensors").unlink()
    for path, message in (
        (tmp_path / "none", "none is neither a local run or bundle nor a hub name"),
        (Path("doesnotexist"), "doesnotexist is neither a local run or bundle"),
        (
            Path("runs/none"),
            "runs/none is neither a local run or bundle nor available from the hub: HF_HUB_OFFLINE is set",
        ),
        (run / "config.json", "found a file"),
        (run, "contains no translator bundle"),
        (Path("~nosuchuser/run"), "nosuchuser/run is neither a local run or bundle"),
        (Path("a" * 300), "is neither a local run or bundle"),
        *((Path(name), "is neither a local run or bundle") for name in ("a--b/c", "a/b..", f"{'a' * 120}/b")),
    ):
        with pytest.raises(BundleError, match=message) as caught:
            bundle_folder(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "doesnotexist"],
        ["report", "doesnotexist"],
        ["export", "doesnotexist", "--out", "x"],
        ["calibrate", "doesnotexist", "--images", "doesnotexist"],
        ["calibrate", "doesnotexist", "--remove"],
        ["infer", "doesnotexist/config.json", "--translator", "doesnotexist"],
    ],
)
def test_every_verb_reports_a_missing_bundle(arguments, run, capsys, monkeypatch):
    monkeypatch.chdir(run)
    arguments = [str(run / "config.json") if word.endswith("config.json") else word for word in arguments]
    assert "doesnotexist is neither a local run or bundle" in refused(capsys, arguments)
    assert sorted(path.name for path in run.iterdir()) == ["bundle", "config.json"]


def test_hub_repository(hub, run, monkeypatch, capsys, tmp_path):
    hub.requests.clear()
    folder = bundle_folder(Path("me/published"))
    assert (folder / "model.safetensors").read_bytes() == (run / "bundle" / "model.safetensors").read_bytes()
    assert hub.requests and run_name(Path("me/published")) == "me/published"
    hub.requests.clear()
    assert bundle_folder(Path("me/published")) == folder and not hub.requests  # from the cache
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert bundle_folder(Path("me/published")) == folder
    for verb in (["export"], ["report"]):
        out = tmp_path / f"{verb[0]}.html"
        assert main([*verb, "me/published", "--out", str(out)]) == 0 and out.exists()
    assert "<h1>me/published</h1>" in (tmp_path / "report.html").read_text()
    assert "comes from the package or the hub" in refused(capsys, ["calibrate", "me/published", "--remove"])


def test_hub_errors(hub, monkeypatch, tmp_path):
    with pytest.raises(BundleError, match="me/none is neither .* available from the hub: download failed"):
        bundle_folder(Path("me/none"))
    hub.files["me/half"] = {"config.json": b"{}"}
    hub.repositories["me/half"] = False
    with pytest.raises(BundleError, match="download failed"):
        bundle_folder(Path("me/half"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BundleError, match="the hub"):
        bundle_folder(Path("me/published"))


def test_verbs_accept_pushed_translators(hub, monkeypatch, capsys, tmp_path):
    """A pushed translator gives the same vectors and the same nearest sounds as the original."""
    assert main(["export", "miniworld/translator", "--push", "me/mini"]) == 0
    image = str(ROOT / "examples" / "dog.png")
    vectors, nearest = [], []
    (tmp_path / "sounds").mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, 16_000)
        soundfile.write(tmp_path / "sounds" / f"{number}.wav", noise, 16_000)
    for name in ("me/mini", "miniworld/translator"):
        out = tmp_path / f"{len(vectors)}.npy"
        assert main(["infer", image, "--translator", name, "--save-embedding", str(out)]) == 0
        capsys.readouterr()
        assert main(["search", image, "--library", str(tmp_path / "sounds"), "--translator", name]) == 0
        vectors.append(np.load(out))
        nearest.append(capsys.readouterr().out)
    np.testing.assert_array_equal(*vectors)
    assert nearest[0] == nearest[1] and len(nearest[0].splitlines()) == 3
    few = ["--images", *[str(path) for path in sorted((ROOT / "examples").glob("*.png"))]]
    assert "needs 8 or more" in refused(capsys, ["calibrate", "me/mini", *few, "--out", str(tmp_path / "new")])
    assert "nothing to evaluate on" in refused(capsys, ["evaluate", "me/mini", "--out", str(tmp_path / "new")])

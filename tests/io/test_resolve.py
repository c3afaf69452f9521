"""RUN arguments: runs, bundles, embedded names, and repositories of a local stand-in for the hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import soundfile

from c2c_jax.cli.main import main
from c2c_jax.errors import AbsentError, BundleError, BundleNotFoundError
from c2c_jax.io.resolve import bundle_folder, is_local, run_name
from c2c_jax.spaces.space import identify
from c2c_jax.spaces.weights.folders import checkpoint_folder
from c2c_jax.torch import Translator
from c2c_jax.translator.bundle import load_bundle, save_bundle
from tests.cli.test_main import ROOT, refused
from tests.fixtures.hub import stand_in, use
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
        use(hub, monkeypatch, tmp_path / "cache")
        assert main(["export", str(run), "--push", "me/published"]) == 0
        yield hub


def test_run_bundle_and_embedded_name(run, monkeypatch, tmp_path):
    assert bundle_folder(run) == bundle_folder(str(run / "bundle")) == run / "bundle"
    assert run_name(run) == run_name(run / "bundle") == "run" and is_local(run)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert bundle_folder("~/run") == run / "bundle" and is_local("~/run")
    embedded = bundle_folder("miniworld/translator")
    assert load_bundle(embedded).target.name == "miniworld/clap"
    assert run_name("miniworld/translator") == "miniworld/translator" and not is_local("miniworld/translator")


def test_missing_bundles(run, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (run / "bundle" / "model.safetensors").unlink()
    neither = "is neither a local run or bundle"
    for name, message in (
        (tmp_path / "none", f"none {neither} nor a hub name"),
        ("doesnotexist", f"doesnotexist {neither} nor a hub name"),
        ("runs/none", f"runs/none {neither} nor available from the hub: it is not in the hub's cache"),
        ("runs/none@v1", f"runs/none@v1 {neither} nor available from the hub: it is not in the hub's cache"),
        (run / "config.json", "found a file"),
        (run, "contains no translator bundle"),
        ("~nosuchuser/run", f"nosuchuser/run {neither}"),
        ("miniworld/none", "c2c_jax has no checkpoint miniworld/none; it has miniworld/audioldm"),
        ("miniworld/audioldm", "contains no translator bundle"),
        *((name, neither) for name in ("a" * 300, "a--b/c", "a/b..", f"{'a' * 120}/b", "a b c", "me/x@", "me@v1")),
    ):
        with pytest.raises(BundleNotFoundError, match=message) as caught:
            bundle_folder(name)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, BundleError) and isinstance(caught.value, FileNotFoundError)


def test_only_the_hub_has_revisions(run):
    for name, revision, message in (
        (run, "v1", "is a local folder, so it has no revision 'v1'"),
        ("miniworld/translator", "v1", "is part of the package, so it has no revision 'v1'"),
        ("miniworld/translator@v1", None, "is part of the package, so it has no revision 'v1'"),
        ("me/published@v1", "v2", "me/published@v1 already names a revision: do not pass revision 'v2'"),
    ):
        with pytest.raises(BundleError, match=message) as caught:
            bundle_folder(name, revision)
        assert isinstance(caught.value, ValueError) and not isinstance(caught.value, FileNotFoundError)


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


def test_cached_version(hub, run, monkeypatch, caplog):
    """It is used without a request; only for a branch or tag is the hub asked whether there is a newer one."""
    folder = bundle_folder("me/published")
    assert (folder / "model.safetensors").read_bytes() == (run / "bundle" / "model.safetensors").read_bytes()
    hub.requests.clear()
    assert bundle_folder("me/published") == folder and hub.requests == []
    assert bundle_folder("me/published@main") == folder
    assert hub.requests == ["/api/models/me/published/revision/main"]
    hub.requests.clear()
    assert bundle_folder(f"me/published@{folder.name}") == bundle_folder("me/published", folder.name) == folder
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert bundle_folder("me/published@main") == folder and hub.requests == [] and caplog.messages == []


def test_cached_version_without_an_answer(hub, monkeypatch, caplog):
    folder = bundle_folder("me/published")
    hub.answers.clear()
    monkeypatch.setattr("c2c_jax.io.hub.CHECK_TIMEOUT", 0.1)
    assert bundle_folder("me/published@main") == folder
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert bundle_folder("me/published@main") == bundle_folder("me/published@main") == folder
    slow, refused = caplog.messages  # once for each reason
    assert "me/published: cannot ask the hub for a newer version (ReadTimeout" in slow
    assert "(ConnectError" in refused and refused.endswith("using the cached one")
    hub.answers.set()


def test_versions(hub, run):
    """A later push is found by its branch; earlier versions by commit and tag."""
    first = bundle_folder("me/published")
    save_bundle(run / "bundle", random_bundle(spec("linear", 8, 8)))
    assert main(["export", str(run), "--push", "me/published"]) == 0
    assert bundle_folder("me/published") == first
    second = bundle_folder("me/published@main")
    assert [load_bundle(folder).spec.kind for folder in (first, second)] == ["mlp", "linear"]
    hub.tags["me/published", "v1"] = first.name
    assert bundle_folder("me/published@v1") == bundle_folder("me/published", "v1") == first
    assert bundle_folder(f"me/published@{first.name}") == first
    assert Translator.from_pretrained("me/published").kind == "linear"
    assert Translator.from_pretrained("me/published@v1").kind == "mlp"
    assert Translator.from_pretrained("me/published", revision=first.name).kind == "mlp"
    with pytest.raises(BundleNotFoundError, match="me/published@v2 is neither .* download failed .RevisionNotFound"):
        bundle_folder("me/published@v2")


def test_both_files_are_of_one_commit(hub, monkeypatch):
    """Also if another version is pushed between their downloads."""
    download, first = huggingface_hub.hf_hub_download, dict(hub.files["me/published"])

    def download_before_a_push(*arguments, **options):
        path = download(*arguments, **options)
        hub.files["me/published"] = {"config.json": b"{}", "model.safetensors": b""}
        return path

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download_before_a_push)
    folder = bundle_folder("me/published")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: first[name] for name in ("config.json", "model.safetensors")
    }
    hub.files["me/published"] = {"config.json": b"{}"}
    with pytest.raises(BundleNotFoundError, match="download failed .RemoteEntryNotFoundError.*model.safetensors"):
        bundle_folder(f"me/published@{hub.commit('me/published')}")


def test_hub_errors(hub, monkeypatch, capsys):
    with pytest.raises(BundleNotFoundError, match="me/none is neither .* available from the hub: download failed"):
        bundle_folder("me/none")
    monkeypatch.setattr("c2c_jax.io.hub.TIMEOUT", 0.1)
    hub.answers.clear()
    with pytest.raises(BundleNotFoundError, match="available from the hub: download failed .ReadTimeout"):
        bundle_folder("me/published")
    hub.answers.set()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BundleNotFoundError, match="available from the hub: download failed .ConnectError"):
        bundle_folder("me/published")


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_variables(variable, tmp_path):
    """They are read when Python starts; the message names the one that is set."""
    code = "from c2c_jax.io.resolve import bundle_folder\nbundle_folder('me/published')"
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    environment |= {variable: "1", "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    message = f"from the hub: it is not in the hub's cache, and {variable} forbids downloads"
    assert message in done.stderr.splitlines()[-1]


def test_verbs_accept_pushed_translators(hub, monkeypatch, capsys, tmp_path):
    """A pushed translator gives the same results as the original."""
    assert main(["export", "miniworld/translator", "--push", "me/mini"]) == 0
    image = str(ROOT / "examples" / "dog.png")
    (tmp_path / "sounds").mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, 16_000)
        soundfile.write(tmp_path / "sounds" / f"{number}.wav", noise, 16_000)
    np.save(tmp_path / "images.npy", np.random.default_rng(0).normal(size=(9, 64)).astype(np.float32))
    (tmp_path / "captions.txt").write_text("a dog barks\na bell rings\nrain falls\n")
    results = []
    for name in ("me/mini", "miniworld/translator"):
        out = tmp_path / name
        capsys.readouterr()
        for arguments in (
            ["infer", image, "--translator", name, "--save-embedding", f"{out}.npy"],
            ["search", image, "--library", str(tmp_path / "sounds"), "--translator", name],
            ["calibrate", name, "--images", str(tmp_path / "images.npy"), "--out", f"{out}-calibrated"],
            ["evaluate", name, "--captions", f"txt:{tmp_path / 'captions.txt'}", "--out", f"{out}-evaluation"],
            ["report", name, "--out", f"{out}.html"],
            ["export", name, "--out", f"{out}-export"],
        ):
            assert main(arguments) == 0, (arguments, capsys.readouterr())
        assert f"<h1>{name}</h1>" in Path(f"{out}.html").read_text()
        results.append([
            np.load(f"{out}.npy").tolist(),
            capsys.readouterr().out.replace(name, "NAME"),
            load_bundle(Path(f"{out}-calibrated")).means.source_image.tolist(),
            json.loads((Path(f"{out}-evaluation") / "metrics.json").read_text())["rows"],
            (Path(f"{out}-export") / "model.safetensors").read_bytes(),
            Translator.from_pretrained(name).state_dict()["gap.source_image"].tolist(),
        ])  # fmt: skip
    assert results[0] == results[1] and results[0][3]
    assert "comes from the package or the hub" in refused(capsys, ["calibrate", "me/mini", "--remove"])


def test_whole_checkpoints(hub, clip_folder, monkeypatch, caplog):
    """A new version is found, and the cached one is used if the hub does not answer."""
    hub.repositories["me/clip"] = False
    hub.files["me/clip"] = {path.name: path.read_bytes() for path in clip_folder.iterdir()}
    folder = checkpoint_folder("me/clip")
    assert identify("me/clip").fingerprint == identify(str(clip_folder)).fingerprint
    hub.requests.clear()
    assert checkpoint_folder("me/clip") == folder and hub.requests == ["/api/models/me/clip"]
    hub.files["me/clip"]["notes.json"] = b"{}"
    assert (checkpoint_folder("me/clip") / "notes.json").read_text() == "{}"
    hub.answers.clear()
    monkeypatch.setattr("c2c_jax.io.hub.CHECK_TIMEOUT", 0.1)
    assert (checkpoint_folder("me/clip") / "notes.json").is_file() and "me/clip: cannot ask the hub" in caplog.text
    hub.answers.set()
    with pytest.raises(AbsentError, match="me/other is neither .* the hub: it is not in the hub's cache; run `hf down"):
        checkpoint_folder("me/other", download=False)
    assert not any("me/other" in request for request in hub.requests)
    with pytest.raises(AbsentError, match="download failed .RepositoryNotFoundError"):
        checkpoint_folder("me/other")

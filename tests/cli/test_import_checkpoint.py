"""`c2c import-checkpoint`."""

import json
import os
from pathlib import Path

import pytest
import torch

from c2c_jax.cli.main import main
from c2c_jax.errors import AbsentError
from c2c_jax.spaces.space import identify
from c2c_jax.torch import Translator
from tests.cli.test_main import refused
from tests.fixtures.hub import stand_in


class Trap:
    def __reduce__(self):
        return (os.mkdir, ("trapped",))


@pytest.fixture
def file(tmp_path) -> Path:
    """The author's five-layer model at a small size."""
    torch.manual_seed(0)
    tensors = {"module.t": torch.ones(1)}
    for number in range(1, 6):
        tensors |= {f"module.ff{number}.weight": torch.randn(8, 8), f"module.ff{number}.bias": torch.randn(8)}
    torch.save(tensors, tmp_path / "linear5.pt")
    return tmp_path / "linear5.pt"


def arguments(file: Path, *more: str) -> list[str]:
    out = str(file.parent / "bundle")
    return ["import-checkpoint", str(file), "--out", out, "--source", "me/clip", "--target", "me/clap", *more]


def test_bundle_and_notes(file, capsys):
    assert main(arguments(file)) == 0
    captured = capsys.readouterr()
    assert captured.out.split() == [str(file.parent / "bundle")]
    assert captured.err.splitlines() == [
        f"{file}: skipped, since outputs do not depend on it: t",
        f"{file}: source me/clip is not on this machine: its fingerprint is unknown and cannot be checked",
        f"{file}: target me/clap is not on this machine: its fingerprint is unknown and cannot be checked",
    ]
    config = json.loads((file.parent / "bundle" / "config.json").read_text())
    assert config["translator"]["kind"] == "mlp5" and config["translator"]["clamp"] == 0.25
    assert config["recipe"]["imported"] == "linear5.pt" and config["recipe"]["ignored"] == ["t"]
    out = Translator.from_pretrained(file.parent / "bundle")(torch.ones(2, 8))
    assert out.shape == (2, 8) and out.abs().max() <= 0.25


def test_nothing_is_downloaded(file, monkeypatch):
    """Checkpoints of several gigabytes are not fetched for their fingerprints."""
    with stand_in() as hub:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
        assert main(arguments(file)) == 0
        assert hub.requests == []
        with pytest.raises(AbsentError):
            identify("me/clip")
        assert hub.requests  # as it is where a download is wanted


def test_existing_folders(file, capsys):
    """An import may be repeated, as after an interruption; other folders are not replaced."""
    out = file.parent / "bundle"
    assert main(arguments(file)) == 0 == main(arguments(file))
    (out / "notes.txt").write_text("mine")
    assert "is not an earlier import: pass another folder" in refused(capsys, arguments(file))
    assert (out / "notes.txt").read_text() == "mine"


def test_misuse(file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "those of mlp5, not of linear2" in refused(capsys, arguments(file, "--kind", "linear2"))
    assert "8 wide, those of laion/CLIP" in refused(capsys, ["import-checkpoint", str(file), "--out", "bundle"])
    assert "found no file" in refused(capsys, arguments(tmp_path / "none.pt"))
    assert "found a folder" in refused(capsys, ["import-checkpoint", str(tmp_path), "--out", str(tmp_path / "bundle")])
    torch.save({"module.linear.weight": Trap()}, file)
    assert "no code in it was run" in refused(capsys, arguments(file))
    assert [path.name for path in tmp_path.iterdir()] == ["linear5.pt"]

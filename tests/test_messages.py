"""The package writes only through `logging` and progress bars; the commands print what is logged."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from c2c_jax import old_names
from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.calibration import calibrate
from c2c_jax.evaluation.evaluate import EvalRequest, evaluate
from c2c_jax.io.images import find_images
from c2c_jax.io.json import report_missing_fields
from c2c_jax.miniworld.captions import captions
from tests.fixtures.programs import ROOT

TRANSLATOR = Path("miniworld/translator")


@pytest.fixture(autouse=True)
def no_status_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress of a slow machine is not shown."""
    monkeypatch.setattr("c2c_jax.io.progress.SECONDS", 1e6)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Images, sounds and captions, some of each unusable."""
    folder, rng = tmp_path_factory.mktemp("inputs"), np.random.default_rng(0)
    for name in ("images", "sounds"):
        (folder / name).mkdir()
        (folder / name / "notes.doc").touch()
        for number in range(9):
            file = folder / name / str(number)
            if name == "images":
                Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(f"{file}.png")
            else:
                soundfile.write(f"{file}.wav", rng.normal(size=8000) / 10, 8000)
    (folder / "images" / "8.png").write_bytes(b"no image")
    tone = rng.normal(size=8000) / 10
    soundfile.write(folder / "sounds" / "8.wav", np.stack([tone, -tone], axis=1), 8000)
    (folder / "captions.tsv").write_text("".join(f"{text}\tx\n" for text in captions("test", 40)) + "no tab\n")
    return folder


def use(inputs: Path, out: Path) -> None:
    """Calls functions that have something to report."""
    images = find_images([str(inputs / "images")])
    calibrate(TRANSLATOR, images=images, audio=inputs / "sounds", out=out / "bundle")
    request = EvalRequest(run=TRANSLATOR, captions=f"tsv:{inputs / 'captions.tsv'}", bootstrap=Bootstrap(resamples=0))
    evaluate(request)
    report_missing_fields(Bootstrap, {"seed": 0}, out / "b.json")
    old_names.new_name("data.feed")


MESSAGES = [
    (logging.WARNING, "1 file skipped, not images of a supported format: 1 .doc"),
    (logging.WARNING, "note: 1 file skipped, not sounds of a supported format: 1 .doc"),
    (logging.WARNING, "note: {inputs}/sounds/8.wav has channels that cancel each other; only channel 1 is read"),
    (logging.WARNING, "{out}/b.json does not state resamples"),
    (logging.WARNING, "config.data.feed is now config.data.loader"),
]


@pytest.mark.parametrize("level", [logging.INFO, logging.CRITICAL])
def test_the_library_does_not_print(inputs, tmp_path, caplog, capfd, monkeypatch, level):
    monkeypatch.setattr(old_names, "_logged", set())
    caplog.set_level(level, "c2c_jax")
    use(inputs, tmp_path)
    assert capfd.readouterr() == ("", "")
    records = [(number, message) for _, number, message in caplog.record_tuples]
    if level == logging.CRITICAL:
        assert not records
        return
    assert {(number, text.format(inputs=inputs, out=tmp_path)) for number, text in MESSAGES} <= {*records}
    assert any(number == logging.WARNING and text.startswith("left out: ") for number, text in records)
    assert any(number == logging.WARNING and "40 captions read from tsv:" in text for number, text in records)
    assert all(name.startswith("c2c_jax.") for name, _, _ in caplog.record_tuples)


def test_without_configuration_python_prints_warnings(inputs):
    code = f"""
import logging
from c2c_jax.io.images import find_images
print(len(find_images([{str(inputs / "images")!r}])), logging.getLogger("c2c_jax").handlers)
logging.getLogger("c2c_jax").info("a note")"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("9 []\n", f"{MESSAGES[0][1]}\n")

"""Messages about packages that are not installed."""

import subprocess
import sys

import pytest

from c2c_jax.errors import C2CError, MissingExtraError
from c2c_jax.io.extras import require_extra
from tests.fixtures.programs import ROOT


def test_what_is_installed_is_not_imported():
    code = "import sys; from c2c_jax.io.extras import require_extra; require_extra('x', 'x', 'jax')"
    code += "; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("packages", "names"),
    [
        (["no_one"], "no_one, which is"),
        (["json", "no_one"], "no_one, which is"),
        (["no_one", "no_two", "no_three"], "no_one, no_two and no_three, which are"),
    ],
)
def test_the_message_names_what_is_missing_and_the_extra(packages, names):
    with pytest.raises(MissingExtraError) as caught:
        require_extra("some", "playing chess", *packages)
    assert str(caught.value) == f"playing chess needs {names} not installed: pip install 'c2c_jax[some]'"
    assert isinstance(caught.value, C2CError) and isinstance(caught.value, ImportError)
    assert caught.value.name == "no_one"


def test_a_folder_of_that_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "no_package").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError, match="logging needs no_package, which is"):
        require_extra("log", "logging", "no_package")


def test_a_blocked_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match="generating needs torch, which is not installed"):
        require_extra("torch", "generating", "torch")


def test_the_torch_translator_names_its_extra():
    code = "import sys; sys.modules['torch'] = None; import c2c_jax.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    message = "c2c_jax.torch needs torch, which is not installed: pip install 'c2c_jax[torch]'"
    assert done.stderr.splitlines()[-1] == f"c2c_jax.errors.MissingExtraError: {message}"

"""pyproject.toml declares exactly the packages that c2c_jax imports."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.fixtures.programs import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
FOR_USERS = {name: lines for name, lines in EXTRAS.items() if name not in ("all", "dev", "docs", "cuda", "tpu")}
# Packages that others import for us: diffusers, tensorflow_datasets, and torch.onnx.
INDIRECT = {"accelerate", "array-record", "onnx", "onnxscript"}
NOT_TESTED_WITH = {"gradio", "av", "pillow-heif", "wandb"}  # not part of the extra dev
NOT_YET_IMPORTED = {"gradio", "av", "pillow-heif"}  # of the extras app, video and heic


def names_of(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules that a file imports at any depth, except those for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module)
        yield from imports(node)


def imported_packages() -> dict[str, set[str]]:
    """Distribution → files of c2c_jax that import it."""
    distributions = importlib.metadata.packages_distributions() | {"google": ["protobuf"]}  # shared by several
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "c2c_jax").rglob("*.py")):
        for module in imports(ast.parse(path.read_text(encoding="utf-8"))):
            top = module.partition(".")[0]
            if top not in sys.stdlib_module_names and top != "c2c_jax":
                name = canonicalize_name(distributions.get(top, [top])[0])
                found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return found


def test_imported_packages_are_declared_and_declared_ones_are_imported():
    core = names_of(PROJECT["dependencies"])
    extras = {name for lines in FOR_USERS.values() for name in names_of(lines)}
    found = imported_packages()
    assert {name: files for name, files in found.items() if name not in core | extras} == {}
    assert core - found.keys() == set()
    assert extras - core - found.keys() == INDIRECT | NOT_YET_IMPORTED


def test_type_checking_imports_do_not_count():
    code = "import os, a.b\nif TYPE_CHECKING:\n    import c\ndef f():\n    from d.e import g\n    from . import h"
    assert list(imports(ast.parse(code))) == ["os", "a.b", "d.e"]


def test_the_oldest_versions_are_the_lower_bounds():
    lines = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    oldest = {canonicalize_name(name): Version(version) for name, version in pins if name != "tensorflow-metadata"}
    bounds = {}
    for line in [*PROJECT["dependencies"], *(line for lines in FOR_USERS.values() for line in lines)]:
        (bound,) = Requirement(line).specifier
        assert bound.operator == ">="
        bounds[canonicalize_name(Requirement(line).name)] = Version(bound.version)
    assert {name: version for name, version in bounds.items() if name not in NOT_TESTED_WITH} == oldest


def test_the_extra_all_has_every_extra_of_users():
    (line,) = EXTRAS["all"]
    assert Requirement(line).name == "c2c_jax" and Requirement(line).extras == set(FOR_USERS)


def test_extras_named_in_code_and_docs_exist():
    files = [*(ROOT / "c2c_jax").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    named = {name for path in files for name in named_extras(path)}
    assert {"torch", "tfds", "hf", "onnx", "log"} <= named <= set(EXTRAS)


def named_extras(path: Path) -> set[str]:
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"c2c_jax\[([a-z,]+)\]|require_extra\(\s*\"(\w+)\"|\bextra, packages = \"(\w+)\"", text)
    return {name for groups in found for group in groups if group for name in group.split(",")}

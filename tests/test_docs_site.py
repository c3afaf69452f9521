"""The documentation site: every page is reached, links resolve, quoted messages exist, tables are complete, and the
built pages work without a network."""

import ast
import dataclasses
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jax
import pytest
import yaml

from c2c_jax.cli.main import VERBS, main
from c2c_jax.config import Config, flat_fields
from c2c_jax.training.objectives import OBJECTIVES
from c2c_jax.translator.kinds import KINDS
from tests.fixtures.chromium import Chromium, find_chromium
from tools import reference

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
LINKED = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"
BLOCKS = re.findall(r"^```output\n(.*?)\n```", TROUBLESHOOTING.read_text("utf-8"), re.MULTILINE | re.DOTALL)
MESSAGES = [line for block in BLOCKS for line in block.splitlines()]
SOURCES = [*(ROOT / "c2c_jax").rglob("*.py"), Path(jax.__file__).parent / "_src" / "xla_bridge.py"]


def nav_files(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    children = entry.values() if isinstance(entry, dict) else entry
    return [file for child in children for file in nav_files(child)]


def test_the_navigation_names_every_page_once():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    assert sorted(nav_files(config["nav"])) == [page.name for page in PAGES]


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings that mkdocs and GitHub form in the same way."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    words = [re.sub(r"[^\w\s-]", "", heading.lower(), flags=re.ASCII).strip() for heading in headings]
    return {re.sub(r"\s+", "-", text) for text in words if not re.search(r"\s-|-\s|\s\s", text)}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_links_resolve(page):
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text("utf-8")))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


@pytest.fixture(scope="module")
def source_texts() -> list[str]:
    """The strings of the package's source and of JAX's device selection; computed parts are …."""
    texts = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [value.value if isinstance(value, ast.Constant) else "…" for value in node.values]
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def test_twenty_errors_have_an_entry():
    assert len(re.findall(r"^### ", TROUBLESHOOTING.read_text("utf-8"), re.MULTILINE)) >= 20 and len(MESSAGES) >= 20


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message[:40])
def test_a_quoted_message_is_in_the_source(message, source_texts):
    pieces = [piece.strip(" ;:(),.") for piece in message.split("…")]
    assert max(map(len, pieces)) >= 15
    assert any(all(piece in text for piece in pieces) for text in source_texts)


def test_the_command_page_lists_every_flag(capsys):
    page = reference.commands()
    for verb in VERBS:
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        section = re.search(rf"^## c2c {verb}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)[1]
        flags = set(re.findall(r"^  (--[\w-]+)", capsys.readouterr().out, re.MULTILINE))
        assert flags <= set(re.findall(r"^\| `(--[\w-]+)", section, re.MULTILINE)), verb
    assert "| `--guidance GUIDANCE` | guidance scale; 1 = no guidance (default: 7.5) |" in page


def test_the_configuration_page_lists_every_field():
    page = reference.configuration()
    rows = set(re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE))
    plain = {name for name, value in flat_fields(dataclasses.asdict(Config())) if value != {}}
    assert plain <= rows
    assert {*KINDS, *OBJECTIVES} <= set(re.findall(r"^### (\w+)$", page, re.MULTILINE))
    assert "| `optimizer.ema` | `0.0` | from 0, below 1 | Decay of the moving average" in page


def test_the_recipe_page_lists_every_recipe():
    headings = re.findall(r"^### (\w+)$", reference.recipes(), re.MULTILINE)
    assert headings == sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
    assert "| `objective.settings.margin_growth` | `0.03` |  |" in reference.recipes()


def test_every_extra_is_documented():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(extras) <= set(re.findall(r"`([a-z]+)`", (ROOT / "docs" / "install.md").read_text("utf-8")))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="make docs installs mkdocs")
def test_the_built_site_needs_no_network(tmp_path):
    """Builds the site strictly, opens pages as files, and searches."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0 and "WARNING" not in built.stderr, built.stderr
    for page in (tmp_path / "site").glob("*.html"):
        text = page.read_text("utf-8")
        assert not re.search(r"<(?:script|img|link|iframe)[^>]*(?:src|href)=\"?(?:https?:)?//", text), page.name
        assert "<!-- generated" not in text, page.name
    if (program := find_chromium()) is None:
        pytest.skip("no browser")
    with Chromium(program, tmp_path / "profile") as browser:
        browser.show(400)
        for name in ("index", "api", "commands", "configuration", "troubleshooting"):
            browser.open(tmp_path / "site" / f"{name}.html")
            assert all(request.startswith(("file:", "data:")) for request in browser.requests), name
            assert not browser.complaints, name
            assert browser.evaluate("document.documentElement.scrollWidth") <= 400, name
        browser.evaluate("document.querySelector('[data-md-component=search-query]').focus()")
        browser.evaluate(
            "new Promise(done => { const field = document.querySelector('[data-md-component=search-query]');"
            "field.value = 'hubness'; field.dispatchEvent(new Event('keyup'));"
            "const wait = () => document.querySelector('.md-search-result__link') ? done() : setTimeout(wait, 50);"
            "wait(); })"
        )
        found = browser.evaluate("[...document.querySelectorAll('.md-search-result__link')].map(x => x.href).join()")
        assert "glossary.html" in found

# Two commands do all their own set-up: `make demo` and `make test`.

PYTHON3 ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PYTHON := $(VENV)/bin/python
C2C := $(VENV)/bin/c2c
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.docs-ready
DEMO := build/demo

export HF_HUB_OFFLINE ?= 1

.PHONY: demo test test-all campaign lint docs setup clean

setup: $(READY)

$(READY): requirements.txt pyproject.toml
	$(PYTHON3) -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $(READY)

test: $(READY)
	$(PYTHON) -m pytest -m "not slow"

test-all: $(READY)
	$(PYTHON) -m pytest

lint: $(READY)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(VENV)/bin/lint-imports

docs: $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

$(DOCS_READY): $(READY) requirements-docs.txt
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	touch $(DOCS_READY)

campaign: $(READY)
	$(PYTHON) -m tools.campaign all --seed 0 --json build/campaign/records.json

demo: $(READY)
	rm -rf $(DEMO)
	$(PYTHON) train.py --config configs/miniworld.py --workdir $(DEMO)/run
	$(C2C) miniworld export --split test --out $(DEMO)/pairs
	$(C2C) evaluate $(DEMO)/run --pairs $(DEMO)/pairs/manifest.csv
	$(C2C) search examples/ --library $(DEMO)/pairs/sounds --translator $(DEMO)/run --top 3
	$(PYTHON) infer.py examples/ --translator $(DEMO)/run --ranker miniworld/clap --out $(DEMO)/sounds
	$(C2C) report $(DEMO)/run --sounds $(DEMO)/sounds --out $(DEMO)/report.html
	$(PYTHON) -m bench.demo $(DEMO)

clean:
	rm -rf build $(VENV)

# Two commands do all their own set-up: `make demo` and `make test`.

PYTHON3 ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PYTHON := $(VENV)/bin/python
C2C := $(VENV)/bin/c2c
# Another version of Python makes the environment anew.
READY := $(VENV)/.ready-$(shell $(PYTHON3) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
OLDEST := .venv-oldest
DOCS_READY := $(VENV)/.docs-ready
DEMO := build/demo

export HF_HUB_OFFLINE ?= 1

.PHONY: demo test test-all test-oldest campaign lint docs setup clean

setup: $(READY)

$(READY): requirements.txt pyproject.toml
	$(PYTHON3) -m venv $(if $(wildcard $(READY)),,--clear) $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $(READY)

$(OLDEST)/.ready: constraints-oldest.txt pyproject.toml
	$(PYTHON3) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt -e '.[dev]'
	touch $@

test: $(READY)
	$(PYTHON) -m pytest -m "not slow"

test-all: $(READY)
	$(PYTHON) -m pytest

# With the oldest versions that pyproject.toml allows. On some CPUs, old versions of XLA warn about every cached program.
test-oldest: $(OLDEST)/.ready
	TF_CPP_MIN_LOG_LEVEL=3 $(OLDEST)/bin/python -m pytest -m "not slow"

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
	rm -rf build dist $(VENV) $(OLDEST)

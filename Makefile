# Two commands do all their own set-up: `make demo` and `make test`.

PYTHON3 ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
DEMO := build/demo

export HF_HUB_OFFLINE ?= 1

.PHONY: demo test lint setup clean

setup: $(READY)

$(READY): requirements.txt pyproject.toml
	$(PYTHON3) -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $(READY)

test: $(READY)
	$(PYTHON) -m pytest

lint: $(READY)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

demo: $(READY)
	rm -rf $(DEMO)
	$(PYTHON) -m bench.demo_captions --count 4000 --out $(DEMO)
	$(PYTHON) -m bench.checkpoints --size tiny --captions $(DEMO)/captions.txt --out $(DEMO)/checkpoints
	$(PYTHON) train.py --config configs/mlp_infonce.py --workdir $(DEMO)/run \
	  --config.source=$(DEMO)/checkpoints/clip --config.target=$(DEMO)/checkpoints/audioldm:text_encoder \
	  --config.data.captions=txt:$(DEMO)/captions.txt --config.batch_size=256 --config.epochs=40
	$(PYTHON) infer.py $(DEMO)/picture.png --translator $(DEMO)/run/bundle \
	  --audioldm $(DEMO)/checkpoints/audioldm --steps 20 --seconds 5
	@echo
	@echo "picture:    $(DEMO)/picture.png"
	@echo "sound:      $(DEMO)/picture.wav, its mel-spectrogram picture.mel.png and its record picture.sound.json beside it"
	@echo "translator: $(DEMO)/run/bundle"
	@echo "These small checkpoints are random, so the sound means nothing yet: it shows that the whole way runs."
	@echo "With real ones, see 'A picture to a sound' in README.md."

clean:
	rm -rf build $(VENV)

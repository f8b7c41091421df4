# Two commands matter: `make book` and `make test`. `make` alone lists all of them.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
# Where torch comes from. Empty: the index that pip uses anyway (on Linux that may be a CUDA build of several GB).
# For the small CPU build: make book TORCH_PIP_ARGS="--index-url https://download.pytorch.org/whl/cpu"
TORCH_PIP_ARGS ?=
PORT ?= 8000
# How many processes run tests side by side.
JOBS ?= 2

VENV := .venv
PY := $(VENV)/bin/python
COLAB := .venv-colab
HTML := _build/html
CHAPTERS := $(wildcard book/*.ipynb)

# Spinning threads make small models ten times slower: one thread per process.
export OMP_NUM_THREADS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONWARNINGS := ignore::DeprecationWarning
export PYDEVD_DISABLE_FILE_VALIDATION := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help book serve test test-full lab notebooks reproduce benchmark gpu test-colab links lint format clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

# --- environments: a stamp is newer than the file it was made from ---------------------------------------------

# install(environment, requirements)
define install
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit(f"Python 3.11 to 3.13 is needed, and $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	@echo "Setting up $(1) from $(2) (some minutes, once)"
	$(PYTHON) -m venv $(1)
	if [ -n "$(TORCH_PIP_ARGS)" ]; then $(1)/bin/python -m pip install -q --no-compile $(TORCH_PIP_ARGS) --no-deps "$$(grep '^torch==' $(2))"; fi
	$(1)/bin/python -m pip install -q --no-compile -r $(2)
	$(1)/bin/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $(1)/.stamp
endef

$(VENV)/.stamp: requirements.txt pyproject.toml
	@$(call install,$(VENV),requirements.txt)

$(COLAB)/.stamp: requirements-colab.txt pyproject.toml
	@$(call install,$(COLAB),requirements-colab.txt)

# --- the book ---------------------------------------------------------------------------------------------------

book: $(VENV)/.stamp  ## build the book into _build/html (executes the chapters once, then reads them from a cache)
	@$(PY) -m sdlib.viz.export >/dev/null
	@$(PY) tools/notebooks.py cache
	@$(VENV)/bin/jupyter-book build . -W -n --keep-going --quiet || { rm -rf _build/.doctrees; exit 1; }
	@echo "The book is in $(HTML)/index.html; make serve opens it with its demos."

serve: book  ## serve the book on this machine and open it
	@echo "http://localhost:$(PORT)/ (Ctrl-C to stop)"
	@( sleep 1; $(PY) -m webbrowser -t "http://localhost:$(PORT)/" >/dev/null 2>&1 || true ) & \
	exec $(PY) -m http.server $(PORT) --bind 127.0.0.1 --directory $(HTML)

lab: $(VENV)/.stamp  ## open the chapters in JupyterLab
	$(PY) -m jupyterlab book

notebooks: $(VENV)/.stamp  ## execute the chapters again and write them back, normalized
	$(PY) tools/notebooks.py write

# --- checks -----------------------------------------------------------------------------------------------------

test: $(VENV)/.stamp  ## everything: unit tests, chapters, and the built pages in a real Chromium
	@$(PY) tools/chromium.py
	@$(MAKE) --no-print-directory book
	@$(PY) -m pytest -q -n $(JOBS) --dist loadfile --nbval --nbval-current-env tests $(CHAPTERS)

test-full: $(VENV)/.stamp  ## networks of v1.5 beside the reference at 512 x 512 (minutes, and 6 GB of memory)
	@$(PY) -m pytest -q -m full tests

test-colab: $(COLAB)/.stamp  ## unit tests and chapters with the versions of Colab's image
	@$(COLAB)/bin/python -m pytest -q -n $(JOBS) --dist loadfile --nbval --nbval-current-env \
		--ignore=tests/book --ignore=tests/parity --ignore=tests/test_install.py tests $(CHAPTERS)

reproduce: $(VENV)/.stamp  ## train the shipped checkpoints again and compare their cards
	$(PY) -m sdlib reproduce

benchmark: $(VENV)/.stamp  ## print speed and quality beside the peers, and of all samplers
	$(PY) -m pip install -q -r requirements-benchmark.txt
	$(PY) benchmarks/plane.py
	$(PY) benchmarks/samplers.py

gpu:  ## measure one NVIDIA card beside diffusers, 8 minutes; writes data/reports/<card>.json
	@if $(PYTHON) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then \
		$(PYTHON) -m benchmarks.gpu; \
	else \
		$(MAKE) -s --no-print-directory $(VENV)/.stamp; $(PY) -m benchmarks.gpu; \
	fi

links: $(VENV)/.stamp  ## ask every outside address that the book names whether it still answers
	$(VENV)/bin/jupyter-book build . --builder linkcheck

lint: $(VENV)/.stamp  ## ruff: lint and format, as the pre-commit hook does
	$(PY) -m ruff check . && $(PY) -m ruff format --check .

format: $(VENV)/.stamp  ## let ruff mend what it can
	$(PY) -m ruff check --fix . && $(PY) -m ruff format .

clean:  ## remove what was built, and both environments
	rm -rf _build build dist $(VENV) $(COLAB) .pytest_cache .ruff_cache .hypothesis

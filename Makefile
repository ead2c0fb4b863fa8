# Each target sets up what it needs in .venv; a second call finds it there. PYTHON=python3.12 chooses another Python.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
comma := ,

# `-qq` shows pip's errors only; torch stays the one of constraints.txt.
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

.PHONY: help demo test lint format bench zoo clean
.DEFAULT_GOAL := help
.NOTPARALLEL:

help:
	@echo "make demo    explain a photograph with the built-in network and say where the report lies"
	@echo "make test    the test suite                make lint    format, lint and type check"
	@echo "make zoo     many architectures, slow ones make bench   compare with other libraries"
	@echo "make format  tidy the code                 make clean   remove .venv and caches"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "pellucid needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)."; \
	  echo "Try: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

# $(VENV)/with-test+dev says that pellucid[test,dev] is installed as pyproject.toml and constraints.txt want it.
$(VENV)/with-%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "setting up $(VENV) for $(subst +,$(comma) ,$*) (the first time takes a few minutes)"
	@$(INSTALL) -e ".[$(subst +,$(comma),$*)]" || { \
	  echo "the installation failed (see above); 'make clean' starts afresh"; exit 1; }
	@touch $@

demo: $(VENV)/with-demo
	@$(BIN)/pellucid demo $(ARGS)

# two workers, each on one core: small networks gain nothing from a second thread
WORKERS ?= 2

test: $(VENV)/with-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

lint: $(VENV)/with-test+dev
	@rc=0; for check in "ruff format --check" "ruff check" pyright; do \
	  echo "$(BIN)/$$check"; $(BIN)/$$check || rc=1; done; exit $$rc

format: $(VENV)/with-test+dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

zoo: $(VENV)/with-test+peers+timm+hf
	$(BIN)/python -m pytest -m "zoo or slow or peers" $(ARGS)

bench: $(VENV)/with-test+peers
	$(BIN)/python bench/run.py $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist
	find src tests bench scripts -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

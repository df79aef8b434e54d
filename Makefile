# Needs python >= 3.11, make and git; everything else comes from requirements.txt into .venv.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

DATA ?= simulated
DATA_DIR ?=
SHOW ?=
SEED ?= 1
MINUTES ?= 10
ROUNDS ?= 20
BIN := .venv/bin
STAMP := .venv/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONPATH

.PHONY: help setup install extras demo test chaos story spark faults lint format bench lock down clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

setup: ## .venv with the pinned requirements, once; again when they change
	@hash=$$(cat requirements.txt pyproject.toml | cksum); \
	if [ "$$(cat $(STAMP) 2>/dev/null)" != "$$hash" ]; then $(MAKE) install; echo "$$hash" > $(STAMP); fi

install:
	@python=; for candidate in python3.11 python3.12 python3.13 python3; do \
	  if $$candidate -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; \
	  then python=$$candidate; break; fi; done; \
	if [ -z "$$python" ]; then echo "make: no Python 3.11 to 3.13 on the PATH; install one and try again" >&2; exit 1; fi; \
	[ -x $(BIN)/python ] || $$python -m venv .venv
	@$(BIN)/python pipelines/local/install.py $(if $(SHOW),--show $(SHOW))

extras: setup ## what an option of params.yaml needs besides: XGBoost, 6 MB
	@python -c 'from importlib.metadata import version; version("xgboost-cpu")' 2>/dev/null || \
	python -c 'from importlib.metadata import version; version("xgboost")' 2>/dev/null || \
	python -m pip install --quiet --no-build-isolation --editable '.[xgboost]'

demo: ## events to watched recommendations; DATA=merch, DATA_DIR=its folder
	@$(MAKE) setup SHOW=$(filter simulated%,$(DATA))
	@endcap demo --data $(DATA) $(if $(DATA_DIR),--source "$(DATA_DIR)")

test: setup extras lint ## lint, types and the whole suite
	@OMP_NUM_THREADS=1 python -m pytest -rs -n 2 --dist loadfile --no-loadscope-reorder --durations=20 --durations-min=10

chaos: setup ## ten minutes of random faults on a running shop; SEED, MINUTES
	@ENDCAP_CHAOS_SEED=$(SEED) ENDCAP_CHAOS_MINUTES=$(MINUTES) OMP_NUM_THREADS=1 \
	python -m pytest -s -m chaos tests/chaos

story: setup ## from the first release to a retrain and a refresh, in a small shop, every part real
	@OMP_NUM_THREADS=1 python -m pytest -s -m story tests/house/test_life_of_a_shop.py

spark: setup ## pyspark, which only `offline: spark` needs, and its tests; Java 17 must be there
	@$(BIN)/python -m pip install --quiet -r requirements-spark.txt
	@OMP_NUM_THREADS=1 python -m pytest -rs -k spark tests/feature_repo/offline/test_spark.py tests/house/test_whole_path.py

faults: setup ## what attacks and faults broke once, again and again; ROUNDS
	@for round in $$(seq $(ROUNDS)); do echo "== round $$round of $(ROUNDS)"; \
	  OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --maxfail 1 -m fault || exit 1; done

lint: setup ## ruff and mypy
	@ruff check .
	@ruff format --check .
	@mypy feature_repo training serving monitoring pipelines

format: setup ## rewrite the code as ruff likes it
	@ruff check --fix . && ruff format .

bench: setup ## the budgets beside what this machine measures; a part needs `endcap up`
	@python benchmarks/budgets.py

lock: ## requirements.txt from requirements.in, in a fresh environment
	@rm -rf .venv-lock && $(BIN)/python -m venv .venv-lock
	@.venv-lock/bin/python -m pip install -r requirements.in
	@{ echo '# Frozen closure of requirements.in; written by `make lock`. Do not edit by hand.'; \
	  .venv-lock/bin/python -m pip freeze --all | grep -v '^pip==' | sed 's/+cpu$$//'; } > requirements.txt
	@rm -rf .venv-lock

down: ## stop everything that the demo started
	@if [ -x $(BIN)/endcap ]; then endcap down; else echo "nothing is installed, so nothing runs"; fi

clean: down ## forget data, models and live state; keeps .venv
	@rm -rf run mlruns .dvc/cache .dvc/tmp
	@cd data && rm -rf export raw quarantine features models bundles reports
	@git checkout -q -- data/reports 2>/dev/null || true # its three files in git

# keybearer: `make help` lists what there is. Nothing but Python 3.11, make and git is expected beforehand.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# The tests start the command some hundred times: compiling it each time costs more than they do.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= $(shell command -v python3.11 || command -v python3)
HOST ?= 127.0.0.1
PORT ?= 8000

BIN := .venv/bin
STAMP := .venv/.installed
UV := $(BIN)/uv
NODE := tests/better_auth
NODE_STAMP := $(NODE)/node_modules/.installed
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate
GROUPS_LOCKED := build test lint docs bench
FULLY_COVERED := src/keybearer/domain/*,src/keybearer/verification/*,src/keybearer/operations/*

.PHONY: help install system run test soak mutants screenshots lint bench docs messages lock clean

help: ## list these targets
	@sed -nE 's/^([a-z]+):.*## (.*)$$/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 10

install: $(STAMP) ## make .venv from the lock

$(STAMP): pyproject.toml requirements/lock.txt requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "keybearer needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@PYTHON="$(PYTHON)" scripts/system-packages python3-venv
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements/uv.txt requirements/lock.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

system: $(NODE_STAMP) ## install PostgreSQL, Redis, Chromium, fonts and Node for the tests, if missing
	@scripts/system-packages postgresql redis-server chromium fonts-noto-cjk
	@scripts/node

# Better Auth's own packages, and a page with its card of API keys.
$(NODE_STAMP): export PATH := $(CURDIR)/.node/bin:$(PATH)
$(NODE_STAMP): $(addprefix $(NODE)/,package.json package-lock.json vite.config.mjs card/index.html card/main.jsx) | $(STAMP)
	@scripts/node
	cd $(NODE) && npm ci --silent --ignore-scripts && node node_modules/vite/bin/vite.js build --logLevel warn
	@touch $@

run: export KEYBEARER_TOKEN_MANAGEMENT ?= true
run: export KEYBEARER_DATABASE_URL ?= sqlite:///.data/keybearer.db
run: install ## serve on PORT with token management and the examples
	@mkdir -p .data
	@exec $(BIN)/keybearer serve --examples --host $(HOST) --port $(PORT)

test: install system ## run all tests; the core must be covered in full
	$(BIN)/pytest -n 2 --dist worksteal --cov --cov-report= $(ARGS)
	$(BIN)/coverage report --skip-covered
	$(BIN)/coverage report --include='$(FULLY_COVERED)' --fail-under=100

soak: export TRIALS ?= 1000
soak: export REVOCATIONS ?= 10000
soak: export OPERATIONS ?= 10000000
soak: install system ## kill, pause and cut off real processes for hours, and check every answer
	SOAK=1 KEYBEARER_STALE_EXAMPLES=2000 $(BIN)/pytest -q -s tests/verification/test_stale.py tests/soak

mutants: install ## small wrongs in the core that no test notices
	$(BIN)/python -m tests.mutants $(ARGS)

screenshots: install system ## draw every page into docs/screenshots
	rm -rf docs/screenshots
	SCREENSHOTS=docs/screenshots $(BIN)/pytest -q tests/pages/test_pictures.py

lint: install ## ruff, mypy, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install ## run the benchmarks and write their table (Node 20 for the rival)
	@scripts/system-packages wrk postgresql
	$(BIN)/python -m benchmarks $(ARGS)

docs: install ## build the documentation into docs/_build
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build

messages: install ## bring the words in src/keybearer/locales up to the code
	$(BIN)/python scripts/messages

lock: $(STAMP) ## resolve requirements/*.txt anew (UPGRADE=--upgrade for the newest)
	$(COMPILE) $(UPGRADE) --group install --output-file requirements/uv.txt
	$(COMPILE) $(UPGRADE) --all-extras $(addprefix --group ,$(GROUPS_LOCKED)) \
		--output-file requirements/lock.txt pyproject.toml
	$(COMPILE) $(UPGRADE) --group node --output-file requirements/node.txt

clean: ## remove what these targets made, except .data
	rm -rf .node $(NODE)/node_modules $(NODE)/dist .venv dist build docs/_build htmlcov .coverage .coverage.* \
		.hypothesis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .mutants

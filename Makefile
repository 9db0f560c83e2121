# make help lists the targets. Everything happens in .venv inside the checkout.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
ARGS   ?=
SLOW   := tests/threats tests/suites tests/official tests/tower/whole

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow browser check format bench fuzz clean

help:  ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml uv.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet 'uv>=0.9'
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv sync --active --quiet --locked --extra server --group dev --inexact
	@touch $(READY)

setup: $(READY)  ## Make the virtual environment .venv from the lock file

demo: $(READY)  ## Start Tower, deploy the webhook, call it as two people (ARGS=--once ends by itself)
	@$(BIN)/python -m examples.demo $(ARGS)

test: $(READY)  ## Run the tests
	@$(BIN)/python -m pytest -n auto --dist loadgroup --ignore=tests/browser $(SLOW:%=--ignore=%) $(ARGS)

slow: $(READY)  ## Run the suites of minutes: threats, kills and restarts, whole servers, the official SDK
	@$(BIN)/python -m pytest -n auto --dist loadgroup $(SLOW) $(ARGS)

browser: $(READY)  ## Run the tests of the console in a real Chromium
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv sync --active --quiet --locked --extra server --group dev --group browser --inexact
	@$(BIN)/python -m pytest tests/browser $(ARGS)

check: $(READY)  ## Formatting, lint, types and import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY)  ## Format the code and sort what lint can sort
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY)  ## Run the benchmarks (see bench/README.md)
	@$(BIN)/python -m bench $(ARGS)

fuzz: $(READY)  ## Fuzz the parsers with atheris (ARGS=TARGET..., FUZZ_SECONDS=60 each)
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv sync --active --quiet --locked --extra server --group dev --group fuzz --inexact
	@$(BIN)/python -m tests.fuzz $(ARGS)

clean:  ## Remove the environment and the caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .cache

# brainjar: `make run`, `make test`. `make help` lists the rest.
#
# make setup CMAKE_ARGS=-DGGML_CUDA=on   compiles llama.cpp for a GPU. The choice is remembered; CMAKE_ARGS= takes it back.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup run test test-vm chaos bench lint clean

LLAMA := 0.3.36
MODELS := smollm2-135m gemma3-270m
CONFIG := configs/matrix.toml
VENV := .venv
BIN := $(VENV)/bin
FETCH = for model in $(MODELS); do $(BIN)/brainjar models fetch $$model >/dev/null; done

# Given on the command line or in the environment, else as last time.
ifeq ($(origin CMAKE_ARGS),undefined)
CMAKE_ARGS := $(shell cat $(VENV)/cmake-args 2>/dev/null)
endif
STAMP := $(VENV)/set-up-$(shell printf '%s' '$(CURDIR) $(CMAKE_ARGS)' | cksum | cut -d' ' -f1)

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(STAMP) ## make .venv with everything in it; nothing where it is up to date

run: setup ## run the jar here: three personas on a real model (CONFIG=file for another)
	@exec $(BIN)/brainjar supervise --config $(CONFIG) $(ARGS)

test: lint ## lint, fetch the models, run every test (ARGS='-k name' goes to pytest)
	@$(FETCH)
	@exec $(BIN)/pytest $(ARGS)

test-vm: setup ## run the tests of cgroups in a guest that has v2 (ARGS='--as user tests/x.py': others; tests/vm)
	@tests/vm/run $(ARGS)
	@$(if $(ARGS),,exec tests/vm/run --reboot)

chaos: setup ## 10,000 faults at random moments (BRAINJAR_CHAOS_FAULTS, BRAINJAR_CHAOS_SEED: how many, which ones)
	@$(FETCH)
	@BRAINJAR_CHAOS_FAULTS=$${BRAINJAR_CHAOS_FAULTS:-10000} $(BIN)/pytest tests/chaos $(ARGS)

bench: setup ## measure everything beside its peers, about an hour (ARGS='--only birth,token', '--quick', '--list'; benchmarks/README.md)
	@$(FETCH)
	@exec $(BIN)/python -m benchmarks $(ARGS)

lint: setup ## ruff, mypy --strict, and who may import whom
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy --strict
	@$(BIN)/lint-imports

clean: ## remove .venv, what was fetched for `bench`, and caches; models and compiled wheels stay
	rm -rf $(VENV) .bench build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): setup.cfg pyproject.toml constraints.txt Makefile scripts/make-venv scripts/llama-wheel scripts/lean.cmake
	@rm -f $(VENV)/set-up-*
	@scripts/make-venv $(VENV) $(LLAMA) '$(CMAKE_ARGS)'
	@touch $@

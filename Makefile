# Every target sets up what it needs: the environment is .venv, server jars and wheels are cached under $APBATCH_CACHE.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: help demo test check bench docs clean system system-demo torch

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

.venv/.ready: setup.cfg constraints/all.txt jobs/setup.sh
	@PYTHON=$(PYTHON) sh jobs/setup.sh

.venv/.packages: setup.cfg constraints/all.txt jobs/setup.sh
	@PYTHON=$(PYTHON) sh jobs/setup.sh packages

torch: .venv/.ready
	@PYTHON=$(PYTHON) sh jobs/setup.sh torch

system:
	@PYTHON=$(PYTHON) sh jobs/setup.sh system

system-demo:
	@PYTHON=$(PYTHON) sh jobs/setup.sh system demo

# Horovod takes minutes to build the first time: meanwhile the job goes as far as the network's training.
demo: system-demo .venv/.packages ## the main job, embedded: simulation, Spark, CNN, report
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/apbatch doctor --for demo
	@sh jobs/setup.sh horovod & horovod=$$!; export PATH="$(CURDIR)/$(BIN):$$PATH"; \
		apbatch run jobs/gamma_hadron.yaml --until blind; begun=$$?; wait $$horovod; exit $$begun
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/apbatch run jobs/gamma_hadron.yaml

test: system .venv/.ready torch ## all tests, on real servers
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/apbatch doctor --install --for test
	@PATH="$(CURDIR)/$(BIN):$$PATH" APBATCH_TORCH_PYTHON="$${APBATCH_TORCH_PYTHON:-$(CURDIR)/.venv-torch/bin/python}" \
		$(BIN)/python -m pytest -rs -n 2 --dist loadfile --no-loadscope-reorder tests $(ARGS)

check: .venv/.ready ## lint, types, layers, unit tests
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/lint-imports
	@$(BIN)/mypy & types=$$!; $(BIN)/python -m pytest tests/unit -x -n 2; tests=$$?; wait $$types && exit $$tests

bench: .venv/.ready ## storage and index benchmark, small, with its report
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/apbatch bench run storage index --size smoke
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/apbatch bench report

docs: .venv/.ready ## the documentation site, in docs/_build; a warning is an error
	@$(BIN)/python -m sphinx -W --keep-going -q -j auto docs docs/_build
	@echo "docs/_build/index.html"

clean: ## remove the environment and what tools left behind; data and caches stay
	rm -rf .venv .venv-torch build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Every target sets up what it needs: the environment is .venv, server jars and wheels are cached under $APBATCH_CACHE.
PYTHON ?= python3.11
BIN := .venv/bin
# Empty: hundreds of processes of the tests need not compile the package each.
export PYTHONDONTWRITEBYTECODE =
PYTEST := $(BIN)/python -m pytest -rs -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help demo test test-all check bench docs clean system system-demo torch

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

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

test: system .venv/.ready ## the tests, on real servers
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/apbatch doctor --install --for test
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(PYTEST) -m "not campaign" tests $(ARGS)

test-all: system .venv/.ready torch ## these and the long campaigns: killed clusters and studies, benchmarks, PyTorch
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/apbatch doctor --install --for test
	@PATH="$(CURDIR)/$(BIN):$$PATH" APBATCH_TORCH_PYTHON="$${APBATCH_TORCH_PYTHON:-$(CURDIR)/.venv-torch/bin/python}" \
		$(PYTEST) tests $(ARGS)

# Side by side, since each alone leaves a core idle: under a minute on two cores, also where mypy starts without its cache.
check: .venv/.ready ## lint, types, layers, unit tests
	@$(BIN)/mypy & types=$$!; \
		($(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/lint-imports) & rules=$$!; \
		$(BIN)/python -m pytest tests/unit -x -n 2; tests=$$?; \
		wait $$types; types=$$?; wait $$rules; exit $$((types | $$? | tests))

bench: .venv/.ready ## storage and index benchmark, small, with its report
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/apbatch bench run storage index --size smoke
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/apbatch bench report

docs: .venv/.ready ## the documentation site, in docs/_build/html; a warning is an error
	@rm -rf docs/_api
	@$(BIN)/python -m sphinx -W --keep-going -q -j auto docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean: ## remove the environment and what tools left behind; data and caches stay
	rm -rf .venv .venv-torch build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Everything from an empty machine with Python 3.11 or newer: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A machine may lack the packages that make a wheel; ours are pure Python and need setuptools alone.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
OURS := --no-deps --no-build-isolation --editable ./producer --editable .

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all debian lint format bench chaos requirements clean

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## Make the environment (.venv) to run Converge

demo: $(VENV)/.ready ## Watch a few hundred messages find their people (ends within two minutes)
	@$(BIN)/converge demo

test: $(VENV)/.ready-dev ## Run the tests; no service need be installed
	@$(BIN)/pytest -q -n 3 --dist loadfile -m "not slow and not debian"

test-all: $(VENV)/.ready-dev debian ## Run also the long fault runs and those that need Debian packages
	@$(BIN)/pytest -q --timeout=900

debian: ## Install the Debian packages that some tests need (as root, or with sudo)
	@PATH="$$PATH:/usr/sbin"; missing=""; \
	for each in $(PACKAGES); do \
		command -v "$${each#*:}" >/dev/null || missing="$$missing $${each%:*}"; \
	done; \
	test -n "$$missing" || exit 0; \
	as_root=""; test "$$(id -u)" = 0 || as_root="sudo"; \
	if ! command -v apt-get >/dev/null || ! $$as_root true; then \
		echo "Some tests need what Debian packages as:$$missing. Install it, then come again."; \
		exit 1; \
	fi; \
	echo "Installing$$missing ..."; \
	$$as_root apt-get -qq update && $$as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get -qq install --yes --no-install-recommends $$missing >/dev/null
PACKAGES = rabbitmq-server:rabbitmqctl faketime:faketime chromium:chromium prometheus:promtool

lint: $(VENV)/.ready-dev ## Style, types and import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(VENV)/.ready-dev ## Put the source into shape
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(VENV)/.ready-dev ## Measure speed side by side; writes benchmarks/results.json
	@$(BIN)/python -m benchmarks

chaos: $(VENV)/.ready-dev ## Break everything under load, 200 times, and lose nothing (SEED=N FAULTS=N)
	@ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || ( \
		command -v apt-get >/dev/null && test "$$(id -u)" = 0 && echo "Installing faketime ..." && \
		apt-get -qq update && apt-get -qq install --yes faketime >/dev/null ) || true
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) --faults $(or $(FAULTS),200)

requirements: $(VENV)/.ready-dev ## Pin newer versions, with hashes (PACKAGE=name for one alone)
	$(BIN)/uv pip compile --universal --python-version 3.11 requirements.in \
		--generate-hashes --no-header --quiet -o requirements.txt $(UPGRADE)
	$(BIN)/uv pip compile --universal --python-version 3.11 requirements-dev.in \
		--generate-hashes --no-header --quiet -o requirements-dev.txt $(UPGRADE)
	$(BIN)/uv pip compile --universal --python-version 3.11 requirements-synapse.in \
		--generate-hashes --no-header --quiet -o requirements-synapse.txt $(UPGRADE)
UPGRADE = $(if $(PACKAGE),--upgrade-package $(PACKAGE),--upgrade)

clean: ## Remove the environment (the data in .converge stays)
	rm -rf $(VENV) .venv-synapse

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"Converge needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: requirements.txt pyproject.toml producer/pyproject.toml | $(BIN)/python
	@echo "Setting up $(VENV) ..."
	@$(INSTALL) --require-hashes --requirement requirements.txt
	@$(INSTALL) $(OURS)
	@touch $@

$(VENV)/.ready-dev: requirements-dev.txt pyproject.toml producer/pyproject.toml | $(BIN)/python
	@echo "Setting up $(VENV) for tests ..."
	@$(INSTALL) --require-hashes --requirement requirements-dev.txt
	@$(INSTALL) $(OURS)
	@touch $@ $(VENV)/.ready

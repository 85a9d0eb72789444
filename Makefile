# SPDX-License-Identifier: Apache-2.0
# The only entry to building and testing; CI calls these targets and nothing else.
# What a target needs (Debian packages, .venv, the build) is the work of tools/setup.

PY := .venv/bin/python
SETUP := tools/setup
PYTEST := $(PY) -m pytest
# Sources in the kernel's style, for clang-format.
C_SOURCES := $(wildcard bpf/*.[ch] native/*.[ch] tests/fuzz/*.c)
SCRIPTS := .ci/run tools/setup tools/kernel-test tools/fuzz tests/vm/init

# $(call within,SECONDS,COMMAND): a command that runs into its limit says so (timeout exits with 124).
define within
@timeout --foreground $(1) $(2) || { code=$$?; \
	[ $$code -ne 124 ] || echo "make $@: stopped after $(1) s, its limit, with tests still to run: this machine is" \
		"busy or slow, or one hangs. Run it again, or find the slow ones: $(PYTEST) --durations=40 PATHS" >&2; \
	exit $$code; }
endef

.DEFAULT_GOAL := help
.PHONY: help setup run test test-all lint format bench soak fuzz kernel-test docs clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what run, test and lint need; quick when nothing is missing
	@$(SETUP) test

run: ## make every kind of reset on this machine and explain each
	@$(SETUP) run
	@.venv/bin/holdfast demo

test: ## the core tests, at most 5 minutes
	@$(SETUP) test
	$(call within,300,$(PYTEST) -q -n 2 --dist loadfile -m "not slow and not bench")

test-all: ## the tests that 'make test' leaves out, at most 20 minutes
	@$(SETUP) test-all
	$(call within,1200,$(PYTEST) -q -m "slow and not bench" --timeout 600)

lint: ## ruff, mypy --strict, clang-format, shellcheck, codespell
	@$(SETUP) test
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	$(if $(C_SOURCES),@.venv/bin/clang-format --dry-run -Werror $(C_SOURCES))
	@.venv/bin/shellcheck $(SCRIPTS)
	@.venv/bin/codespell

format: ## rewrite the sources in the project's style
	@$(SETUP) test
	@$(PY) -m ruff check --fix-only -q .
	@$(PY) -m ruff format .
	$(if $(C_SOURCES),@.venv/bin/clang-format -i $(C_SOURCES))

bench: ## measure what the documentation claims
	@$(SETUP) bench
	@$(PY) -m bench

soak: ## a million resets: memory must stay flat; 100,000 simulated sessions: no byte may be lost
	@$(SETUP) test
	@PYTHONPATH=tests $(PY) -m simulation.soak
	@$(PY) -m bench.soak

fuzz: ## the capture core against what libFuzzer makes, for a minute
	@$(SETUP) fuzz
	@tools/fuzz 60

kernel-test: ## the kernel tests on Debian's own kernel, in a virtual machine
	@$(SETUP) kernel-test
	@tools/kernel-test

docs: ## write the reference pages that come from the code's tables
	@$(SETUP) run
	@$(PY) tools/docs.py

clean: ## remove everything that these targets made
	@rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find src tests bench tools -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

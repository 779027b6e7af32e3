# Commands for a fresh clone. They need Python >= 3.11, git and make; everything else is installed into .venv.
#
#   make demo                       relay, agent and a shared text editor; prints a link
#   make test                       the tests; PYTEST_FLAGS="-x tests/mux" goes to pytest
#   make help                       the rest

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3 python3.14 python3.13 python3.12 python3.11
PYTEST_FLAGS ?=
WORKERS ?= auto
DEMO_FLAGS ?=
BENCH_FLAGS ?=
WRITE ?=
YARDSTICK ?= ../shared/yardstick
COMPILED := build/compiled
COMPILED_TESTS := $(addprefix tests/,yamux resume heads carrier mux core relay agent interop faults)
FUZZ_FLAGS ?= tests/yamux tests/heads tests/auth tests/carrier tests/attacks

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint types docs check fuzz bench compiled test-compiled install clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##/  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

demo: $(VENV)/.with-demo  ## run the demo: relay, agent and a shared text editor on this machine
	@$(BIN)/seance demo $(DEMO_FLAGS)

test: $(VENV)/.with-demo,test  ## run the tests (WORKERS=0 PYTEST_FLAGS=--slow for the slow ones too)
	@$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal $(PYTEST_FLAGS)

lint: $(VENV)/.with-dev,docs  ## look for mistakes and untidiness
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.with-demo,test $(VENV)/.with-dev,docs  ## check the types
	@$(BIN)/mypy

docs: $(VENV)/.with-dev,docs  ## build the documentation into docs/_build/html
	@$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

check: lint types docs test  ## all of the above but the demo

fuzz: $(VENV)/.with-demo,test  ## more than a million random inputs for all that strangers write to; minutes
	@$(BIN)/python -m pytest --slow --hypothesis-profile=fuzz -m "fuzz or hypothesis" --timeout=7200 \
		$(FUZZ_FLAGS) $(PYTEST_FLAGS)

bench: $(VENV)/.with-demo,test  ## measure against the yardstick in Go (YARDSTICK=path); ten minutes, BENCH_FLAGS="--rounds 1 --loads echo1" for less
	@$(BIN)/python benchmarks/pairs.py --yardstick '$(YARDSTICK)' $(if $(WRITE),--write '$(WRITE)') $(BENCH_FLAGS)
	@$(BIN)/python benchmarks/memory.py
	@$(BIN)/python benchmarks/core.py --rounds 3

compiled: | $(BIN)/python  ## compile the data path into build/compiled; needs a C compiler
	@rm -rf $(COMPILED) build/lib.* build/bdist.*
	@SEANCE_COMPILE=1 $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --target $(COMPILED) .

test-compiled: compiled $(VENV)/.with-demo,test  ## run the tests of the compiled packages, and of the packages above them, on that form
	@cp -r tests pyproject.toml setup.cfg $(COMPILED)
	@cd $(COMPILED) && '$(abspath $(BIN)/python)' -m seance --version | grep compiled
	@cd $(COMPILED) && '$(abspath $(BIN)/python)' -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal \
		$(COMPILED_TESTS) $(PYTEST_FLAGS)

install: $(VENV)/.with-demo,test $(VENV)/.with-dev,docs  ## make .venv with all that the rest needs

clean:  ## remove what was made, .venv too
	rm -rf $(VENV) build dist docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
	find seance tests twisted -name __pycache__ -prune -exec rm -rf {} +

# One empty file for each set of extras that is installed, so that a second run starts at once.
# editable_mode=compat: twistd looks for plugins along sys.path, and only this mode puts the checkout there.
$(VENV)/.with-%: setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing seance-tunnel[$*] into $(VENV) (once) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check \
		--config-settings editable_mode=compat -e '.[$*]'
	@touch '$@'

$(BIN)/python:
	@for python in $(PYTHON); do \
		$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		$$python -c 'import ensurepip, venv' 2>/dev/null || { \
			echo "$$python has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; \
		echo "Making $(VENV) with $$($$python --version) ..."; \
		exec $$python -m venv $(VENV); \
	done; \
	echo "Python 3.11 or newer is needed (looked for: $(PYTHON)); name one with make PYTHON=/path/to/python" >&2; \
	exit 1

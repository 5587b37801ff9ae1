# Two commands do everything: `make demo` and `make test`. Both make their own virtual environment.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
FILE   ?=
SOURCES := $(shell find src hatch_build.py -name "*.py" -o -name "*.c")

.PHONY: demo test lint types imports unit bench fuzz compiled test-compiled docs clean

demo: $(VENV)/.demo
	$(BIN)/python -m joinleaf.cli.demo $(if $(FILE),"$(FILE)")

test: lint types imports unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(VENV)/.dev
	$(BIN)/mypy

imports: $(VENV)/.dev
	$(BIN)/lint-imports

unit: $(VENV)/.dev
	$(BIN)/pytest -n auto --dist loadfile --cov --cov-report=term:skip-covered $(ARGS)

bench: $(VENV)/.bench
	$(BIN)/python -m bench $(ARGS)

fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz $(ARGS)

# The data path as machine code, in an environment of its own; needs a C compiler.
compiled: .venv-compiled/.built

test-compiled: .venv-compiled/.built
	JOINLEAF_EXPECT_COMPILED=1 .venv-compiled/bin/pytest -n auto --dist loadfile -p no:cacheprovider \
	  tests/unit tests/simulation tests/providers tests/fronts tests/fuzz $(ARGS)

.venv-compiled/.built: $(SOURCES) pyproject.toml requirements/locked.txt
	$(PYTHON) -m venv .venv-compiled
	rm -rf build/compiled
	.venv-compiled/bin/pip install --quiet --disable-pip-version-check -c requirements/locked.txt \
	  hatchling setuptools hatch-mypyc 'mypy[mypyc]' msgspec ifaddr cryptography
	.venv-compiled/bin/python -m hatchling build -t sdist -d build/compiled
	HATCH_BUILD_HOOKS_ENABLE=1 .venv-compiled/bin/pip wheel --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation -w build/compiled build/compiled/joinleaf-*.tar.gz
	.venv-compiled/bin/pip install --quiet --disable-pip-version-check --force-reinstall --no-deps \
	  build/compiled/joinleaf-*.whl
	.venv-compiled/bin/pip install --quiet --disable-pip-version-check -c requirements/locked.txt \
	  "$$(ls build/compiled/joinleaf-*.whl)[dev,bench]"
	@touch $@

# What CI installs is locked; what users install is bounded below in pyproject.toml.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "joinleaf needs Python 3.11 or newer; set PYTHON=" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml requirements/locked.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements/locked.txt -e '.[cli]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml requirements/locked.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements/locked.txt -e '.[dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements/locked.txt -e '.[bench]'
	@touch $@

clean:
	rm -rf $(VENV) .venv-compiled .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage build dist

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# OpenMP and BLAS threads only get in each other's way when the tests already use every core.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-train fuzz lint protos clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --group dev
	touch $@

$(VENV)/.installed-train: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check "torch==2.13.0"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dp,train,plots]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/secagg demo

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest -n 2

test-train: $(VENV)/.installed-train
	$(BIN)/pytest tests/train -m train

fuzz: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check --group fuzz
	$(BIN)/pytest tests/fuzz -m fuzz -n 2

protos: $(VENV)/.installed-dev
	$(BIN)/python protos/generate.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

# Everything happens in a virtual environment of its own, .venv beside this file.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
QUESTION ?=
SCALE ?= 1
STAMP := $(VENV)/.installed

.PHONY: run test soak check format clean

run: $(STAMP)
	$(BIN)/specreason run $(if $(QUESTION),"$(QUESTION)",)

test: check
	$(BIN)/python -m pytest

# Hours at full scale.
soak: $(STAMP)
	$(BIN)/python tests/soak.py all --scale $(SCALE)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV)

# Installed again only when what is to be installed has changed.
$(STAMP): pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	touch $@

# Everything happens in a virtual environment of its own, .venv beside this file.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
QUESTION ?=
SCALE ?= 1
# A file of pinned versions with hashes to install from, instead of the newest that pyproject.toml allows.
LOCK ?=
STAMP := $(VENV)/.installed

.PHONY: run test soak check format lock audit clean

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

# Python 3.11 on 64-bit Linux, which is what .ci/run installs.
lock: $(STAMP)
	$(BIN)/uv pip compile pyproject.toml --group dev --upgrade --generate-hashes --no-annotate --no-header \
		--python-version 3.11 --python-platform x86_64-manylinux_2_34 --output-file .ci/requirements.txt --quiet

# Asks the package index for known vulnerabilities of what is pinned.
audit: $(STAMP)
	$(BIN)/uv tool run pip-audit --requirement .ci/requirements.txt --require-hashes --no-deps --disable-pip

clean:
	rm -rf $(VENV)

# Installed again only when what is to be installed has changed.
$(STAMP): pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(LOCK),\
		--require-hashes --requirement $(LOCK) && $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation --editable .,--editable . --group dev)
	touch $@

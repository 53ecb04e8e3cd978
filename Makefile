# Everything happens in a virtual environment of its own, .venv beside this file.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
QUESTION ?=
SCALE ?= 1
# A file of pinned versions with hashes to install from, instead of the newest that pyproject.toml allows.
LOCK ?=
STAMP := $(VENV)/.installed
# Clients of `specreason serve` live in an environment of their own, always as pinned.
CLIENTS := $(VENV)-clients

.PHONY: run test test-clients quick soak check format lock platforms audit clean

run: $(STAMP)
	$(BIN)/specreason run $(if $(QUESTION),"$(QUESTION)",)

# First what can go on all cores at once, then what needs them to itself.
test: check
	$(BIN)/python -m pytest -m "not server and not slow" --numprocesses auto
	$(BIN)/python -m pytest -m "server or slow"

# What their authors let them warn of is not ours.
test-clients: $(STAMP) $(CLIENTS)/.installed
	SPECREASON=$(abspath $(BIN))/specreason $(CLIENTS)/bin/python -m pytest tests/clients --confcutdir tests/clients -W ignore

# What needs no server and does not wait long, with fewer random examples, on all cores: four to five minutes on two.
quick: $(STAMP)
	$(BIN)/python -m pytest -m "not server and not slow" --hypothesis-profile quick --numprocesses auto --quiet

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
	@# sgl-eval asks for openai<3, inspect_ai for openai>=3.4; sgl-eval works with both.
	echo "openai>=3.4" | $(BIN)/uv pip compile --group clients --override - --upgrade --generate-hashes --no-annotate \
		--no-header --python-version 3.11 --python-platform x86_64-manylinux_2_34 --output-file .ci/clients.txt --quiet

# What would be installed elsewhere, from wheels alone, as the package index has them.
platforms: $(STAMP)
	@for on in "macos 3.11" "macos 3.13" "windows 3.11" "windows 3.13" "x86_64-manylinux_2_34 3.11" \
		"x86_64-manylinux_2_34 3.12" "x86_64-manylinux_2_34 3.13" "aarch64-manylinux_2_34 3.12"; do \
		set -- $$on; $(BIN)/uv pip compile pyproject.toml --only-binary :all: --no-annotate --no-header --quiet \
		--python-platform $$1 --python-version $$2 > $(VENV)/platform.txt || exit; \
		echo "$$on: $$(grep -c == $(VENV)/platform.txt) packages, SGLang: $$(grep ^sglang= $(VENV)/platform.txt || echo none)"; \
	done

# Asks the package index for known vulnerabilities of what is pinned.
audit: $(STAMP)
	@for pinned in requirements clients; do \
		$(BIN)/uv tool run pip-audit --requirement .ci/$$pinned.txt --require-hashes --no-deps --disable-pip || exit; \
	done

clean:
	rm -rf $(VENV) $(CLIENTS)

# Installed again only when what is to be installed has changed.
$(STAMP): pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(LOCK),\
		--require-hashes --requirement $(LOCK) && $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation --editable .,--editable . --group dev)
	touch $@

# Four of the clients' packages are source alone: what builds them is pinned too.
$(CLIENTS)/.installed: .ci/clients.txt $(STAMP)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(CLIENTS)
	$(BIN)/uv pip install --quiet --no-cache --python $(CLIENTS)/bin/python --require-hashes --no-deps \
		--requirement .ci/clients.txt --build-constraints .ci/clients.txt
	touch $@

# Each target sets up what it needs; on a machine with Python 3.11+ nothing else has to be there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo up test check bench bench-matching docs requirements clean

setup: $(READY)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it with PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }

$(READY): requirements-dev.txt pyproject.toml | $(BIN)/python
	@echo "Setting up $(VENV) (about a minute, 400 MB) …"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)  ## play the sample reports of Bangka Tengah and count what came of them
	$(BIN)/jangkau demo

up: $(READY)  ## run everything on this machine until Ctrl-C
	$(BIN)/jangkau up

test: $(READY)  ## all tests, on the embedded servers
	$(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal

check: $(READY)  ## lint, types, import rules, generated documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m ops.documents --check

bench: $(READY)  ## figures of this machine, printed as they are measured
	$(BIN)/python -m bench.pipeline
	$(BIN)/python -m bench.gateway

bench-matching: $(READY)  ## a district with 1,000,000 volunteers, against PostGIS where it is installed
	$(BIN)/python -m bench.matching

docs: $(READY)  ## write the generated documents anew
	$(BIN)/python -m ops.documents

requirements: | $(BIN)/python  ## pin the dependencies of pyproject.toml anew
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --extra dev -c requirements.txt pyproject.toml -o requirements-dev.txt

clean:
	rm -rf $(VENV) .cache .jangkau

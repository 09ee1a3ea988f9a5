# Two commands for a fresh clone: `make demo` and `make test`. Both install first, once.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PLATFORM := $(VENV)/.platform
STAMP := $(VENV)/.installed
# Test processes at a time, of unit and parity tests; a file of tests stays in one of them. Integration tests run
# alone: each of them starts a Ray that takes both cores, and what they time is killed and restarted.
PARALLEL ?= 2

.PHONY: demo test quick check bench format clean

demo: $(PLATFORM)
	$(BIN)/poma demo

test: $(STAMP) check
	$(BIN)/pytest -n $(PARALLEL) --dist loadfile --durations=40 tests/unit tests/parity
	$(BIN)/pytest --durations=40 tests/integration

# What starts no processes of its own: minutes instead of most of an hour.
quick: $(STAMP)
	$(BIN)/pytest -n $(PARALLEL) --dist loadfile -m "not slow"

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/unit/test_architecture.py

# All benchmarks that need no hours, in short settings: about twenty minutes. SCAN=FOLDER adds those that need
# a scan in the layout of 7-Scenes.
bench: $(STAMP)
	$(BIN)/python -m benchmarks.all $(if $(SCAN),--scan $(SCAN))

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# pip would compile everything in one process. What is left out no command imports, or a few small files of it.
UNCOMPILED := tests?|torch/testing/_internal|transformers/models/[^abc][^/]*|fontTools|botocore|aiobotocore|$\
	pip|pygments|ray/rllib|ray/serve|ray/llm
$(PLATFORM): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -qq --disable-pip-version-check --no-compile -e '.[platform]'
# Some packages carry files for other versions of Python, which do not compile.
	@$(BIN)/python -m compileall -qq -j 0 -x '/($(UNCOMPILED))/' $(VENV)/lib || true
	@$(BIN)/python -m compileall -qq -j 0 platform jobs poma3d
	@touch $(PLATFORM)

$(STAMP): $(PLATFORM)
	$(BIN)/pip install -qq --disable-pip-version-check -e '.[dev]'
	@touch $(STAMP)

clean:
	rm -rf $(VENV) .venv-* .pytest_cache .mypy_cache .ruff_cache .hypothesis

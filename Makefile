# `make run` sets everything up and starts the bot; `make test` sets everything up and passes the tests.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Tests run in as many processes; `make test TESTERS=0` runs them in one, which debuggers need. Each takes 2 GB.
TESTERS ?= 2
PYTEST  := $(BIN)/python -m pytest -n $(TESTERS) --dist worksteal

# Two busy thread pools on few cores cost 10-50 times the speed: keep OpenMP's waiting threads asleep.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: run test check format clean

run: $(VENV)/.installed
	$(BIN)/commedia run

test: $(VENV)/.installed-dev
	$(PYTEST)

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST)

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Commedia needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

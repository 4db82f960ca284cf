# Each target sets up what it needs, in .venv. Another interpreter: make PYTHON=python3.12 train
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: setup train test bench lint clean

setup: $(VENV)/.ready

# An installed CPU build of the pinned PyTorch (2.13.0+cpu satisfies the pin) is used as it is.
$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info[:2] < (3, 14) or sys.exit("Engram needs Python 3.11 to 3.13, $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		$$($(PYTHON) -c 'import torch; print("--system-site-packages" * torch.__version__.startswith("2.13.0"))' 2>/dev/null)
	@echo "Installing the pinned packages into $(VENV) ..."
	@PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test]'
	@touch $@

train: setup
	$(BIN)/python train.py experiment=quickstart $(ARGS)

# A worker a core, up to four; a file's tests stay together, since they share what they train.
test: setup
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

# The quick benchmarks, one after the other, on an otherwise idle machine (about 20 minutes).
BENCHMARKS := throughput encoder replay evaluation_throughput episodic event_core
bench: setup
	@PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install -q --disable-pip-version-check -e '.[bench]'
	@for name in $(BENCHMARKS); do echo "benchmarks/$$name.py"; $(BIN)/python benchmarks/$$name.py || exit 1; done
	$(BIN)/python benchmarks/readme.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis *.egg-info

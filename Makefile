# Every target works on a fresh machine with Python 3.11+ and make: it creates .venv when missing.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
CONFIGS := text image audio

.PHONY: demo matrix depth demo-hub test test-all check bench

demo: $(INSTALLED)  ## three tasks, five strategies each, one seed
	@for task in $(CONFIGS); do \
	  $(BIN)/hfbench compare --config recipes/configs/demo_$$task.yaml --seeds 0 || exit $$?; \
	done

matrix: $(INSTALLED)  ## the demo with three seeds
	@for task in $(CONFIGS); do \
	  $(BIN)/hfbench compare --config recipes/configs/demo_$$task.yaml --seeds 0,1,2 || exit $$?; \
	done

depth: $(INSTALLED)  ## what depth buys: networks from scratch and fine-tuning
	$(BIN)/python recipes/depth_study.py

demo-hub: $(INSTALLED)  ## publish the demo's best model on a hub on this machine and ask it
	$(BIN)/python recipes/demo_hub.py

# Two files at a time, in their order; by the number of tests, the long ones would be left for last.
# A file's tests stay together, because some build on those before.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(INSTALLED)  ## the required tests
	$(PYTEST) -m "not slow and not gpu and not network"

test-all: $(INSTALLED)  ## the slow ones too
	$(PYTEST) -m "not gpu and not network"

check: $(INSTALLED)  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(INSTALLED)  ## benchmarks, with the cases where we lose
	$(BIN)/python tests/benchmarks/versus_trainer.py
	$(BIN)/python tests/benchmarks/params_start.py
	$(BIN)/python tests/benchmarks/mnist.py

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "hfbench needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 2; }
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --progress-bar on -e ".[dev]"
	touch $@

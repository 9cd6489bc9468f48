# Every target makes .venv and installs what it needs first.
.PHONY: help setup demo test test-real lint bench compare calibration notebooks clean
.DEFAULT_GOAL := help

PY := .venv/bin/python
export BAYESMIX_SHARED ?= ../shared

# two workers and the sampler's own threads fill the cores: no more threads from inside them
test test-real bench compare calibration: export OMP_NUM_THREADS = 1
test test-real bench compare calibration: export OPENBLAS_NUM_THREADS = 1
test test-real bench compare calibration: export NUMBA_NUM_THREADS = 1

help:
	@echo "make setup      create .venv and install bayesmix in it"
	@echo "make demo       fit the bundled swarm, predict and recommend, into demo-out/"
	@echo "make test       tests that need nothing from outside, doctests included"
	@echo "make test-real  tests on the shared swarms folder (BAYESMIX_SHARED=$(BAYESMIX_SHARED))"
	@echo "make lint       formatting, lint and types"
	@echo "make bench      speed of the kernel, how it grows, and of the model's compilation"
	@echo "make calibration  studies of coverage on simulated swarms: hours, resumed where they stopped"
	@echo "make compare    every law on the same held-out runs, and the README's tables (hours)"
	@echo "make notebooks  run every notebook and keep its outputs"
	@echo "make clean      remove caches, builds and demo-out/; .venv stays"

setup: .venv/.installed

# names of Python are tried by running them: a version manager's shim can exist and still fail
.venv/.installed: pyproject.toml
	@found="none that runs"; python=""; \
	for name in python3 python3.14 python3.13 python3.12 python; do \
		version=$$($$name -c 'import platform; print(platform.python_version())' 2>/dev/null) || continue; \
		if $$name -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then \
			if $$name -c 'import ensurepip, venv' 2>/dev/null; then python=$$name; break; fi; \
			version="$$version without its venv module"; \
		fi; \
		if [ "$$found" = "none that runs" ]; then found="$$version ($$name)"; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "bayesmix needs Python 3.12 or newer; found $$found" >&2; exit 1; \
	fi; \
	if [ ! -x $(PY) ]; then $$python -m venv --clear .venv; fi
	@echo "installing bayesmix in .venv"
	@$(PY) -m pip install -qq --disable-pip-version-check --editable '.[dev,rivals,tinyswarm]'
	@touch $@

demo: setup
	.venv/bin/bayesmix demo

test: setup
	$(PY) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --ignore tests/real

test-real: setup
	$(PY) -m pytest tests/real

lint: setup
	$(PY) -m ruff format --check
	$(PY) -m ruff check
	$(PY) -m mypy

bench: setup
	$(PY) -m benchmarks.speed
	$(PY) -m benchmarks.growth

calibration: setup
	$(PY) -m benchmarks.calibration
	$(PY) -m benchmarks.misspecified
	$(PY) -m benchmarks.recovery

compare: setup
	$(PY) -m benchmarks.compare
	$(PY) -m benchmarks.compare --laws transfer regression quantization
	$(PY) -m benchmarks.tables

notebooks: setup
	.venv/bin/jupyter-execute --inplace notebooks/*.ipynb

clean:
	rm -rf build dist demo-out .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@# the machine code of models, into which kernels are linked
	@if [ -x $(PY) ]; then $(PY) -c "import pytensor, shutil; \
		shutil.rmtree(f'{pytensor.config.compiledir}/bayesmix', ignore_errors=True)"; fi
	find . -name .venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

.DEFAULT_GOAL := help
.PHONY: help setup test test-slow test-nightly properties lint types floors format check calibration bench docs notebooks demo clean

RUN := uv run

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## make the environment from the lock file, install the commit hooks
	uv sync --locked --compile-bytecode
	$(RUN) pre-commit install

test:  ## unit tests and doctests (five to eight minutes on two cores)
	$(RUN) pytest

test-slow:  ## the tests marked slow
	$(RUN) pytest -m "slow and not alone" --dist=load --maxschedchunk=1
	$(RUN) pytest -m "slow and alone" -n 0

test-nightly:  ## the notebooks that take some minutes each, compared with what they say, and the study of OzNet
	$(RUN) pytest -m nightly -n 0

properties:  ## property tests with 1,000 new examples each
	$(RUN) pytest $$(grep -rl "from hypothesis" tests) --hypothesis-profile=new

lint:  ## ruff: rules and format
	$(RUN) ruff check
	$(RUN) ruff format --check

types:  ## mypy
	$(RUN) mypy

floors:  ## import-linter: a layer imports only from the layers below it
	$(RUN) lint-imports

format:  ## let ruff mend what it can and format
	$(RUN) ruff check --fix
	$(RUN) ruff format

check: lint types floors test  ## everything that a commit must pass

calibration:  ## coverage and ranks of known truths over many simulated data sets (an hour or more)
	$(RUN) pytest -m calibration --timeout=0

bench:  ## timings, one case after the other, and a table of them (half an hour)
	$(RUN) pytest tests/benchmarks -m benchmark --timeout=0 -n 0 --dist=no --benchmark-quiet -s

docs:  ## the documentation site, in build/docs (DOCS_ONLINE=1 links to other projects)
	$(RUN) --group docs sphinx-build --fresh-env --fail-on-warning --keep-going --quiet docs build/docs

notebooks:  ## execute the notebooks in place
	$(RUN) jupyter execute --inplace notebooks/*.ipynb

demo:  ## the whole job on a simulated region, written to demo/
	$(RUN) bayesens demo --out demo

clean:  ## remove caches, builds and the demo's output
	rm -rf build dist demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find bayesens models tests -name __pycache__ -type d -prune -exec rm -rf {} +

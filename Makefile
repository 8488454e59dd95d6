# `make serve` runs the server on this machine's own metrics; `make test` passes every test; `make bench` compares;
# `make dist` builds what is released.
# Everything is installed into .venv from the locked versions in requirements/.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
DATA ?= streamgauge-data
MINUTES ?= 5
# A plugin that comes with a framework, and that no test uses, takes a second to load.
PYTEST := $(BIN)/python -m pytest -p no:faker
# Half as many again as there are cores: most tests wait for processes of theirs.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(max(2, (os.cpu_count() or 2) * 3 // 2))')
COMPILE := $(BIN)/uv pip compile --quiet --universal --no-header --no-annotate --no-emit-index-url --generate-hashes \
	--python-version 3.11

.PHONY: serve test thorough bench soak agree fuzz demo-federation demo-pollers dist lock clean

serve: $(VENV)/run
	$(BIN)/streamgauge serve --data $(DATA)

test: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -n $(WORKERS) --dist loadfile

bench: $(VENV)/dev
	$(BIN)/python -m bench

soak: $(VENV)/dev
	$(BIN)/python -m bench.soak --minutes $(MINUTES)

agree: $(VENV)/dev
	$(BIN)/python -m bench.agree --minutes $(MINUTES)

# Every case and many more examples, where the suite takes some: an hour or more.
thorough: $(VENV)/dev
	HYPOTHESIS_PROFILE=thorough $(PYTEST) -n $(WORKERS) --dist loadfile --timeout 3600

fuzz: $(VENV)/dev
	HYPOTHESIS_PROFILE=long $(PYTEST) -k "fuzz or faults" --timeout 3600

# With FROM=URL and TOKEN=… on a Prometheus of yours; with OUTAGE=20 the server is away for 20 s.
demo-federation: $(VENV)/dev
	$(BIN)/python -m demo.federation $(if $(OUTAGE),--outage $(OUTAGE)) $(if $(FROM),--from '$(FROM)') $(if $(TOKEN),--token '$(TOKEN)')

# An application behind Caddy, a relay and a data reader. With TRAFFIC=60 it takes longer.
demo-pollers: $(VENV)/dev
	$(BIN)/python -m demo.pollers $(if $(TRAFFIC),--seconds $(TRAFFIC))

# Twice the same bytes: the build tools are locked, and write no time of their own.
dist: $(VENV)/dev
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist
	$(BIN)/python packaging/check_dist.py dist

lock: $(VENV)/dev
	$(COMPILE) pyproject.toml --group build --group dev -o requirements/dev.txt
	$(COMPILE) pyproject.toml -c requirements/dev.txt -o requirements/run.txt
	$(COMPILE) --group build -c requirements/dev.txt -o requirements/build.txt

$(VENV)/made:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/run: $(VENV)/made requirements/run.txt pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

$(VENV)/dev: $(VENV)/made requirements/dev.txt pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

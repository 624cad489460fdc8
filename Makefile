.PHONY: setup run demo test test-fast check wheel package-test storm bench bench-quick lock clean
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin

help:
	@echo "make demo    install, start, post November 2025 and show its books"
	@echo "make run     install and start the service"
	@echo "make test    install and run every test and check"
	@echo "make test-fast  what needs neither processes nor PostgreSQL, with few random examples"
	@echo "make check   lint, types and imports only"
	@echo "make wheel   build dist/daybook-*.whl    make package-test  install it elsewhere and try it"
	@echo "make storm   kill, pause and restart everything under load: SECONDS=600 RUNS=5 SEED=7"
	@echo "make bench   measure everything beside its baseline    make bench-quick  what is measured in 3 minutes"
	@echo "make setup   install only      make lock  renew the pinned versions"

# Runtime packages for run and demo, all of them for the rest; each from its lock file, which is complete, with hashes.
.venv/.runtime: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Daybook needs Python 3.11 or later")'
	@echo "Installing Daybook's packages into .venv (about a minute, once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@
	@echo "Installed$(if $(NEXT),; $(NEXT) ...,.)"

.venv/.dev: .venv/.runtime requirements-dev.txt
	@echo "Installing the packages of tests and checks into .venv (some minutes, once) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.txt
	@touch $@

setup: .venv/.dev

run: NEXT := now starting the service
run: .venv/.runtime
	@$(BIN)/daybook run

demo: NEXT := now starting the service, then posting November 2025
demo: .venv/.runtime
	@$(BIN)/daybook demo

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Byte code is kept, whatever the environment says: tests start hundreds of processes of it.
test test-fast: export PYTHONDONTWRITEBYTECODE =

test: check
	$(BIN)/pytest -n 4 --dist worksteal  # more than there are processors: many tests wait for processes

test-fast: .venv/.dev
	TEST_EFFORT=0.05 $(BIN)/pytest -n 2 --dist worksteal -m "not slow"

# Without what an earlier build left: setuptools would take it in.
wheel: .venv/.runtime
	rm -rf build dist
	$(BIN)/python -m pip wheel -q --disable-pip-version-check --no-build-isolation --no-deps -w dist .

package-test: .venv/.dev wheel
	$(BIN)/pytest tests/package/wheel.py

storm: .venv/.dev
	STORM_SECONDS=$(SECONDS) STORM_RUNS=$(RUNS) STORM_SEED=$(SEED) $(BIN)/pytest -s tests/storm/test_storm.py

bench: .venv/.dev
	$(BIN)/python -m bench

# Fails if a ratio to its baseline fell under half of what bench/floors.json holds.
bench-quick: .venv/.dev
	$(BIN)/python -m bench --quick

lock: .venv/.dev
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv pip compile -q $(LOCK) --group build -o requirements.txt
	$(BIN)/uv pip compile -q $(LOCK) --group dev -o requirements-dev.txt
LOCK := --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate pyproject.toml \
	--no-emit-find-links\
	--no-emit-index-url

clean:
	rm -rf .venv var

# The front door. Every target sets up what it needs; all can be run twice.
.PHONY: demo demo-containers up test test-distributed test-containers images check bench docs clean lock
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# What needs servers; unit and contract tests are the same wherever they run.
ON_SERVERS := tests/chaos tests/e2e tests/integration
# Tests wait more than they compute: more run beside each other than there are cores. Those of a file share servers.
BESIDE := --numprocesses 3 --dist loadfile --no-loadscope-reorder

help:  ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(READY)  ## Files land, pipelines run, tests judge: the whole path on the embedded stack, then it ends
	$(BIN)/rat demo

demo-containers: images  ## The same through compose, on containers of its own; needs an engine, as Docker
	infra/images/demo.sh $(BIN)/rat

up: $(READY)  ## Start the platform and leave it running
	$(BIN)/rat up

test: $(READY)  ## Unit, contract, integration, e2e and kill tests on the embedded stack
	$(BIN)/pytest $(BESIDE)

test-distributed: $(READY)  ## Integration, e2e and kill tests on NATS x 3, MinIO, Nessie and PostgreSQL as processes
	$(BIN)/rat servers fetch
	$(BIN)/pytest $(BESIDE) --stack distributed $(ON_SERVERS)

test-containers: images  ## The same on containers; needs an engine, as Docker
	$(BIN)/pytest $(BESIDE) --stack containers $(ON_SERVERS)

images: $(READY)  ## Build the container images of the services and the servers
	$(BIN)/python -m infra.images

check: $(READY)  ## Format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)  ## Measure the run path and the data path beside the floor
	$(BIN)/python -m bench

docs: $(READY)  ## Write what is generated: golden schemas, AsyncAPI documents, the event table
	$(BIN)/python -m infra.documents

lock: $(READY)  ## Resolve the dependencies anew
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --no-annotate --extra embedded --extra distributed --extra demo --group dev pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --no-annotate --constraint requirements.lock pyproject.toml -o infra/images/requirements.lock

clean:  ## Remove the virtual environment and the caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "RAT needs Python 3.11, 3.12 or 3.13; this is %d.%d. Try: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

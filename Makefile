PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-real-vllm test-clients lint format bench bench-routing bench-release bench-real-vllm lock clean

# ---- for users ----

demo: $(VENV)/.runtime            ## a mixed fleet, the router in front of it, real traffic; KEEP=1 stays up
	$(BIN)/turnout demo $(if $(KEEP),--keep)

test: $(VENV)/.test               ## the whole fast suite
	$(BIN)/python -m pytest -m "not slow and not real_vllm"

test-slow: $(VENV)/.test          ## what takes minutes
	$(BIN)/python -m pytest -m slow

test-real-vllm: $(VENV)/.test     ## against two real vLLM replicas on the CPU; the first run takes minutes and 3.5 GB
	$(BIN)/python tests/real_vllm/environment.py --into .venv-vllm
	$(BIN)/python -m pytest -m real_vllm tests/real_vllm

test-clients: $(VENV)/.test       ## litellm and guidellm through the router; the first run takes minutes and 2 GB
	$(BIN)/python -m tests.clients.environment --into .venv-clients
	$(BIN)/python -m pytest -m slow tests/clients

bench: $(VENV)/.runtime           ## requests and SSE chunks per CPU-second beside vllm-router, sglang-router, nginx; ARGS="--quick"
	$(BIN)/turnout bench $(ARGS)

bench-routing: $(VENV)/.runtime   ## the goals of routing under virtual time; TRACES=folder, ARGS="--quick", see --help
	$(BIN)/turnout bench-routing $(if $(TRACES),--traces $(TRACES)) $(ARGS)

bench-release: $(VENV)/.runtime   ## releases of generated requests, decided by the shipped analysis; ARGS="--releases 50", see --help
	$(BIN)/turnout bench-release $(ARGS)

bench-real-vllm: $(VENV)/.runtime ## routing before four real vLLM replicas on the CPU, beside vllm-router and sglang-router; a quarter of an hour
	$(BIN)/python tests/real_vllm/environment.py --into .venv-vllm
	$(BIN)/turnout bench-real-vllm --vllm .venv-vllm/bin/vllm $(ARGS)

lint: $(VENV)/.test               ## format check, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock:                             ## renew both lock files; needs `pip install uv`
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links pyproject.toml --extra build -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links pyproject.toml --extra build --extra test -o requirements-test.lock

clean:
	rm -rf $(VENV) .venv-* var

# ---- environments: one folder, grown from `runtime` to `test` ----

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.test: requirements-test.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --require-hashes -r requirements-test.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

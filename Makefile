# `make serve` and `make test` do everything on a fresh machine; the others are for those who work on it.

PYTHON ?= python3
PORT ?= 3000
HOST ?= 127.0.0.1
DATA_DIR ?= ../shared/data
BENCH_HOME ?= $(HOME)/.cache/brigantine-bench
BENCH_MODEL ?= mnist
VENV := .venv
BIN := $(VENV)/bin
export BENTOML_DO_NOT_TRACK := True

.PHONY: serve test check fix scores bench bench-text soak lifecycle gpu bento image image-gpu image-test plugin-image deploy-check clean

serve: $(VENV)/.serve  ## Serve the models that are there; the shipped `mnist` always is.
	$(BIN)/brigantine serve --host $(HOST) --port $(PORT)

test: $(VENV)/.test check  ## Linters and all tests.
	$(BIN)/pytest

check: $(VENV)/.test  ## Linters, types and import contracts.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

fix: $(VENV)/.test  ## Format, and mend what can be mended.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

scores: $(VENV)/.test  ## Judge the shipped models again and write their cards.
	$(BIN)/brigantine-train evaluate plugins/brigantine_image/models/mnist --data-dir $(DATA_DIR) --write
	$(BIN)/brigantine-train evaluate plugins/brigantine_text/models/shakespeare --data-dir $(DATA_DIR) --write

bench: $(VENV)/.test  ## The product beside other model servers, about an hour for BENCH_MODEL; needs wrk.
	$(BIN)/python benchmarks/serving.py --home $(BENCH_HOME) --model $(BENCH_MODEL)

bench-text: $(VENV)/.test  ## Text beside transformers and onnxruntime-genai, some 7 minutes.
	$(BIN)/python benchmarks/text.py --home $(BENCH_HOME)

soak: $(VENV)/.test  ## What only time shows, some 7 minutes: memory, rest, overload; needs wrk.
	$(BIN)/python benchmarks/soak.py --home $(BENCH_HOME)

lifecycle: $(VENV)/.test  ## Restarts and kills under load, and what is counted then, some 3 minutes; needs haproxy.
	$(BIN)/python benchmarks/lifecycle.py

gpu: $(VENV)/.serve  ## Swap ONNX Runtime for its CUDA build; `make clean` undoes it.
	$(BIN)/pip uninstall --quiet --yes onnxruntime onnxruntime-gpu
	$(BIN)/pip install --quiet --constraint constraints.txt 'onnxruntime-gpu[cuda,cudnn]'
	touch $(VENV)/.gpu

bento: $(VENV)/.serve  ## Pack the service into a Bento.
	$(BIN)/bentoml build

image: $(VENV)/.serve  ## Build the container image `brigantine`, with docker or podman.
	deploy/image/build cpu brigantine

image-gpu: $(VENV)/.serve  ## Build `brigantine:gpu`, for CUDA.
	deploy/image/build cuda brigantine:gpu

image-test: $(VENV)/.test  ## Build the image and hold its container to what docs/deploy.md promises.
	deploy/image/test

plugin-image:  ## Add a plugin to the image: PLUGIN=./my-plugin makes `brigantine:my-plugin`.
	deploy/image/plugin "$(PLUGIN)" "brigantine:$(notdir $(abspath $(PLUGIN)))"

deploy-check: $(VENV)/.test  ## Hold what is in deploy/ against its schemas and against the product.
	$(BIN)/python deploy/check.py

clean:  ## Remove the environment.
	rm -rf $(VENV)

$(VENV)/.serve: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13) and "Brigantine needs Python 3.10 to 3.13: make PYTHON=python3.12 serve")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@
	test ! -e $(VENV)/.gpu || $(MAKE) gpu

$(VENV)/.test: $(VENV)/.serve
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train,dev]'
	touch $@
	test ! -e $(VENV)/.gpu || $(MAKE) gpu

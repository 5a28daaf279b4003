PROFILE ?= quick
EXTRAS := lab,faces,onnx,browser,dev
VENV := .venv
READY := $(VENV)/.installed
# The newest Python that really runs: a name on PATH may be a shim without a Python behind it.
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3 python; do \
	"$$name" -c 'import sys, venv, ensurepip; \
	sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1 \
	&& command -v "$$name" && break; done)

.PHONY: run test test-slow test-backends lab versions
.DEFAULT_GOAL := run

run: $(READY)  ## all notebooks in order: make run [PROFILE=quick] [DATA=path] [NAME=x]
	$(VENV)/bin/python -m ferlib run --profile "$(PROFILE)" \
		$(if $(DATA),--data "$(DATA)") $(if $(NAME),--name "$(NAME)")

test: $(READY)  ## every quick test and the seven notebooks in profile smoke
	$(VENV)/bin/python -m pytest --durations 10

test-slow: $(READY)  ## what needs longer, or a browser
	$(VENV)/bin/python -m pytest --durations 10 -m "slow or browser"

BACKENDS := jax
test-backends: $(READY)  ## training without TensorFlow, on several devices: BACKENDS="jax torch"
	for backend in $(BACKENDS); do \
		"$(PYTHON)" -m venv $(VENV)-$$backend && $(VENV)-$$backend/bin/pip install -q \
		-c constraints.txt keras numpy pandas scipy h5py scikit-learn pillow tqdm filelock \
		kagglehub opencv-python-headless $$backend || exit 1; done
	FERLIB_JAX_PYTHON=$(CURDIR)/$(VENV)-jax/bin/python \
		FERLIB_TORCH_PYTHON=$(if $(filter torch,$(BACKENDS)),$(CURDIR)/$(VENV)-torch/bin/python) \
		$(VENV)/bin/python -m pytest -m "slow or not slow" --durations 10 tests/test_backends.py

lab: $(READY)  ## JupyterLab in the folder of notebooks
	$(VENV)/bin/jupyter lab --notebook-dir notebooks

versions: $(READY)  ## the tests with the oldest versions that pyproject.toml allows
	$(VENV)/bin/python -m pip install -q uv
	$(VENV)/bin/uv venv -q --clear --python 3.11 $(VENV)-oldest
	$(VENV)/bin/uv pip install -q --python $(VENV)-oldest --resolution lowest-direct \
		-e '.[lab,faces,onnx,dev]'
	$(VENV)-oldest/bin/python -m pytest --durations 10

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 with venv was found on PATH." \
		"Install one (on Debian: python3 and python3-venv), or name it: make PYTHON=/path/to/python" \
		>&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

PROFILE ?= quick
PY ?= 3.11
BACKENDS ?= jax
EXTRAS := lab,faces,video,onnx,heic,browser,dev
VENV := .venv
READY := $(VENV)/.installed
# The newest Python that really runs: a name on PATH may be a shim without a Python behind it.
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3 python; do \
	"$$name" -c 'import sys, venv, ensurepip; \
	sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1 \
	&& command -v "$$name" && break; done)

.PHONY: help run test test-slow test-backends lab book versions
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

run: $(READY)  ## all notebooks in order: make run [PROFILE=quick] [DATA=path] [NAME=x]
	$(VENV)/bin/python -m ferlib run --profile "$(PROFILE)" \
		$(if $(DATA),--data "$(DATA)") $(if $(NAME),--name "$(NAME)")

test: $(READY)  ## every quick test, and the notebooks in profile smoke
	$(VENV)/bin/python -m pytest --durations 10

test-slow: $(READY)  ## what needs longer, or a browser
	$(VENV)/bin/python -m pytest --durations 10 -m "slow or browser"

lab: $(READY)  ## JupyterLab in the folder of notebooks
	$(VENV)/bin/python -m jupyter lab --notebook-dir notebooks

book: $(VENV)/.book  ## the site: notebooks on drawn faces, guide, API, in build/book/html
	$(VENV)/bin/python docs/book.py

# What pyproject.toml lists, with the backend in place of TensorFlow.
WANTED := import sys, tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	print(*[line for line in project["dependencies"] if not line.startswith("tensor")], \
	*project["optional-dependencies"][sys.argv[1]], sep="\n")

test-backends: $(READY)  ## training without TensorFlow: make test-backends [BACKENDS="jax torch"]
	for backend in $(BACKENDS); do \
		"$(PYTHON)" -m venv $(VENV)-$$backend \
		&& $(VENV)/bin/python -c '$(WANTED)' $$backend > $(VENV)-$$backend/wanted.txt \
		&& $(VENV)-$$backend/bin/python -m pip install -q -c constraints.txt \
			-r $(VENV)-$$backend/wanted.txt || exit 1; done
	FERLIB_JAX_PYTHON="$(if $(filter jax,$(BACKENDS)),$(CURDIR)/$(VENV)-jax/bin/python)" \
		FERLIB_TORCH_PYTHON="$(if $(filter torch,$(BACKENDS)),$(CURDIR)/$(VENV)-torch/bin/python)" \
		$(VENV)/bin/python -m pytest -m "slow or not slow" --durations 10 tests/test_backends.py

# The oldest versions can be installed on Python 3.11 only; newer Pythons get the newest.
OLDEST := $(if $(filter 3.11,$(PY)),--resolution lowest-direct,-c constraints.txt)
versions: $(READY)  ## the tests with the oldest versions allowed; make versions PY=3.13: there
	$(VENV)/bin/python -m pip install -q uv
	$(VENV)/bin/python -m uv venv -q --clear --python $(PY) $(VENV)-$(PY)
	$(VENV)/bin/python -m uv pip install -q --python $(VENV)-$(PY) $(OLDEST) \
		-e '.[lab,faces,video,onnx,heic,dev]'
	$(VENV)-$(PY)/bin/python -m pytest --durations 10

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 with venv was found on PATH." \
		"Install one (on Debian: python3 and python3-venv), or name it: make PYTHON=/path/to/python" \
		>&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.book: $(READY)
	$(VENV)/bin/python -m pip install -q -c constraints.txt -e '.[$(EXTRAS),book]'
	@touch $@

# make demo: set up, export the bundled model, explain the bundled picture, say where the heatmap is.
# make test: set up with all that the tests need; style, types, tests.
# Needs Python 3.10 or later, make and a C++ compiler; everything else goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := setup.py pyproject.toml CMakeLists.txt $(wildcard csrc/*)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint bench clean

demo: $(VENV)/.demo
	$(BIN)/fastcam demo

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# opencv-python needs the system's libGL; where that is missing its headless twin holds the same module
$(VENV)/.demo: $(NATIVE) | $(BIN)/python
	$(PIP) --editable ".[cpu,export]"
	$(BIN)/python -c "import cv2" 2>/dev/null || { $(PIP) opencv-python-headless; }
	touch $@

# torch is the oracle of the tests and nothing else; torchvision without its needs, as only its model definitions are used
$(VENV)/.test: $(VENV)/.demo
	$(PIP) torch==2.13.0
	$(PIP) --no-deps torchvision==0.28.0
	$(PIP) --editable ".[cpu,export,test]"
	$(BIN)/python -c "import cv2" 2>/dev/null || { $(PIP) --force-reinstall --no-deps opencv-python-headless; }
	touch $@

clean:
	rm -rf build dist demo *.egg-info fastcam/_native*.so

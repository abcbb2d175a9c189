# make demo: set up, export the bundled models, explain classes, a caption and an answer, say where the heatmaps are.
# make test: set up with all that the tests need; style, types, and every test that a change needs.
# make test-all: the same, then sanitizers, emulators, builds and the largest networks, and ten times as many random examples.
# make coverage: which lines and branches of fastcam and fastcam_export the tests reach, for the documents.
# make cases: ten thousand random cases, hostile ones among them, on every kernel backend; two minutes.
# make audit: licences of what users install, and weaknesses that are known of it.
# make fuzz SECONDS=60: hostile inputs of every class; what is found lies in build/fuzz.
# make soak: 2,000 calls, 300 Explainers, then 32 threads for five minutes: memory and answers stay.
# make bench: set up the peers as well, measure what README and docs say of speed, and write it there; an hour on two cores.
# make wasm: build the kernels for browsers anew, csrc/wasm/package/kernels.wasm.
# make docs: build the documents as a site in build/site; it needs no network to be read.
# Needs Python 3.10 or later, make and a C++ compiler; everything else goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := setup.py pyproject.toml CMakeLists.txt $(shell find csrc -type f)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test suite test-all coverage lint cases audit fuzz soak bench wasm docs clean

demo: $(VENV)/.demo
	$(BIN)/fastcam demo

# a thread for each worker: more would wait for each other
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

# both at once, as types are checked by one processor
test: $(VENV)/.test
	$(MAKE) --no-print-directory -j 2 lint suite

suite: $(VENV)/.test
	$(PYTEST) -m "not slow"

test-all: test
	FASTCAM_TEST_EXAMPLES=10 $(PYTEST) -m "slow or property"
	$(MAKE) --no-print-directory audit fuzz SECONDS=60

coverage: $(VENV)/.test
	mkdir -p build/coverage
	$(PYTEST) -m "not slow" --cov --cov-report=json:build/coverage/report.json
	PYTHONPATH=bench $(BIN)/python -m fastcam_bench.report.coverage build/coverage/report.json

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=bench $(BIN)/lint-imports

cases: $(VENV)/.test
	$(BIN)/python tests/support/kernel_cases.py --cases 10000 --json bench/results/kernels/kernel_cases.json

SECONDS := 60
fuzz: $(VENV)/.fuzz
	$(BIN)/python -m fastcam_bench.fuzz --seconds $(SECONDS)

soak: $(VENV)/.test
	$(BIN)/python -m fastcam_bench.speed.soak --json bench/results/robustness/soak.json

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# opencv-python needs the system's libGL; where that is missing its headless twin holds the same module
$(VENV)/.demo: $(NATIVE) bench/pyproject.toml | $(BIN)/python
	$(PIP) --editable ".[cpu,export,language]"
	$(PIP) --no-deps --editable bench
	$(BIN)/python -c "import cv2" 2>/dev/null || { $(PIP) opencv-python-headless; }
	touch $@

# torch is the oracle of the tests and nothing else; torchvision without its needs, as only its model definitions are used
$(VENV)/.test: $(VENV)/.demo
	$(PIP) torch==2.13.0
	$(PIP) --no-deps torchvision==0.28.0
	$(PIP) --editable ".[cpu,export,test]"
	$(BIN)/python -c "import cv2" 2>/dev/null || { $(PIP) --force-reinstall --no-deps opencv-python-headless; }
	touch $@

# pip-audit needs packages that nothing else here does; without it, or its service, the licences are checked alone
audit: $(VENV)/.audit
	$(BIN)/python tests/repository/dependencies.py $(VENV)/audit/bin/pip-audit

$(VENV)/.audit: $(VENV)/.test
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit || echo "without pip-audit"
	touch $@

# libFuzzer for Python has wheels for Linux alone, and not for every Python
$(VENV)/.fuzz: $(VENV)/.test
	$(PIP) --only-binary :all: atheris || echo "inputs are changed blindly, without atheris"
	touch $@

# the peers get environments of their own under .venv/bench: fastcam_bench/speed/networks/environments.py
$(VENV)/.bench: $(VENV)/.test bench/fastcam_bench/speed/networks/environments.py
	$(PIP) --editable ".[cpu,export,test]" --editable bench
	$(BIN)/python -c "import cv2" 2>/dev/null || { $(PIP) --force-reinstall --no-deps opencv-python-headless; }
	$(BIN)/python -m fastcam_bench.speed.networks.environments
	touch $@

# nothing else should run on the machine meanwhile
bench: $(VENV)/.bench
	$(BIN)/python -m fastcam_bench.speed
	$(BIN)/python -m fastcam_bench.speed.lowerings
	$(BIN)/python -m fastcam_bench.speed.on_demand
	$(BIN)/python -m fastcam_bench.speed.layouts
	$(BIN)/python -m fastcam_bench.speed.export_time
	$(BIN)/python -m fastcam_bench.speed.kernels --seconds 1.2 --json bench/results/kernels/kernels.json
	$(BIN)/python -m fastcam_bench.report

# the version stands in csrc/wasm/build.py: another one gives other bytes
wasm: | $(BIN)/python
	$(PIP) ziglang==0.17.1
	$(BIN)/python csrc/wasm/build.py

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.docs: $(VENV)/.demo
	$(PIP) --editable ".[docs]"
	touch $@

clean:
	rm -rf build dist demo *.egg-info fastcam/_native*.so

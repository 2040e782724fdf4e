# make help lists what there is. Every file in targets/ is a target of its own name.
PYTHON ?= python3
MODEL ?= efficientnet_lite0
RUN_ARGS ?=
GROUPS ?=
RUN ?= runs/$(notdir $(basename $(MODEL)))
BIN := .venv/bin
TARGETS := $(basename $(notdir $(wildcard targets/*.toml)))

.DEFAULT_GOAL := help
.PHONY: help setup demo fast-demo test check bench bench-compression readme clean all-targets emulator browser-setup web-app $(TARGETS)

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z$$()A-Z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST)) | sed 's/$$(TARGETS)/DEVICE    /'
	@echo "  devices: $(TARGETS)"
	@echo "  MODEL=NAME chooses the recipe [$(MODEL)]; RUN_ARGS=... goes to edgecv run, such as RUN_ARGS='--data photos'"

setup: .venv/installed ## make .venv with what requirements.lock pins

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "edgecv needs Python 3.11 or newer; got $$($(PYTHON) --version). Try: make PYTHON=python3.12 ..." >&2; exit 3; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## train, compress, verify and measure EfficientNet-Lite0 on photographs of solar cells
	$(BIN)/edgecv run models/efficientnet_lite0.toml --target linux-litert --target linux-openvino $(RUN_ARGS)

fast-demo: setup ## the same network as fast as it gets: channels removed, distilled, trained with quantization
	$(BIN)/edgecv run models/efficientnet_lite0_fast.toml --target linux-litert --target linux-openvino $(RUN_ARGS)

$(TARGETS): setup ## build, verify and measure MODEL on a device, and write its bundle
	$(BIN)/edgecv run $(MODEL) --target $@ --out runs/$(notdir $(basename $(MODEL)))-$@ --bundle $(RUN_ARGS)

all-targets: setup ## build, verify and measure MODEL on every device that can be reached now, in one table
	$(BIN)/edgecv run $(MODEL) --all-targets --out runs/$(notdir $(basename $(MODEL)))-all-targets --bundle $(RUN_ARGS)

emulator: setup ## set up the emulated ARM processors, 64 and 32 bits, without root
	$(BIN)/edgecv setup-device arm64-emulated
	$(BIN)/edgecv setup-device armv7-emulated

browser-setup: setup ## fetch LiteRT.js by npm, for the target browser
	$(BIN)/edgecv setup-device browser

web-app: setup ## show the web app of a run's bundle, made if there is none, in a browser here; RUN=runs/NAME
	@ls $(RUN)/bundles/*/model.tflite >/dev/null 2>&1 || $(BIN)/edgecv bundle $(MODEL) --target linux-litert --out $(RUN) --no-drift $(RUN_ARGS)
	@$(BIN)/edgecv setup-device browser || echo "no Chromium is needed to look at the page"
	$(BIN)/edgecv serve $(RUN)

test: setup ## run all tests
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

check: setup ## ruff, mypy and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

bench: setup ## measure what the README claims, and write benchmarks/results/
	$(BIN)/python -m benchmarks.figures

bench-compression: setup ## measure what the compression steps buy, for an hour or more; GROUPS=... for some of it
	$(BIN)/python -m benchmarks.compression $(GROUPS)

readme: setup ## write the tables of README.md and docs/ from benchmarks/results/
	$(BIN)/python -m benchmarks.readme

clean: ## remove .venv and runs/
	rm -rf .venv runs

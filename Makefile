# LeRay: `make demo` sets up and trains, `make test` proves it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.leray-installed
export RAY_USAGE_STATS_ENABLED = 0

.DEFAULT_GOAL := help
.PHONY: help install gl browser demo test test-slow lint format type bench bench-data bench-imitation check clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

install: $(STAMP) ## make the virtual environment

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "LeRay needs Python 3.11 to 3.13; give one with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# Rendering needs EGL or OSMesa. Installed where this user may; otherwise runs go on without video.
gl:
	@ldconfig -p | grep -qE 'libEGL.so|libOSMesa.so' \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && { apt-get update -qq; apt-get install -qq -y --no-install-recommends libegl1 libgl1 libosmesa6 >/dev/null; }; } \
	  || echo 'no EGL or OSMesa found and not allowed to install it: runs go on without video'

# The tests of the dataset viewer need a browser. Installed where this user may; otherwise skipped.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && { apt-get update -qq; apt-get install -qq -y --no-install-recommends chromium >/dev/null; }; } \
	  || echo 'no Chromium found and not allowed to install it: tests of the dataset viewer are skipped'

demo: $(STAMP) gl ## install, record demonstrations, train, evaluate, show what is next
	rm -rf outputs/demo
	$(BIN)/leray record --env.type=gym --env.task=PandaPickAndPlace-v3 --policy.type=expert \
	  --dataset.root=outputs/demo/dataset --dataset.num_episodes=25
	$(BIN)/leray train --config_path=examples/panda_pick_and_place.yaml \
	  --dataset.root=outputs/demo/dataset --output_dir=outputs/demo/train --job_name=demo
	$(BIN)/leray eval --policy.path=outputs/demo/train --output_dir=outputs/demo/eval \
	  --eval.n_episodes=100 --eval.max_episodes_rendered=2 --seed=5000
	@cat examples/what_next.txt

test: $(STAMP) gl browser ## fast tests
	$(BIN)/python -m pytest -m 'not slow' -q --durations=20

test-slow: $(STAMP) gl ## learning, long fault runs
	$(BIN)/python -m pytest -m slow -q --timeout=3600 --durations=20

lint: $(STAMP) ## style, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell leray tests docs benchmarks cluster README.md CHANGELOG.md Makefile

format: $(STAMP) ## mend the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(STAMP) ## type check
	$(BIN)/mypy

bench: $(STAMP) ## speed, side by side with peers (installs them in a venv of their own)
	benchmarks/speed/run.sh

bench-imitation: $(STAMP) ## updates of ACT and Diffusion Policy beside LeRobot
	benchmarks/imitation/run.sh

bench-data: $(STAMP) ## datasets: speed and memory beside LeRobot (installed in a venv of its own)
	benchmarks/data/run.sh

check: lint type test ## what CI runs

clean: ## remove the virtual environment and caches, keep outputs
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info

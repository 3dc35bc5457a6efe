# Everything a person or a machine does with this tree: `make` says what there is.
#
# Set-up happens by itself, once: system packages, then the virtual environment. It is done again
# only when setup.cfg changes, and needs no network when all requirements are already there.

PYTHON ?= python3
DIR ?= ./tide
MNT ?= ./mnt
SEEDS ?= 20
BIN := .venv/bin
READY := .venv/.ready
READY_TO_TEST := .venv/.ready-to-test

help:
	@echo 'make mount      set up what is missing, then mount $(DIR) on $(MNT)'
	@echo 'make umount     unmount $(MNT)'
	@echo 'make test       the tests (with a real mount where there is a /dev/fuse)'
	@echo 'make check      style, types, and who may import whom'
	@echo 'make simulate   a cluster with faults, in one process: SEEDS=$(SEEDS)'
	@echo 'make campaign   hours of real programs and real kills on real mounts (root; fio, stress-ng)'
	@echo 'make bench      measure $(MNT) beside a local folder: BENCH="--quick" for a short one'

mount: mounted
	@echo
	@echo 'Try next:  cp -a README.md docs $(MNT)/ && ls -l $(MNT)'
	@echo '           $(BIN)/tidefs status $(DIR)'
	@echo '           make umount; make mount; ls -l $(MNT)   # it is all still there'

mounted: $(READY)
	@mkdir -p $(MNT)
	@if mountpoint -q $(MNT); then echo '$(MNT) is mounted already'; \
	else $(BIN)/tidefs mount $(DIR) $(MNT); fi

umount: $(READY)
	@$(BIN)/tidefs umount $(MNT)

test: $(READY_TO_TEST)
	$(BIN)/pytest

check: $(READY_TO_TEST) build/import/tidefs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $$($(BIN)/python tests/tidy/packages.py)
	$(BIN)/lint-imports --no-logo

simulate: $(READY_TO_TEST)
	$(BIN)/python tests/sim/run.py --seeds $(SEEDS)

# Any source distribution will do; Django's is large, and has files of every size.
TARBALLS := build/tarballs
$(TARBALLS): | .venv/bin/python
	$(BIN)/pip download -q --no-deps --no-binary :all: --dest $@.new django
	@mv $@.new $@

campaign: $(READY_TO_TEST) | $(TARBALLS)
	$(BIN)/python tests/campaign/acceptance.py all --tarball $$(ls $(TARBALLS)/*.tar.gz | head -1)

bench: mounted
	$(BIN)/python tests/bench/table.py $(MNT) --label tidefs $(BENCH) \
	    --remount '$(BIN)/tidefs umount $(MNT) && $(BIN)/tidefs mount $(DIR) $(MNT)'

# mypy finds the package through this link: the root of the tree is the package itself.
build/import/tidefs:
	@mkdir -p build/import
	@ln -sfn ../.. build/import/tidefs

.venv/bin/python:
	@PYTHON=$(PYTHON) deploy/system-packages
	$(PYTHON) -m venv .venv

$(READY): setup.cfg pyproject.toml | .venv/bin/python
	@deploy/install-into $(BIN)/python .
	@touch $@

$(READY_TO_TEST): setup.cfg pyproject.toml | .venv/bin/python
	@deploy/install-into $(BIN)/python '.[test]'
	@touch $@ $(READY)

.PHONY: help mount mounted umount test check simulate campaign bench

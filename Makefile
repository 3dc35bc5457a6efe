PYTHON ?= python3
BIN := .venv/bin

check:
	mkdir -p build/import && ln -sfn ../.. build/import/tidefs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p tidefs

.PHONY: check

# The two commands: `make tour` (set up, run the series, build the report) and `make test`. The tests of panels want a
# browser: the system package `chromium` (Debian: apt-get install chromium); without it they are skipped.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.complete
# processes that `make test` uses, a core and about 3 GB each
WORKERS ?= 2
# where `make test` leaves the exit code of pytest, which make itself would hide
STATUS ?= /dev/null

.PHONY: setup tour test check lab notebooks clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,dev]'
	touch $@

tour: $(STAMP)
	$(BIN)/unlearnkit run --all --profile quick
	$(BIN)/unlearnkit report

test: $(STAMP)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder; code=$$?; echo $$code > $(STATUS); exit $$code

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lab: $(STAMP)
	$(BIN)/jupyter lab --notebook-dir notebooks

notebooks: $(STAMP)
	$(BIN)/unlearnkit stamp

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

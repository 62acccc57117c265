# make: the environment, then the demo. make test: the environment, then every test.
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
VENV := .venv
SNAKEMAKE := $(VENV)/bin/snakemake
# Only the library is installed: the reproduction is run from where it lies.
PACKAGES := PYTHONPATH="$(CURDIR)/src:$(CURDIR)/workflow/scripts"

.PHONY: all environment demo paper publish published refresh draft keep restore check test lint coverage format docs benchmark

all: demo

# The right Python is asked for before anything is made, and an environment of another Python gives way. pip shows what it
# downloads.
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or later with venv is needed, and $(PYTHON) is $$($(PYTHON) --version 2>&1 | head -n 1);" \
	    "name another, as in: make $(or $(MAKECMDGOALS),all) PYTHON=python3.11"; exit 1; }
	@$(VENV)/bin/python -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])' \
	  "$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')" 2>/dev/null || rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

environment: $(VENV)/.installed

demo: environment
	$(SNAKEMAKE) --cores $(CORES)
	$(SNAKEMAKE) --report results/demo/report.html
	@echo "All of it on one page: results/demo/report.html"

paper: environment
	$(SNAKEMAKE) --cores $(CORES) paper

# What is committed of a finished run: make publish NAME=cpu. Then everything is drawn again from it: make published
publish: environment
	@test -n "$(NAME)" || { echo "NAME: not given; name a finished run below results/, as in make publish NAME=demo"; exit 1; }
	$(PACKAGES) $(VENV)/bin/python -m reproduction.publication.publish fill results/$(NAME)

published: environment
	@echo "Every published figure is drawn again, in a minute or two."
	$(PACKAGES) $(VENV)/bin/python -m reproduction.publication.publish redraw

# After an edit of a figure, a test or a page: what is published becomes what this version makes of the same tables.
refresh: environment
	$(PACKAGES) $(VENV)/bin/python -m reproduction.publication.publish refresh

# Figures, grades and paper of the runs that paper/runs/NAME holds so far, in paper/generated: make draft NAME=cpu
draft: environment
	@test -n "$(NAME)" || { echo "NAME: not given; name a run below paper/runs, as in make draft NAME=cpu"; exit 1; }
	$(PACKAGES) $(VENV)/bin/python -m reproduction.publication.publish draft $(NAME)

# Finished tables of a run that still proceeds go into paper/runs/NAME, and come back on another machine: make keep NAME=cpu,
# make restore NAME=cpu. For a name without config/NAME.yaml give CONFIG=overlay.yaml. OPTIONS=--replace keeps what differs
# from what is kept, OPTIONS=--force restores over it.
keep restore: environment
	@test -n "$(NAME)" || { echo "NAME: not given; name a run below results/, as in make $@ NAME=cpu"; exit 1; }
	$(PACKAGES) $(VENV)/bin/python -m reproduction.publication.kept $@ $(NAME) $(if $(CONFIG),--configfile $(CONFIG)) $(OPTIONS)

lint: environment
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/snakefmt --check Snakefile workflow
	$(PACKAGES) $(VENV)/bin/lint-imports
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/ci.yml
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

# Test files are spread over the cores, one thread of torch each, and one more process than cores: some wait for SLURM.
PYTEST := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses $$(($(CORES) + 1)) --dist loadfile --no-loadscope-reorder

# What to run while working: style, types, and the tests of single functions.
check: environment lint
	$(PYTEST) tests/eigendrift tests/reproduction

test: environment lint
	$(PYTEST)

# Which lines of the library no test runs, in processes that the tests start too; half as long again as the tests.
coverage: environment
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" EIGENDRIFT_WARM_START=0 $(VENV)/bin/python -m pytest --cov --cov-report=term-missing:skip-covered

format: environment
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/snakefmt Snakefile workflow

# The documentation site, in build/site; make docs SERVE=1 shows it at 127.0.0.1:8000 and follows edits.
docs: environment
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs $(if $(SERVE),serve,build) --strict

# The other libraries that the benchmark compares with are installed beside the pinned environment.
benchmark: environment
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[benchmark]"
	$(VENV)/bin/python -m benchmarks.run

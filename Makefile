# `make` without a target lists the commands. Each command installs its packages into .venv, with
# the versions and hashes of requirements.txt, and keeps the packages of other commands.
.DEFAULT_GOAL := help
.PHONY: help repro verify metrics-diff review serve image check test test-all bench docs lint audit licenses lock
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# With the default shell, make 3.81 (the version on macOS) starts simple commands itself, and then
# ignores the PATH that is set here. Any other shell prevents that.
SHELL := /bin/bash

# uv does not read pip's variables, so pass the same index or folder of wheels to it.
UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export UV_DEFAULT_INDEX UV_FIND_LINKS
NO_INDEX := $(if $(PIP_NO_INDEX),--no-index)

# uv does not compile packages. The first import does, and must be allowed to write the result.
unexport PYTHONDONTWRITEBYTECODE

# A stamp file records an installation. Its name ends in extras of pyproject.toml, joined by "+".
INSTALLED := .venv/.installed-
SERVICE := service
PIPELINE := pipeline+cpu
ALL := $(PIPELINE)+service+bulk+cluster+test

# What GitHub and Compose read, checked without a network.
SCHEMA := check-jsonschema --builtin-schema

# The commit that `make metrics-diff` compares with.
BASE ?= HEAD

# The name of the container image, and the program that builds it. Only Docker's format of images has
# health checks, and buildah and podman write another one by default.
IMAGE ?= mnist
BUILDER ?= $(notdir $(firstword $(shell type -P buildah podman docker)))
export BUILDAH_FORMAT := docker

PYTEST := pytest --dist=worksteal

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

repro: $(INSTALLED)$(PIPELINE) ## Run the pipeline: download, train, evaluate, export (dvc repro)
	dvc repro

verify: $(INSTALLED)$(PIPELINE) ## Hash every file in dvc.lock (DVC itself trusts times and sizes)
	python -m stages.commands.verify

metrics-diff: $(INSTALLED)$(PIPELINE) ## Compare metrics with those of the commit BASE (default HEAD), in Markdown
	@dvc metrics diff --md $(BASE)

review: $(INSTALLED)$(PIPELINE) ## Review the corrections in the folder INBOX, to train with them
	python -m stages.commands.review $(or $(INBOX),$(error name the inbox: make review INBOX=DIR))

serve: data/model $(INSTALLED)$(SERVICE) ## Serve the model that dvc.lock pins, on http://127.0.0.1:8080
	python -m service

image: data/model $(INSTALLED)$(SERVICE) ## Build the container image mnist, with the model that dvc.lock pins
	python -m service --check
	$(or $(BUILDER),$(error no program builds the image; install buildah, podman or docker)) build \
		--file service/Dockerfile --tag $(IMAGE) --build-arg PIP_INDEX_URL \
		--build-arg PIN=$$(sha256sum data/model.sha256 | cut -c1-64) \
		--build-arg VERSION=$$(python -c "import service; print(service.__version__)") \
		--build-arg REVISION=$$(git describe --always --abbrev=40 --dirty) .

check: lint ## Check style and types, and run the tests that need no pipeline run and no server
	$(PYTEST) --numprocesses=logical -m "not pipeline and not server and not slow"

test: $(INSTALLED)$(ALL) ## Run all tests except the slow ones
	$(PYTEST) --numprocesses=auto -m "not slow"

test-all: $(INSTALLED)$(ALL) ## Run all tests
	$(PYTEST) --numprocesses=auto

bench: $(INSTALLED)$(ALL) ## Compare the service with other servers (needs wrk)
	python -m tests.benchmarks.serving

docs: $(INSTALLED)$(ALL) ## Write the generated parts of the documents afresh
	python -m tests.docs

lint: $(INSTALLED)$(ALL) ## Check style, spelling, types, and what GitHub, Compose and Kubernetes read
	ruff check
	ruff format --check
	codespell
	$(SCHEMA) vendor.github-workflows .github/workflows/*.yml
	$(SCHEMA) custom.github-workflows-require-timeout .github/workflows/*.yml
	$(SCHEMA) vendor.dependabot .github/dependabot.yml
	$(SCHEMA) vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(SCHEMA) vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	pre-commit validate-config
	$(SCHEMA) vendor.compose-spec service/compose.yaml
	kubernetes-validate --strict service/kubernetes.yaml
	mypy

audit: $(INSTALLED)$(ALL) ## Check the packages in requirements.txt for known vulnerabilities
	python -m tests.audit

licenses: $(INSTALLED)$(ALL) ## List the licenses of all packages, and fail on a forbidden one
	pip-licenses --with-system --packages $$(sed -n 's/^\([^ =]*\)==.*/\1/p' requirements.txt)

lock: $(INSTALLED)uv ## Compile requirements.txt from pyproject.toml
	uv pip compile pyproject.toml --extra $(subst +, --extra ,$(ALL)) --upgrade --universal \
		--python-version 3.11 --generate-hashes --no-header --quiet --output-file requirements.txt

# Compile during the installation: the service under systemd and some tests cannot write to .venv.
$(INSTALLED)$(SERVICE) $(INSTALLED)$(ALL): export UV_COMPILE_BYTECODE := 1

data/model:
	$(error $@ is missing; run `make repro` to make it, or `dvc pull $@` to fetch it)

$(INSTALLED)%: pyproject.toml requirements.txt | $(INSTALLED)uv
	uv pip install $(NO_INDEX) --python .venv --require-hashes --constraints requirements.txt \
		--build-constraints requirements.txt --requirements pyproject.toml --extra $(subst +, --extra ,$*)
	touch $@

$(INSTALLED)uv: requirements.txt
	$(PYTHON) -m venv .venv
	sed -n '/^uv==/,/[^\\]$$/p' $< | $(BIN)/pip install --quiet --require-hashes --requirement /dev/stdin
	touch $@

# `make demo` and `make test` work on a fresh clone: they make .venv and install into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ROOMS := deploy_attn export engines jetson
INSTALLED := $(VENV)/.installed

.PHONY: demo test networks boards measured lint types wheel clean

demo: $(INSTALLED)
	@echo "--- A catalogue module. README.md says how to read the verdict."
	$(BIN)/deploy-attn export cbam --fp16 -o build/demo/cbam --force
	@echo "--- A network with CBAM, trained now on real images of digits."
	$(BIN)/python examples/digits/run.py --output build/demo/digits

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/networks

networks: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadgroup tests/networks

boards:
	$(PYTHON) .ci/interpreters

measured: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,rtx,dev,peers]'
	$(BIN)/python benchmarks/everything.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/vermin --quiet --no-tips --target=3.6- --violations jetson deploy_attn/remote/on_board.py

types: $(INSTALLED)
	$(BIN)/mypy

wheel: $(INSTALLED)
	rm -rf build/wheel && $(BIN)/python -m build --wheel --outdir build/wheel .

clean:
	rm -rf $(VENV) build dist out *.egg-info

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "deploy-attn needs Python 3.10 or newer; run make with PYTHON=/path/to/python3.1x" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV), torch among it: a minute or more ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,rtx,dev]'
	@$(BIN)/python -m compileall -q $(ROOMS) # as pip does for a wheel, so that no start compiles
	@touch $@

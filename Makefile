# Everything runs in .venv, which the first target that needs it makes.
#   make demo       train, validate and try a small ConvNeXt V2 on handwritten digits
#   make test       the tests        make test-slow  all of them, the large variants too
#   make lint       ruff, clang-format, and a strict build of the documentation
#   make docs       the documentation as a web site, in site/
#   make dist       a source distribution and a manylinux wheel, in dist/
#   make clean      remove what these targets made

PYTHON ?= python3
BIN := .venv/bin
DEMO := demo
# The last epoch's checkpoint, not the best: choosing by the held-out digits would flatter the result.
CKPT := $(DEMO)/ckpt/convnextv2_atto-30_22

.PHONY: demo test test-slow lint docs dist clean

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo "MindSpore needs Python 3.9 to 3.12, and $(PYTHON) is another: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv

# The package is installed so that edits of the source are seen; setuptools' leftovers are removed. pip does not show
# what setup.py says of the kernels, so the package is asked.
.venv/installed-%: setup.py mindcv/kernels/build.py $(wildcard mindcv/kernels/csrc/*/*) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@rm -rf mindcv.egg-info build
	@$(BIN)/python -m mindcv.kernels
	@touch $@

demo: .venv/installed-demo
	$(BIN)/python train.py --config configs/convnextv2/convnextv2_atto_digits.yaml --ckpt_save_dir $(DEMO)/ckpt \
		--overwrite True
	$(BIN)/python validate.py --config configs/convnextv2/convnextv2_atto_digits.yaml \
		--ckpt_path $(CKPT).ckpt --results_json $(CKPT).json \
		--confusion_matrix $(DEMO)/confusion_matrix.png
	$(BIN)/python tools/export_digits.py --dir $(DEMO)/digits --num 12
	$(BIN)/python infer.py --ckpt_path $(CKPT).ckpt --image_path $(DEMO)/digits --top_k 3 \
		--results_file $(DEMO)/predictions.csv --picture $(DEMO)/predictions.png
	@echo "see $(DEMO)/predictions.png, $(DEMO)/ckpt/learning_curve.png and $(CKPT).json"

# Files of tests run side by side, in as many processes as processors and memory allow (see tests/conftest.py).
test: .venv/installed-test
	$(BIN)/python -m pytest -q -m "not slow" -n auto --dist loadfile

# A process for each recipe: what was trained operator by operator MindSpore keeps (440 MB of convnextv2_tiny), and the
# largest needs 21 GiB by itself.
test-slow: .venv/installed-test
	$(BIN)/python -m pytest -q --deselect tests/test_recipes_run.py::test_two_steps
	for recipe in configs/*/*.yaml; do \
		$(BIN)/python -m pytest -q "tests/test_recipes_run.py::test_two_steps[$$recipe]" || exit 1; done

lint: .venv/installed-dev
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/clang-format --dry-run --Werror mindcv/kernels/csrc/*/*.cc mindcv/kernels/csrc/*/*.h tests/kernels/*.h tests/kernels/*.cc
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "open site/index.html"

# The wheel is made from the source distribution. auditwheel names it after the oldest C library that it runs with, which
# the C library of this machine decides.
dist: .venv/installed-dist
	rm -rf dist
	$(BIN)/python -m build --outdir dist/plain .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist dist/plain/*.whl
	mv dist/plain/*.tar.gz dist
	@rm -rf dist/plain mindcv.egg-info build
	$(BIN)/auditwheel show dist/*.whl
	@echo "The wheel in a folder of its own, where no compiler can be found:"
	$(BIN)/python -m pip install --quiet --no-deps --target dist/check dist/*.whl
	cd dist/check && PATH= $(CURDIR)/$(BIN)/python -m mindcv.kernels
	@rm -rf dist/check

clean:
	rm -rf .venv $(DEMO) site build dist mindcv.egg-info mindcv/kernels/*.so

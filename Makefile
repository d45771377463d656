PYTHON ?= python3
SHARED ?= ../shared
WEIGHTS ?= $(SHARED)/weights/mobilenet_v2_imagenet_no_top.weights.h5
BIN := .venv/bin
INSTALL := install --quiet --disable-pip-version-check -c requirements.lock

# The tests whose result depends on the version of OpenCV: decoding of images and video, and networks in cv2.dnn.
OPENCV4_TESTS := tests/io/test_images.py tests/models tests/video/test_sources.py tests/test_detect_mask_image.py \
  tests/faults/test_image_faults.py tests/faults/test_model_faults.py tests/faults/test_video_faults.py

.PHONY: help demo web install check test test-all test-openvino test-archive fuzz train evaluate bench lock audit clean

help: ## list what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/detect ## install what detection needs, find the masks in examples/people.jpg
	$(BIN)/python detect_mask_image.py -i examples/people.jpg -o demo.jpg --no-show

web: .venv/web web/node_modules ## write web/dist, the page that detects in the browser without Python; needs npm
	$(BIN)/python -m web.build

install: .venv/train ## install what training and evaluation need too

check: .venv/test ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check ## check, and run the tests except the slow ones: under five minutes on two cores
	$(BIN)/python -m pytest -m "not slow and not shared"

test-all: check .venv-opencv4/test ## check, and run all tests; those of detection on OpenCV 4 and other Pythons too
	$(BIN)/python -m pytest
	.venv-opencv4/bin/python -m pytest -m "not training" $(OPENCV4_TESTS)
	$(BIN)/python -m tests.other_pythons

test-openvino: .venv-openvino/test ## compare detection by OpenVINO with the CPU's
	.venv-openvino/bin/python -m pytest tests/models/test_devices.py

test-archive: .venv/test ## run the tests of archives, with Ray, DuckDB and a local S3: ten minutes
	$(BIN)/pip $(INSTALL) -r requirements-archive.txt duckdb 'moto[server]'
	$(BIN)/python -m pytest -m archive

fuzz: .venv/test ## try to break it: 20,000 mutated images, 2,000 models, 2,000 annotations, 200 kills; a quarter of an hour
	FUZZ=1 $(BIN)/python -m pytest -s --hypothesis-show-statistics tests/test_fuzz.py tests/test_properties.py

train: $(SHARED)/photos .venv/train ## train a mask classifier as version 1 was, from the photos in ../shared: half an hour on two cores
	$(BIN)/python train_mask_detector.py -d $(SHARED)/dataset $(SHARED)/tutorial_dataset $(SHARED)/photos \
	  --only $(SHARED)/photos/train.txt --weights $(WEIGHTS) --overwrite

evaluate: $(SHARED)/photos .venv/train ## measure the shipped model on photos that it has not seen, in ../shared: two minutes on two cores
	$(BIN)/python evaluate_mask_detector.py -d $(SHARED)/photos --only $(SHARED)/photos/val.txt

bench: .venv/train ## measure the speed against the tutorial's way, into speed/: half an hour on two cores, less without ../shared
	$(BIN)/python -m benchmarks.speed $(if $(wildcard $(SHARED)/photos),--photos $(SHARED)/photos/images \
	  --video $(SHARED)/videos/street_masks.mp4 --train $(SHARED)/tutorial_dataset --weights $(WEIGHTS))

$(SHARED)/photos:
	@echo "error: $@: no such folder: these photos are not public (MODEL_CARD.md); with others: python -m dataset.download," \
	  "python train_mask_detector.py -d dataset, python evaluate_mask_detector.py -d your_annotated_photos"; exit 1

# backports-strenum: uv takes a version from 1.3 that Python 3.11 does not install.
lock: .venv/test ## choose the locked versions again, each at least a week old
	printf 'pip>=26.3\nopencv-python-headless\nbackports-strenum<1.3\n' | $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --upgrade \
	  --generate-hashes --no-annotate --exclude-newer "7 days" --custom-compile-command "make lock" \
	  --all-extras pyproject.toml - -o requirements.lock

audit: ## look the locked versions up in a database of known flaws; needs pip-audit, from PyPI, and the internet
	pip-audit --strict --disable-pip --require-hashes -r requirements.lock

clean: ## remove the environments and what the demo wrote
	rm -rf .venv .venv-opencv4 .venv-openvino .venv-py3* demo.jpg web/dist web/node_modules

# opencv-python needs a desktop's libraries (libGL); where they are missing, its headless twin takes its place.
define use-headless-if-needed
	@$(1)/python -c "import cv2" 2>/dev/null || { \
	  echo "no desktop libraries here: using opencv-python-headless"; \
	  $(1)/pip uninstall --quiet --yes opencv-python; \
	  $(1)/pip $(INSTALL) --force-reinstall --no-deps opencv-python-headless; }
endef

.venv/pip: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 15) else "error: Python %d.%d: 3.11 to 3.14 is needed; install one, then make PYTHON=python3.13" % sys.version_info[:2])'
	$(PYTHON) -m venv --clear .venv
	@sed -n '/^pip==/,/[^\\]$$/p' requirements.lock > .venv/pip.lock  # from 26.1 on pip checks the hashes of constraints
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r .venv/pip.lock
	@touch $@

.venv/detect: requirements-detect.txt requirements.lock .venv/pip
	$(BIN)/pip $(INSTALL) -r $<
	$(call use-headless-if-needed,$(BIN))
	@touch $@

.venv/web: .venv/detect
	$(BIN)/pip $(INSTALL) onnx
	@touch $@

web/node_modules: web/package-lock.json
	npm ci --prefix web --ignore-scripts --no-audit --no-fund
	@touch $@

.venv/train: requirements.txt .venv/detect
	$(BIN)/pip $(INSTALL) -r $<
	$(call use-headless-if-needed,$(BIN))
	@touch $@

.venv/test: requirements-test.txt .venv/train
	$(BIN)/pip $(INSTALL) -r $<
	$(call use-headless-if-needed,$(BIN))
	@touch $@

.venv-opencv4/test: requirements-detect.txt requirements-test.txt requirements.lock .venv/pip
	$(PYTHON) -m venv --clear .venv-opencv4
	.venv-opencv4/bin/pip install --quiet --disable-pip-version-check --require-hashes -r .venv/pip.lock
	.venv-opencv4/bin/pip $(INSTALL) numpy pillow pillow-heif jinja2 tqdm trackers av onnx filelock pytest hypothesis
	.venv-opencv4/bin/pip uninstall --quiet --yes opencv-python
	.venv-opencv4/bin/pip install --quiet --disable-pip-version-check --force-reinstall --no-deps opencv-python-headless==4.10.0.84
	@touch $@

# OpenVINO's build of onnxruntime takes the place of the usual one.
.venv-openvino/test: requirements-detect.txt requirements.lock .venv/pip
	$(PYTHON) -m venv --clear .venv-openvino
	.venv-openvino/bin/pip install --quiet --disable-pip-version-check --require-hashes -r .venv/pip.lock
	.venv-openvino/bin/pip $(INSTALL) -r requirements-detect.txt pytest hypothesis
	$(call use-headless-if-needed,.venv-openvino/bin)
	.venv-openvino/bin/pip uninstall --quiet --yes onnxruntime
	.venv-openvino/bin/pip install --quiet --disable-pip-version-check --no-deps onnxruntime-openvino==1.24.1
	@touch $@

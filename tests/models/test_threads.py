"""How many threads the networks compute with: as many as the caller says, one per core by default."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

import detect_mask_image
import detect_mask_video
from facemask.cli import options
from facemask.models.center_face import CenterFaceDetector
from facemask.models.face_detectors import load_face_detector
from facemask.models.mask_classifier import MaskClassifier
from tests.helpers import EXAMPLES, ROOT

TASKS = Path("/proc/self/task")  # a folder per thread of this process
FACES, MASKS = ROOT / "face_detector" / CenterFaceDetector.FILE_NAME, ROOT / "mask_detector.onnx"


def threads_begun(load: Callable[[], object]) -> int:
    """Return how many threads there are once `load` has returned that were not there before."""
    before = set(os.listdir(TASKS))
    loaded = load()
    begun = set(os.listdir(TASKS)) - before
    assert loaded is not None  # held till here: its threads end with it
    return len(begun)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted as Linux lists them")
@pytest.mark.parametrize(("threads", "begun"), [(1, 0), (2, 1), (5, 4)])
@pytest.mark.parametrize(
    "load",
    [
        pytest.param(lambda threads: load_face_detector(FACES, threads=threads), id="face detector"),
        pytest.param(lambda threads: MaskClassifier.load(MASKS, threads), id="classifier"),
        pytest.param(lambda threads: MaskClassifier.load(MASKS.with_suffix(".keras"), threads), id="classifier of a .keras"),
    ],
)
def test_network_has_the_threads_it_is_given(load, threads, begun):
    """The calling thread computes too, so that one less is begun."""
    pytest.importorskip("onnxruntime", reason="OpenCV's networks take their threads from OpenCV")
    assert threads_begun(lambda: load(threads)) == begun


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted as Linux lists them")
@pytest.mark.parametrize(("cores", "begun"), [(1, 0), (4, 0), (24, 2 * 2)])
def test_scripts_share_the_cores_between_workers_and_networks(monkeypatch, cores, begun):
    """Up to 8 cores there is a worker for each and the networks have one thread; of 24, each of 8 workers has 3."""
    pytest.importorskip("onnxruntime", reason="OpenCV's networks take their threads from OpenCV")
    pytest.importorskip("trackers")  # the script imports it meanwhile, and SciPy's OpenBLAS begins threads of its own
    images = [str(EXAMPLES / name) for name in ("astronaut.jpg", "obama.jpg")]
    assert threads_of_run(monkeypatch, cores, lambda: detect_mask_image.main(["-i", *images])) == begun
    arguments = ["-i", str(EXAMPLES / "a*.jpg"), "--max-frames", "1"]
    assert threads_of_run(monkeypatch, cores, lambda: detect_mask_video.main(arguments)) == begun


def threads_of_run(monkeypatch, cores: int, run: Callable[[], int]) -> int:
    """Return how many threads a script's networks begin on a machine with that number of cores."""
    counts, load = [], options.load_detector

    def count(*arguments: object) -> object:
        loaded: list[object] = []
        counts.append(threads_begun(lambda: loaded.append(load(*arguments)) or loaded))
        return loaded[0]

    with monkeypatch.context() as patch:
        patch.setattr(cv2, "getNumberOfCPUs", lambda: cores)
        patch.setattr(options, "load_detector", count)
        assert run() == 0
    (one,) = counts
    return one

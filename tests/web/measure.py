"""Measure detection in frames of a camera, 640 x 480 px: the page in Chromium and Python, in turns.

python -m tests.web.measure FOLDER      the folder that `make web` wrote: web/dist

Prints the fastest and the median time per frame in ms, and the ratios to Python with one thread and float32.
"""

import base64
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import cv2
import numpy as np

import facemask
from facemask.detector import MaskDetector
from facemask.models import mask_classifier
from facemask.models.center_face import CenterFaceDetector
from facemask.models.mask_classifier import MaskClassifier
from tests.helpers import EXAMPLES, ROOT
from tests.web.test_web import opened

ROUNDS, FRAMES = 8, 4
SCRIPT = """(async () => {
  const image = new Image(), times = [];
  image.src = "data:image/png;base64,%s";
  await image.decode();
  for (let frame = 0; frame < %d; frame++) {
    const {milliseconds} = await page.detect(await createImageBitmap(image), {tiles: false, turns: false%s});
    times.push(milliseconds);
  }
  return times.join();
})()"""


def python_detector(is_float: bool, threads: int) -> MaskDetector:
    if not is_float:
        return facemask.load_detector(tiles=False, check_turns=False, threads=threads)
    prefer_int8, mask_classifier.prefer_int8 = mask_classifier.prefer_int8, lambda model, *_: model
    faces = CenterFaceDetector.load(ROOT / "face_detector" / CenterFaceDetector.FILE_NAME, threads=threads)
    detector = MaskDetector(faces, MaskClassifier.load(ROOT / "mask_detector.onnx", threads))
    mask_classifier.prefer_int8 = prefer_int8
    return replace(detector, turned_faces=None)


def main(folder: Path) -> None:
    image = cv2.resize(cv2.imread(str(EXAMPLES / "astronaut_mask.jpg")), (640, 480))
    encoded = base64.b64encode(cv2.imencode(".png", image)[1].tobytes()).decode()
    times: dict[str, list[float]] = {}
    detectors = {"Python, float32, 1 thread": python_detector(True, 1), "Python, default": python_detector(False, 0)}
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as other,
        opened(folder, Path(one)) as (single, _),
        opened(folder, Path(other), is_isolated=True) as (several, _),
    ):
        pages = {"Chromium, 1 thread": (single, ""), "Chromium, 1 thread, fast": (single, ", size: 320")}
        pages[f"Chromium, {several.run('document.getElementById(`state`).innerText')}"] = (several, "")
        for _ in range(ROUNDS):
            for name, detector in detectors.items():
                for _ in range(FRAMES):
                    start = time.perf_counter()
                    detector.detect(image)
                    times.setdefault(name, []).append(1000 * (time.perf_counter() - start))
            for name, (browser, options) in pages.items():
                measured = str(browser.run(SCRIPT % (encoded, FRAMES, options))).split(",")
                times.setdefault(name, []).extend(map(float, measured))
    (base, *_) = times.values()
    for name, values in times.items():
        ratio = np.divide([min(values), median(values)], [min(base), median(base)])
        print(f"{name}: {min(values):.0f} ms, median {median(values):.0f}; of Python's {ratio[0]:.1f}, median {ratio[1]:.1f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

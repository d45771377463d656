"""The page that detects masks in the browser: its modules against Python, in node, and the page itself in Chromium."""

import base64
import csv
import json
import math
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="the page is built with it")

import facemask
from facemask.boxes import crop_face
from facemask.detector import MaskDetector, shrink
from facemask.io.records import image_record, write_csv
from facemask.labels import STYLES, UNSURE, display_name, percent
from facemask.models import mask_classifier
from facemask.models.center_face import CenterFaceDetector
from facemask.models.mask_classifier import MaskClassifier
from facemask.turns import turn_left
from facemask.types import FileResult
from tests.helpers import EXAMPLES, ROOT
from tests.video.browser import Browser, needs_chromium
from web import build

NODE, NPM = shutil.which("node"), shutil.which("npm")
NO_NETWORK = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH")  # npm's codes
NETWORKS = [str(ROOT / "face_detector" / CenterFaceDetector.FILE_NAME), str(ROOT / "mask_detector.onnx")]
CAMERA_OPTIONS = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the page."""
    if not NODE or not NPM:
        pytest.skip("needs node and npm: apt install npm")
    if not build.RUNTIME.is_dir():
        command = [NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(build.SOURCE)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if any(code in result.stderr for code in NO_NETWORK):
            pytest.skip("npm cannot download onnxruntime-web: there is no network")
        assert result.returncode == 0, result.stderr
    folder = tmp_path_factory.mktemp("page")
    assert build.main(["-o", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def people() -> np.ndarray:
    return cv2.imread(str(EXAMPLES / "people.jpg"))


def run_modules(dist: Path, folder: Path, cases: list[dict]) -> list:
    """Return what the page's modules return for each case; an image in a case or a result is uint8 (H, W, 3) BGR."""
    for number, case in enumerate(cases):
        if (image := case.pop("image", None)) is not None:
            case |= {"width": image.shape[1], "height": image.shape[0], "file": str(folder / f"{number}.rgba")}
            cv2.cvtColor(image, cv2.COLOR_BGR2RGBA).tofile(case["file"])
    (folder / "cases.json").write_text(json.dumps(cases))
    script = Path(__file__).with_name("run_modules.mjs")
    command = [str(NODE), str(script), str(dist), str(folder / "cases.json"), str(folder / "results.json")]
    subprocess.run(command, check=True, timeout=600)
    results = json.loads((folder / "results.json").read_text())
    return [read_image(each) if isinstance(each, dict) and "file" in each else each for each in results]


def read_image(result: dict) -> np.ndarray:
    pixels = np.fromfile(result["file"], np.uint8).reshape(result["height"], result["width"], 4)
    return cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGR)


def expected_images(image: np.ndarray) -> list[tuple[str, list, np.ndarray]]:
    """Return functions of image.js, their arguments, and what OpenCV makes of the image."""
    height, width = image.shape[:2]
    sigmas = [0.5 * math.sqrt(1 / scale**2 - 1) for scale in (0.9, 0.7, 0.51)]
    even = image[: height // 2 * 2, : width // 2 * 2]
    cases = [("halve", [], cv2.resize(even, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))]
    cases += [("blur", [sigma], cv2.GaussianBlur(image, (3, 3), sigma)) for sigma in sigmas]
    for size in ((576, 288), (2 * width, 2 * height), (width - 7, height + 9), (33, 200)):
        cases.append(("resizeLinear", list(size), cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)))
    for size in ((width // 3, height // 3), (41, 50), (width - 1, height - 1)):
        cases.append(("resizeArea", list(size), cv2.resize(image, size, interpolation=cv2.INTER_AREA)))
    cases += [("turnLeft", [turns], turn_left(image, turns)) for turns in (1, 2, 3, -1)]
    cases += [("shrink", [side], shrink(image, side)) for side in (64, 5000)]
    for box, size in (([5, 5, 60, 90], 128), ([-3, -8, 40, 30], 128), ([10, 10, 12, 12], 128), ([5, 5, 60, 90], 32)):
        cases.append(("cropFace", [box, size, 0.1], crop_face(image, box, size, 0.1)))
    return cases


def test_images_are_those_of_opencv(dist, people, tmp_path):
    images = [people, np.random.default_rng(0).integers(0, 256, (101, 67, 3), np.uint8)]
    cases = [(image, *case) for image in images for case in expected_images(image)]
    calls = [{"operation": name, "arguments": arguments, "image": image} for image, name, arguments, _ in cases]
    for (_, name, arguments, expected), result in zip(cases, run_modules(dist, tmp_path, calls), strict=True):
        assert result.shape == expected.shape, (name, arguments)
        differences = np.abs(result.astype(int) - expected)
        assert differences.max() <= 1 and differences.mean() < 0.05, (name, arguments)


def test_texts_are_those_of_python(dist, tmp_path):
    values = [0.0, 0.004, 0.0051, 0.5, 0.594, 0.9949, 0.9951, 0.997, 0.99999, 1.0]
    detection = facemask.Detection((1, 2, 30, 40), 0.98765, "with_mask", 0.59996, {"with_mask": 0.59996, "without_mask": 0.40004})
    name = 'a "b", c.jpg'
    record = image_record(name, FileResult(60, 50, [detection], False, None, []))
    write_csv(tmp_path / "faces.csv", [record])
    face = json.loads(json.dumps(record["faces"][0])) | {"confidence": 0.98765, "probability": 0.59996}
    result = {"width": 60, "height": 50, "faces": [face]}
    cases = [{"operation": "percent", "values": values}, {"operation": "csv", "name": name, "result": result}]
    percents, table = run_modules(dist, tmp_path, cases)
    assert percents == [percent(value) for value in values]
    assert table == (tmp_path / "faces.csv").read_bytes().decode()


@pytest.fixture
def float_detector(monkeypatch) -> MaskDetector:
    """Return a detector with the files of NETWORKS, whatever the processor prefers."""
    monkeypatch.setattr(mask_classifier, "prefer_int8", lambda model, *_: model)
    faces = CenterFaceDetector.load(NETWORKS[0], tiles=True)
    return MaskDetector(faces, MaskClassifier.load(NETWORKS[1]), replace(faces, tiles=False))


@pytest.mark.slow
def test_detection_is_that_of_python(dist, people, float_detector, tmp_path):
    small = cv2.resize(people, None, fx=0.12, fy=0.12, interpolation=cv2.INTER_AREA)
    images = [
        turn_left(people, 1),
        np.tile(small, (2, 6, 1)),  # 96 faces, 14 px high in the network's input: found in tiles
        cv2.resize(people[410:610, 680:840], (800, 1000)),  # a face so large that only a downscaled input shows it
        np.zeros((40, 300, 3), np.uint8),
    ]
    enlarged = cv2.resize(people, None, fx=3.2, fy=3.2)  # a JPEG of this size is decoded reduced
    cv2.imwrite(str(tmp_path / "large.jpg"), enlarged, [cv2.IMWRITE_JPEG_QUALITY, 100])
    decoded = cv2.imread(str(tmp_path / "large.jpg"))
    cases = [{"operation": "detect", "image": image, "networks": NETWORKS, "options": {}} for image in images]
    cases.append({"operation": "detectFile", "image": decoded, "networks": NETWORKS})
    results = run_modules(dist, tmp_path, cases)
    expected = [float_detector.detect(image) for image in images]
    for faces, result in zip(expected, results[:-1], strict=True):
        assert_same_faces(result, faces, 1, 0.005)
    assert [len(faces) for faces in expected] == [7, 96, 1, 0]
    assert_same_faces(results[-1], float_detector.detect_file(tmp_path / "large.jpg").detections, 6, 0.05)


def assert_same_faces(result: list[dict], faces: list, max_pixels: int, max_difference: float) -> None:
    """Check that faces of the page are those of Python, but for so many pixels of a box and so much of a probability."""
    assert len(result) == len(faces)
    remaining = list(result)
    for face in faces:
        found = min(remaining, key=lambda each: np.abs(np.subtract(each["box"], face.box)).max())
        remaining.remove(found)
        assert np.abs(np.subtract(found["box"], face.box)).max() <= max_pixels
        assert found["label"] == face.label
        assert found["unsure"] == (found["probability"] < UNSURE)
        assert found["probability"] == pytest.approx(face.probability, abs=max_difference)
        assert found["confidence"] == pytest.approx(face.confidence, abs=max_difference)


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder, with threads for its pages if `is_isolated`, and keeps the requests."""

    requests: list[str]
    is_isolated = False

    def log_message(self, *_: object) -> None:
        self.requests.append(self.requestline)

    def end_headers(self) -> None:
        if self.is_isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


@contextmanager
def opened(dist: Path, folder: Path, is_isolated: bool = False, options: tuple[str, ...] = ()) -> Iterator[tuple[Browser, list]]:
    """Yield a browser with the page, whose networks are loaded, and the requests that the server receives."""
    requests: list[str] = []
    handler = type("Handler", (Handler,), {"requests": requests, "is_isolated": is_isolated})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(dist))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with Browser(folder / "profile", options=options) as browser:
                browser.open(f"http://127.0.0.1:{server.server_port}/")
                browser.wait_for("!!window.page && !!page.settings")
                yield browser, requests
        finally:
            server.shutdown()


def text_of(browser: Browser, element: str) -> str:
    return str(browser.run(f"document.getElementById('{element}').innerText"))


@pytest.mark.slow
@needs_chromium
def test_people_in_the_browser(dist, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 no image")
    expected = facemask.load_detector().detect_file(EXAMPLES / "people.jpg").detections
    with opened(dist, tmp_path) as (browser, requests):
        assert text_of(browser, "state") == "ready · 1 thread"
        browser.choose_files("#files", [EXAMPLES / "people.jpg", tmp_path / "bad.jpg"])
        browser.wait_for("page.images.length === 1 && page.tiles.at(-1).notice.textContent !== ''")
        notice = browser.run("page.tiles.at(-1).notice.textContent")
        assert notice == "this browser cannot read it; give a JPEG, PNG or WebP image"
        (record,) = json.loads(str(browser.run("JSON.stringify(page.records(page.images))")))
        assert_same_faces(record["faces"], expected, 3, 0.1)
        assert (record["image"], record["width"], record["height"], len(record["faces"])) == ("people.jpg", 1218, 640, 8)
        names = Counter(display_name(face["label"], face["unsure"]) for face in record["faces"])
        counts = browser.run("[...page.images[0].counts.children].map(each => each.innerText).join()")
        assert sorted(str(counts).split(",")) == sorted(f"{count} {name}" for name, count in names.items())
        assert text_of(browser, "faces").split("\n")[0].split() == ["Mask", "4"]
        check_annotated(browser, record["faces"])
        check_downloads(browser, tmp_path, record)
        browser.resize(390, 844, 2, mobile=True)
        assert browser.run("document.documentElement.scrollWidth <= 390")
        names = {path.name for path in dist.iterdir()} | {""}
        assert {request.split()[0] for request in requests} == {"GET"}
        assert {request.split()[1].removeprefix("/") for request in requests} <= names


def check_annotated(browser: Browser, faces: list[dict]) -> None:
    """Check the annotated image: as large as the image, with boxes in the labels' colours, changed nowhere else."""
    script = (
        "page.images[0].annotate().then(blob => blob.arrayBuffer()).then(data =>"
        " btoa(Array.from(new Uint8Array(data), each => String.fromCharCode(each)).join('')))"
    )
    annotated = cv2.imdecode(np.frombuffer(base64.b64decode(str(browser.run(script))), np.uint8), cv2.IMREAD_COLOR)
    image = cv2.imread(str(EXAMPLES / "people.jpg"))
    assert annotated.shape == image.shape
    for face in faces:
        x1, y1, _, y2 = face["box"]
        edge = annotated[y1 + 20 : y2 - 20, x1].mean(axis=0)  # blended with the image by anti-aliasing and JPEG
        distances = {label: np.abs(edge - colour).max() for label, (_, colour) in STYLES.items()}
        assert min(distances, key=distances.__getitem__) == face["label"] and distances[face["label"]] < 70
    assert np.abs(annotated[300:350, 310:600].astype(int) - image[300:350, 310:600]).mean() < 5


def check_downloads(browser: Browser, folder: Path, record: dict) -> None:
    """Press the buttons for JSON lines and CSV, and check the files."""
    browser.download_to(folder)
    for kind in ("json", "csv"):
        browser.run(f"document.getElementById('{kind}').click()")
    deadline = time.monotonic() + 60
    while not ((folder / "faces.json").is_file() and (folder / "faces.csv").is_file()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert json.loads((folder / "faces.json").read_text()) == record
    rows = list(csv.DictReader((folder / "faces.csv").read_text().splitlines()))
    assert [row["label"] for row in rows] == [face["label"] for face in record["faces"]]
    assert [row["unsure"] for row in rows] == [str(face["unsure"]).lower() for face in record["faces"]]


@pytest.mark.slow
@needs_chromium
def test_camera_in_the_browser_with_threads(dist, tmp_path):
    frame = cv2.imencode(".jpg", cv2.resize(cv2.imread(str(EXAMPLES / "astronaut_mask.jpg")), (640, 480)))[1].tobytes()
    (tmp_path / "camera.mjpeg").write_bytes(5 * frame)
    options = (*CAMERA_OPTIONS, f"--use-file-for-fake-video-capture={tmp_path / 'camera.mjpeg'}")
    with opened(dist, tmp_path, is_isolated=True, options=options) as (browser, _):
        threads = min(int(str(browser.run("navigator.hardwareConcurrency"))), 4)
        assert text_of(browser, "state") == f"ready · {threads} thread{'s' if threads > 1 else ''}"
        browser.run("document.getElementById('start').click(); document.getElementById('start').click()")  # one camera
        browser.wait_for("page.tiles.length === 1 && page.tiles[0].counts.innerText === '1 Mask'")
        browser.wait_for("/^live · [0-9.]+ frames.s$/.test(page.tiles[0].status.innerText)")
        browser.run("page.tiles[0].actions.querySelector('.main').click()")
        browser.wait_for("page.images.length === 1 && page.images[0].counts.innerText === '1 Mask'")
        assert browser.run("`${page.images[0].width} ${page.images[0].height}`") == "640 480"
        browser.run("page.tiles[0].removing.click()")
        assert browser.run("page.tiles.length") == 1 and text_of(browser, "faces").split() == ["Mask", "1"]

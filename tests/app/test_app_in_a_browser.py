"""The page to try detection in, in a browser: files, the camera, downloads."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from facemask.api import load_detector
from facemask.app.detection import PageDetector
from facemask.app.server import AppServer
from facemask.io.images import MAX_PIXELS
from tests.helpers import EXAMPLES, read_csv
from tests.video.browser import Browser, needs_chromium

pytestmark = [pytest.mark.slow, needs_chromium]
WAIT = 60  # s
MASK, NO_MASK, WORN_WRONG = (115, 158, 0), (0, 94, 213), (0, 159, 230)  # BGR


@pytest.fixture(scope="module")
def server() -> Iterator[AppServer]:
    with AppServer(PageDetector(load_detector(), 0.5, MAX_PIXELS), "127.0.0.1", 0) as server:
        yield server


def downloaded(folder: Path, name: str) -> Path:
    """Return a file that the browser has downloaded, once it is whole."""
    deadline = time.monotonic() + WAIT
    while not (folder / name).exists() or list(folder.glob("*.crdownload")):
        assert time.monotonic() < deadline, list(folder.iterdir())
        time.sleep(0.05)
    return folder / name


def click(browser: Browser, text: str) -> None:
    browser.run(f"[...document.querySelectorAll('button')].find(each => each.textContent === '{text}').click()")


def has_colour(image: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(image - colour).max(axis=2) < 8).sum() > 200)


def test_images_in_a_browser(server, tmp_path):
    """Boxes and counts are on the page, an unusable file gets its line, and what is downloaded is right."""
    people, bad, saved = tmp_path / "people & co.jpg", tmp_path / "<b>.jpg", tmp_path / "saved"
    shutil.copy(EXAMPLES / "people.jpg", people)
    bad.write_text("text")
    with Browser(tmp_path / "profile") as browser:
        browser.download_to(saved)
        browser.open(server.url)
        browser.wait_for("typeof tiles !== 'undefined'")
        assert not any(has_colour(browser.screenshot(), colour) for colour in (MASK, NO_MASK, WORN_WRONG))
        browser.choose_files("#files", [people])
        browser.wait_for("tiles.length === 1 && tiles[0].found && tiles[0].sheet")
        assert all(has_colour(browser.screenshot(), colour) for colour in (MASK, NO_MASK, WORN_WRONG))
        boxes = browser.run(
            "tiles[0].found.faces.map(face => placeBox(tiles[0].sheet, face.box).map(side => side / tiles[0].sheet.scale))"
        )
        browser.choose_files("#files", [bad, EXAMPLES / "obama.jpg"])
        browser.wait_for("tiles.length === 3 && !working")
        assert browser.run("tiles[0].name.textContent") == people.name
        assert (
            browser.run("[...tiles[0].counts.children].map(each => each.textContent).sort().join()")
            == "1 Mask worn wrong,3 No mask,4 Mask"
        )
        assert browser.run("tiles[1].status.textContent") == (
            "<b>.jpg: not a supported image, or corrupt; give a JPEG, PNG, WebP, BMP or TIFF file"
        )
        table = "[...at('faces').rows].map(row => row.innerText.replace('\\t', ' ')).sort().join()"
        assert browser.run(table) == "Mask 4,Mask worn wrong 1,No mask 4"
        assert (
            browser.run("[...at('totals').rows].map(row => row.innerText.replace('\\t', ' ')).join()") == "with faces 2,failed 1"
        )

        click(browser, "JSON")
        record = json.loads(downloaded(saved, "people & co.json").read_text())
        assert record["image"] == people.name and [face["box"] for face in record["faces"]] == [
            [round(side) for side in box] for box in boxes
        ]
        click(browser, "CSV")
        assert len(read_csv(downloaded(saved, "people & co.csv"))) == 8
        click(browser, "Annotated image")
        annotated = cv2.imread(str(downloaded(saved, "people & co_annotated.jpg")))
        assert annotated.shape == (640, 1218, 3) and has_colour(annotated.astype(int), WORN_WRONG)
        click(browser, "All as JSON lines")
        lines = [json.loads(line) for line in downloaded(saved, "faces.jsonl").read_text().splitlines()]
        assert [(line["image"], len(line["faces"])) for line in lines] == [(people.name, 8), ("obama.jpg", 1)] and lines[
            0
        ] == record
        click(browser, "All as CSV")
        assert [row["image"] for row in read_csv(downloaded(saved, "faces.csv"))] == [people.name] * 8 + ["obama.jpg"]

        click(browser, "Remove")
        assert browser.run("tiles.length") == 2 and browser.run(table) == "No mask 1"
        click(browser, "Remove all")
        assert browser.run("tiles.length") == 0 and browser.run("at('drop').className") == "large"


def drop(browser: Browser, names: str) -> None:
    """Drop files that are made in the browser, as one from elsewhere is dropped."""
    browser.run(
        "(() => { const data = new DataTransfer();"
        f"for (const name of {names}) data.items.add(new File(['text'], name));"
        "document.dispatchEvent(new DragEvent('drop', {dataTransfer: data, cancelable: true})); })()"
    )


def test_dropped_and_refused_files_in_a_browser(server, tmp_path):
    """Too many files, one that is too large, and the program that has ended get a line each."""
    with Browser(tmp_path / "profile") as browser:
        browser.open(server.url)
        browser.wait_for("typeof tiles !== 'undefined'")
        drop(browser, "['a.txt']")
        browser.wait_for("tiles.length === 1 && tiles[0].status.textContent.startsWith('a.txt: not a supported image')")
        browser.run("limits.max_bytes = 3")
        drop(browser, "['b.txt']")
        browser.wait_for("tiles[1].status.textContent === 'b.txt: more than 0 MB; make it smaller'")
        drop(browser, "Array.from({length: 99}, (_, number) => `${number}.txt`)")
        browser.wait_for("tiles.length === 100 && !working")
        assert browser.run("at('message').textContent") == "This page takes 100 images: remove some, or run detect_mask_image.py."
        click(browser, "Remove all")
        browser.run("limits.max_bytes = 99; fetch = () => Promise.reject(new TypeError('gone'))")
        drop(browser, "['c.txt']")
        browser.wait_for("tiles[0].status.textContent === 'c.txt: not done, as there is no connection; is the program running?'")


def test_camera_in_a_browser(server, tmp_path):
    """Faces of the camera's frames are counted and drawn; one that is kept becomes an image of the page."""
    video = tmp_path / "camera.mjpeg"
    video.write_bytes((EXAMPLES / "people.jpg").read_bytes() * 3)
    options = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={video}",
    )
    with Browser(tmp_path / "profile", options=options) as browser:
        browser.open(server.url)
        browser.wait_for("typeof tiles !== 'undefined'")
        click(browser, "Use the camera")
        counts = "[...camera.counts.children].map(each => parseInt(each.textContent))"
        browser.wait_for(f"camera && {counts}.reduce((one, other) => one + other, 0) === 8")
        assert all(has_colour(browser.screenshot(), colour) for colour in (MASK, NO_MASK, WORN_WRONG))
        browser.wait_for("camera.status.textContent.endsWith(' frames/s')")
        click(browser, "Keep this image")
        browser.wait_for("tiles.length === 1 && tiles[0].found")
        assert browser.run("tiles[0].found.faces.length") == 8
        assert browser.run("/^camera-\\d{4}(-\\d\\d){5}\\.jpg$/.test(tiles[0].name.textContent)")
        click(browser, "Stop")
        assert browser.run("camera === null && at('camera').hidden")


def test_no_camera_in_a_browser(server, tmp_path):
    with Browser(tmp_path / "profile") as browser:
        browser.open(server.url)
        browser.wait_for("typeof tiles !== 'undefined'")
        click(browser, "Use the camera")
        assert browser.wait_for("at('message').textContent").startswith("Camera: ")
        browser.run("at('message').textContent = ''; Object.defineProperty(navigator, 'mediaDevices', {value: undefined})")
        click(browser, "Use the camera")
        assert browser.run("at('message').textContent") == (
            "A browser gives its camera only to this machine and over https: start with --tls-cert."
        )

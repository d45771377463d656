"""python -m facemask review: decisions are written at once, taken back, and asked for by this machine's browser alone."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from http.client import HTTPConnection, RemoteDisconnected

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training
pytest.importorskip("defusedxml")

from facemask.__main__ import main  # noqa: E402
from facemask.errors import InputError  # noqa: E402
from facemask.io.collect import Collector  # noqa: E402
from facemask.training.formats import read_dataset  # noqa: E402
from facemask.training.review import Review, ReviewServer  # noqa: E402
from facemask.training.yolo import Yolo  # noqa: E402
from facemask.types import Detection  # noqa: E402
from tests.helpers import EXAMPLES, PEOPLE, ROOT  # noqa: E402
from tests.video.browser import Browser, needs_chromium  # noqa: E402

CLASSES = ["mask_weared_incorrect", "with_mask", "without_mask"]


@pytest.fixture
def folder(tmp_path):
    """A collected photo of three faces, all with the label with_mask."""
    collector = Collector(tmp_path / "mine", CLASSES, limit=10)
    probabilities = dict(zip(CLASSES, (0.2, 0.5, 0.3), strict=True))
    faces = [Detection(box, 0.9, "with_mask", 0.5, probabilities) for box in PEOPLE[:3]]
    assert collector.consider(cv2.imread(str(EXAMPLES / "people.jpg")), faces, "a")
    return tmp_path / "mine"


@pytest.fixture
def server(folder):
    with ReviewServer(Review(folder), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def labels(folder) -> list[tuple]:
    """Return the labels of the only photo in Pascal VOC and in YOLO."""
    return [read_dataset(folder)[0].labels, Yolo().read(folder)[0].labels]


def test_decisions_are_written_at_once_in_both_formats_and_taken_back(folder):
    review = Review(folder)
    review.decide(0, "without_mask")
    review.decide(1, "deleted")
    assert labels(folder) == [("without_mask", "with_mask")] * 2
    np.testing.assert_allclose(read_dataset(folder)[0].boxes, [PEOPLE[0], PEOPLE[2]])
    assert (review.done, review.first_open()) == (2, 2)
    assert review.undo() == 1
    assert labels(folder) == [("without_mask", "with_mask", "with_mask")] * 2
    assert (review.undo(), review.undo()) == (0, None)
    assert labels(folder) == [("with_mask",) * 3] * 2
    with pytest.raises(ValueError):
        review.decide(0, "hat")


def test_a_review_goes_on_where_it_was_left(folder):
    review = Review(folder)
    review.decide(0, "kept")
    review.decide(1, "deleted")
    again = Review(folder)
    assert (again.done, again.first_open(), len(again.faces)) == (2, 2, 3)
    again.decide(1, "without_mask")  # a deleted face can be had back
    assert labels(folder) == [("with_mask", "without_mask", "with_mask")] * 2


def test_folders_that_cannot_be_reviewed(tmp_path, folder):
    with pytest.raises(InputError, match="no annotations/ in it; give a folder of --collect"):
        Review(tmp_path)
    (folder / "review.json").write_text("[1]")
    with pytest.raises(InputError, match=r"review\.json: corrupt; remove it"):
        Review(folder)
    (folder / "review.json").unlink()
    (folder / "data.yaml").write_text("names: [with_hat, without_hat]")
    with pytest.raises(InputError, match=r"data\.yaml does not have the class with_mask"):
        Review(folder)


def ask(server, method: str, path: str, host: str = "") -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request(method, path, headers={"Host": host or f"127.0.0.1:{server.server_port}", "Content-Length": "0"})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, data


def test_only_the_page_with_the_key_is_served(server, folder):
    key = f"key={server.key}"
    for method, path, host in [
        ("GET", "/", ""), ("GET", "/face?key=x", ""), ("POST", "/label?number=0&action=without_mask", ""),
        ("POST", f"/label?{key}&number=0&action=without_mask", "evil.example"),
    ]:  # fmt: skip
        assert ask(server, method, path, host)[0] == 403
    assert ask(server, "POST", f"/label?{key}&number=0&action=hat")[0] == 400
    assert ask(server, "GET", f"/../../etc/passwd?{key}")[0] == 404
    assert labels(folder) == [("with_mask",) * 3] * 2
    status, data = ask(server, "POST", f"/label?{key}&number=0&action=without_mask")
    assert status == 200 and json.loads(data)["number"] == 1
    image = cv2.imdecode(np.frombuffer(ask(server, "GET", f"/image?{key}&number=0")[1], np.uint8), cv2.IMREAD_COLOR)
    assert max(image.shape) == 640
    assert server.server_address[0] == "127.0.0.1"


def test_a_browser_that_leaves_is_no_error(server, folder, monkeypatch, capfd):
    def leave(self: object, data: bytes, kind: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("facemask.training.review._Handler._send", leave)
    with pytest.raises(RemoteDisconnected):
        ask(server, "GET", f"/image?key={server.key}&number=0")
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@needs_chromium
def test_review_in_a_browser(server, folder, tmp_path):
    def press(key: str, number: int) -> None:
        browser.run(f"document.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}'}}))")
        browser.wait_for(f"!busy && face.number === {number} && at('image').complete && at('image').naturalWidth > 0")

    with Browser(tmp_path / "profile") as browser:
        browser.open(server.url)
        browser.wait_for("face && at('image').complete && at('image').naturalWidth > 0")
        assert browser.run("[...document.querySelectorAll('#labels button')].map(each => each.innerText).join()") == (
            "Mask worn wrong 1,Mask 2,No mask 3"
        )
        press("3", 1)
        press("Delete", 2)
        press("u", 1)
        press("Enter", 2)
        assert labels(folder) == [("without_mask", "with_mask", "with_mask")] * 2
        browser.run("document.querySelector('#labels button').click()")
        browser.wait_for("face.done === 3")
        assert browser.run("at('state').textContent").startswith("All are done")
        browser.screenshot(tmp_path / "page.png")
    assert labels(folder) == [("without_mask", "with_mask", "mask_weared_incorrect")] * 2


@pytest.mark.slow
def test_the_command_ends_with_ctrl_c(folder):
    process = subprocess.Popen(
        [sys.executable, "-m", "facemask", "review", str(folder)], cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        for line in process.stderr:
            if found := re.search(r"open http://127\.0\.0\.1:\d+/\?key=\S+; Ctrl-C ends", line):
                break
        assert found
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[1]
        assert process.returncode == 0 and f"0 of 3 faces done, saved to {folder}" in rest
    finally:
        process.kill()


def test_no_such_port(capsys):
    with pytest.raises(SystemExit) as end:
        main(["review", "folder", "--port", "65536"])
    message = "error: argument --port: must be a port from 0 to 65535, received '65536'\n"
    assert end.value.code == 2 and capsys.readouterr().err.endswith(message)

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from facemask.types import Detection, Event, FrameResult
from facemask.video import live_server as serve
from facemask.video.frame_images import FrameImages
from facemask.video.live_server import Camera, LiveServer, State
from tests.video.browser import Browser, needs_chromium

WAIT = 20  # s, for what happens in another thread


@pytest.fixture
def server():
    with LiveServer("127.0.0.1", 0) as server:
        yield server


@pytest.fixture
def camera(server) -> Camera:
    return server.add_camera("door")


def grey(level: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def frame_images(image: np.ndarray, *faces: Detection) -> FrameImages:
    return FrameImages(image, FrameResult(0, 0.0, list(faces), [], [], []))


def face(box=(10, 20, 30, 44), label="without_mask", probability=0.93, track: int | None = 7) -> Detection:
    return Detection(box, 0.9, label, probability, {}, track)


def port(server: LiveServer) -> int:
    return int(server.url.rstrip("/").rsplit(":", 1)[1])


def get(server: LiveServer, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port(server), timeout=WAIT)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def read_part(response: http.client.HTTPResponse) -> np.ndarray:
    """Read the next image of a motion JPEG."""
    assert response.readline() == b"--frame\r\n"
    assert response.readline() == b"Content-Type: image/jpeg\r\n"
    length = int(response.readline().split()[1])
    assert response.readline() == b"\r\n"
    data = response.read(length)
    assert response.readline() == b"\r\n"
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def read_stream(response: http.client.HTTPResponse) -> tuple[dict, bytes]:
    """Read the next part of the stream to a page."""
    head = json.loads(response.readline())
    return head, response.read(head["size"])


def test_page(server):
    response = get(server, "/")
    assert (response.status, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    page = response.read().decode()
    assert "<title>Face masks</title>" in page and "http" not in page  # nothing from elsewhere


def test_state(server):
    state = json.load(get(server, "/state"))
    time.strptime(state.pop("clock"), "%Y-%m-%d %H:%M:%S")
    assert state == {
        "cameras": [],
        "events": [],
        "colours": {"Mask": "#009e73", "No mask": "#d55e00", "Mask worn wrong": "#e69f00"},
    }
    door, till = server.add_camera("door"), server.add_camera("till")
    till.show(frame_images(grey(1)), State(7, 1.5, 24.9, 0.0, {"Mask": 2}, {"No mask": 1}))
    till.show_stall(3.5)
    door.end()
    assert json.load(get(server, "/state"))["cameras"] == [
        {"number": 0, "name": "door", "frames": 0, "time": 0.0, "rate": 0.0, "stalled": 0.0, "faces": {}, "people": {}, "has_ended": True},
        {"number": 1, "name": "till", "frames": 7, "time": 1.5, "rate": 24.9, "stalled": 3.5, "faces": {"Mask": 2}, "people": {"No mask": 1}, "has_ended": False},
    ]  # fmt: skip


def event(track: int, jpeg: bytes | None = None, kind: str = "confirmed") -> Event:
    record = {"event": kind, "track": track, "label": "without_mask", "probability": 0.93, "unsure": False, "source": "door"}
    return Event(record, jpeg)


def test_events_newest_first_with_their_snapshots(server):
    server.add_event(event(1, b"jpeg"))
    server.add_event(event(1, None, "ended"))
    newest, first = json.load(get(server, "/state"))["events"]
    time.strptime(first.pop("clock"), "%H:%M:%S")
    assert first == {
        "id": 0, "event": "confirmed", "label": "No mask", "colour": "#d55e00", "source": "door", "track": 1, "probability": 0.93,
        "snapshot": True,
    }  # fmt: skip
    assert (newest["id"], newest["event"], newest["snapshot"]) == (1, "ended", False)
    response = get(server, "/event/0")
    assert (response.headers["Content-Type"], response.read()) == ("image/jpeg", b"jpeg")
    assert [get(server, f"/event/{number}").status for number in (1, 2)] == [404, 404]


def test_only_the_last_events_are_kept(server, monkeypatch):
    for number in range(serve.EVENTS + 3):
        server.add_event(event(number, b"jpeg"))
    shown = json.load(get(server, "/state"))["events"]
    assert [each["track"] for each in shown] == list(range(serve.EVENTS + 2, 2, -1))
    assert [get(server, f"/event/{number}").status for number in (2, 3)] == [404, 200]


def test_image(server, camera):
    other = server.add_camera("till")
    camera.show(frame_images(grey(50)), State())
    other.show(frame_images(grey(150)), State())
    for path, level in (("/image.jpg", 50), ("/image.jpg/0", 50), ("/image.jpg/1", 150)):
        response = get(server, path)
        assert response.headers["Content-Type"] == "image/jpeg"
        image = cv2.imdecode(np.frombuffer(response.read(), np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (48, 64, 3) and abs(image.mean() - level) < 2


def test_no_image_yet(server, camera, monkeypatch):
    monkeypatch.setattr(serve, "WAIT", 0.1)
    assert get(server, "/image.jpg").status == 503


def test_stream_of_two_cameras(server, camera):
    """Images have no boxes in them: the page draws these, at its own resolution."""
    other = server.add_camera("till")
    camera.show(frame_images(grey(50), face(), face(label="with_mask", probability=0.55, track=None)), State())
    other.show(frame_images(grey(150, 1000, 2000)), State())
    response = get(server, "/stream")
    parts = [read_stream(response) for _ in range(3)]
    state, first, second = (head for head, _ in parts)
    assert [each["name"] for each in state["cameras"]] == ["door", "till"] and state["size"] == 0
    assert first["faces"] == [
        {"box": [10, 20, 30, 44], "text": "7 No mask 93%", "colour": "#d55e00", "unsure": False},
        {"box": [10, 20, 30, 44], "text": "Mask? 55%", "colour": "#009e73", "unsure": True},
    ]
    assert (first["zones"], second["zones"]) == ([], [])
    assert [(head["camera"], head["width"], head["height"]) for head in (first, second)] == [(0, 64, 48), (1, 2000, 1000)]
    images = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for _, data in parts[1:]]
    assert [image.shape for image in images] == [(48, 64, 3), (640, 1280, 3)]
    assert [np.abs(image.astype(int) - level).max() < 4 for image, level in zip(images, (50, 150), strict=True)] == [True, True]
    other.show(frame_images(grey(90)), State())
    while "camera" not in (head := read_stream(response)[0]):
        pass
    assert head["camera"] == 1  # nothing new of the first one


@pytest.mark.parametrize("path", ["/none", "/../README.md", "/live_server.html"])
def test_unknown_path(server, path):
    assert get(server, path).status == 404


def test_video_gives_the_newest_image(server, camera):
    camera.show(frame_images(grey(10)), State())
    response = get(server, "/video")
    assert response.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
    assert abs(read_part(response).mean() - 10) < 2
    for level in (90, 170):
        camera.show(frame_images(grey(level)), State())
        assert abs(read_part(response).mean() - level) < 2


def test_video_with_two_viewers(server, camera):
    camera.show(frame_images(grey(10)), State())
    responses = [get(server, "/video") for _ in range(2)]
    assert [round(read_part(response).mean() / 10) for response in responses] == [1, 1]


NOISE = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), np.uint8)  # more than the system holds for a viewer


@contextmanager
def slow_viewer(server: LiveServer, path: str) -> Iterator[None]:
    """A browser that asks for the video and reads nothing of it."""
    with socket.create_connection(("127.0.0.1", port(server))) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        wait_for(lambda: viewers(server) == 1)
        yield


def viewers(server: LiveServer) -> int:
    return serve.MAX_VIEWERS - server.viewers._value


def wait_for(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not happens():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("path", ["/video", "/stream"])
def test_nobody_waits_for_a_slow_viewer(server, camera, monkeypatch, path):
    """The slow one is still being served when the other has all images: nothing waited until it was dropped."""
    monkeypatch.setattr(serve.Handler, "timeout", WAIT)
    camera.show(frame_images(NOISE), State())
    with slow_viewer(server, path):
        fast = get(server, "/video")
        read_part(fast)
        for level in (90, 170):
            camera.show(frame_images(grey(level)), State())
            assert abs(read_part(fast).mean() - level) < 2
        assert viewers(server) == 2


@pytest.mark.parametrize("path", ["/video", "/stream"])
def test_slow_viewer_is_dropped(server, camera, monkeypatch, path):
    monkeypatch.setattr(serve.Handler, "timeout", 0.1)
    camera.show(frame_images(NOISE), State())
    with slow_viewer(server, path):
        wait_for(lambda: viewers(server) == 0)


def test_viewers_are_limited(monkeypatch):
    monkeypatch.setattr(serve, "MAX_VIEWERS", 1)
    with LiveServer("127.0.0.1", 0) as server:
        camera = server.add_camera("door")
        camera.show(frame_images(grey(10)), State())
        first = get(server, "/video")
        read_part(first)
        assert get(server, "/video").status == 503
        assert get(server, "/state").status == 200


def test_ends_with_viewers():
    with LiveServer("127.0.0.1", 0) as server:
        camera = server.add_camera("door")
        camera.show(frame_images(grey(10)), State())
        response = get(server, "/video")
        read_part(response)
    assert response.read() == b""
    with pytest.raises(ConnectionRefusedError):
        get(server, "/")


@pytest.fixture
def moving(server, camera):
    """The server with two cameras: in one a dark field goes round, in another a face box stands; and an event."""
    other = server.add_camera("till")
    server.add_event(Event(event(7).record, serve.encode_image(grey(120), ".jpg")))
    finished = threading.Event()

    def move() -> None:
        number = 0
        while not finished.wait(0.05):
            image = grey(200, 60, 80)
            left = 7 * number % 60
            image[20:40, left : left + 15] = (0, 255, 0)
            camera.show(frame_images(image), State(number, number / 20, 20.0, 0.0, {"Mask": 3}, {"No mask": 2}))
            other.show(
                frame_images(grey(60, 60, 80), face()), State(number, number / 20, 20.0, 0.0, {"No mask": 1}, {"No mask": 1})
            )
            number += 1

    mover = threading.Thread(target=move)
    mover.start()
    yield server
    finished.set()
    mover.join()


def is_green(image: np.ndarray) -> np.ndarray:
    return (image[..., 1] > 180) & (image[..., 0] < 90) & (image[..., 2] < 90)


@pytest.mark.slow
@needs_chromium
def test_page_of_two_cameras_in_a_browser(moving, tmp_path):
    """The images move, the counts, the clock and the event stand beside them."""
    with Browser(tmp_path / "profile") as browser:
        browser.open(moving.url)
        browser.wait_for("tiles.length === 2 && tiles.every(tile => tile.part)")
        lefts = set()
        deadline = time.monotonic() + WAIT
        while len(lefts) < 3 and time.monotonic() < deadline:
            green = is_green(browser.screenshot())
            assert green.sum() > 100, "no image on the page"
            lefts.add(int(np.flatnonzero(green.any(axis=0))[0]))
        assert len(lefts) == 3, lefts
        assert browser.run("at('faces').innerText.split(/\\s*\\n/).sort().join('|')") == "Mask\t3|No mask\t1"
        assert browser.run("at('people').innerText") == "No mask\t3"
        time.strptime(browser.run("at('clock').textContent"), "%Y-%m-%d %H:%M:%S")
        assert browser.wait_for("[...document.querySelectorAll('#events img')].map(each => each.naturalWidth).join()") == "64"
        assert browser.run("[...document.querySelectorAll('.name')].map(each => each.textContent).join()") == "door,till"
        assert "live · 20.0 frames/s" in browser.run("document.querySelector('.status').textContent")


@pytest.mark.slow
@needs_chromium
def test_text_is_sharp_on_a_small_video(server, camera, tmp_path):
    """A label on a video of 80 x 60 px, shown ten times as large, has edges as sharp as the screen allows."""
    with Browser(tmp_path / "profile") as browser:
        camera.show(frame_images(grey(60, 60, 80), face((20, 30, 60, 58))), State(1))
        browser.open(server.url)
        browser.wait_for("tiles.length && tiles[0].part")
        image = browser.screenshot()
    strip = (np.abs(image - (0, 94, 213)).max(axis=2) < 8) | (image.min(axis=2) > 250)  # the label's colour, and white
    rows = np.flatnonzero((np.abs(image[:, :600] - (0, 94, 213)).max(axis=2) < 8).sum(axis=1) > 60)
    label = image[rows[0] + 2 : rows[0] + 18]
    steps = np.abs(np.diff(label[..., 0], axis=1))
    assert steps.max() > 200, "from the label's colour to white within a pixel"
    assert strip.any()


@pytest.mark.slow
@needs_chromium
def test_browser_connects_again(moving, tmp_path, monkeypatch):
    streams = []

    def stream(self, whole=serve.Handler._stream):
        streams.append(self.path)
        if len(streams) == 1:  # ends at once, as for a viewer that was too slow
            self.head("application/octet-stream")
        else:
            whole(self)

    monkeypatch.setattr(serve.Handler, "_stream", stream)
    with Browser(tmp_path / "profile") as browser:
        browser.open(moving.url)
        browser.wait_for("tiles.length === 2 && tiles.every(tile => tile.part)")
        assert len(streams) == 2 and browser.run("at('connection').textContent") == ""


@pytest.mark.slow
@needs_chromium
def test_states_of_cameras_in_a_browser(server, camera, tmp_path):
    """A camera that gives nothing, one that has ended, and the server that is gone."""
    ended, silent = server.add_camera("ended"), server.add_camera("silent")
    for each in (camera, ended, silent):
        each.show(frame_images(grey(60)), State(1, 1.0, 20.0, 0.0, {"Mask": 1}))
    ended.end()
    silent.show_stall(7.2)
    with Browser(tmp_path / "profile") as browser:
        browser.open(server.url)
        browser.wait_for("tiles.length === 3 && tiles.every(tile => tile.part)")
        assert browser.run("tiles.map(tile => tile.status.textContent.split(' · ')[0]).join()") == "live,ended,no image"
        assert browser.run("tiles.map(tile => tile.notice.textContent).join()") == ",,no image for 7 s"
        assert browser.run("at('faces').innerText") == "Mask\t1"  # of those who are there
        server.__exit__()
        browser.wait_for("at('connection').textContent === 'not running'")

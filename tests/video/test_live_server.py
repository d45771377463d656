import http.client
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from facemask.errors import InputError
from facemask.video import live_server as serve
from facemask.video.live_server import LiveServer, State

WAIT = 20  # s, for what happens in another thread


@pytest.fixture
def server():
    with LiveServer("127.0.0.1", 0) as server:
        yield server


def grey(level: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


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


def test_page(server):
    response = get(server, "/")
    assert (response.status, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    page = response.read().decode()
    assert "<title>Face masks</title>" in page and "http" not in page.replace("http-equiv", "")  # nothing from elsewhere


def test_state(server):
    assert json.load(get(server, "/state")) == {"sources": [], "watching": False}
    server.states += [State("door", 7, 1.5, 24.9, 3.5, {"Mask": 2}, {"No mask": 1}), State("till")]
    door, till = json.load(get(server, "/state?1"))["sources"]
    assert door == {
        "source": "door", "frames": 7, "time": 1.5, "rate": 24.9, "stalled": 3.5, "faces": {"Mask": 2}, "people": {"No mask": 1}
    }  # fmt: skip
    assert till == {"source": "till", "frames": 0, "time": 0.0, "rate": 0.0, "stalled": 0.0, "faces": {}, "people": {}}


def test_image(server):
    server.show(grey(50))
    response = get(server, "/picture.jpg")
    assert response.headers["Content-Type"] == "image/jpeg"
    image = cv2.imdecode(np.frombuffer(response.read(), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (48, 64, 3) and abs(image.mean() - 50) < 2


def test_no_image_yet(server, monkeypatch):
    monkeypatch.setattr(serve, "WAIT", 0.1)
    assert get(server, "/picture.jpg").status == 503


@pytest.mark.parametrize("path", ["/none", "/../README.md", "/live_server.html"])
def test_unknown_path(server, path):
    assert get(server, path).status == 404


def test_video_gives_the_newest_image(server):
    server.show(grey(10))
    response = get(server, "/video")
    assert response.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
    assert abs(read_part(response).mean() - 10) < 2
    for level in (90, 170):
        server.show(grey(level))
        assert abs(read_part(response).mean() - level) < 2


def test_state_tells_who_watches(server):
    server.show(grey(10))
    response = get(server, "/video?me")
    read_part(response)
    assert [json.load(get(server, f"/state?{name}"))["watching"] for name in ("me", "you", "")] == [True, False, False]
    response.close()
    deadline = time.monotonic() + WAIT
    while json.load(get(server, "/state?me"))["watching"] and time.monotonic() < deadline:
        server.show(grey(20))
    assert not json.load(get(server, "/state?me"))["watching"]


def test_video_with_two_viewers(server):
    server.show(grey(10))
    responses = [get(server, "/video") for _ in range(2)]
    assert [round(read_part(response).mean() / 10) for response in responses] == [1, 1]


NOISE = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), np.uint8)  # more than the system holds for a viewer


@contextmanager
def slow_viewer(server: LiveServer) -> Iterator[None]:
    """A browser that asks for the video and reads nothing of it."""
    with socket.create_connection(("127.0.0.1", port(server))) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /video?slow HTTP/1.0\r\nHost: localhost\r\n\r\n")
        wait_for(lambda: "slow" in server.watching)
        yield


def wait_for(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not happens():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_nobody_waits_for_a_slow_viewer(server, monkeypatch):
    """The slow one is still being served when the other has all images: nothing waited until it was dropped."""
    monkeypatch.setattr(serve.Handler, "timeout", WAIT)
    server.show(NOISE)
    with slow_viewer(server):
        fast = get(server, "/video")
        read_part(fast)
        for level in (90, 170):
            server.show(grey(level))
            assert abs(read_part(fast).mean() - level) < 2
        assert "slow" in server.watching


def test_slow_viewer_is_dropped(server, monkeypatch):
    monkeypatch.setattr(serve.Handler, "timeout", 0.1)
    server.show(NOISE)
    with slow_viewer(server):
        wait_for(lambda: not server.watching)
    wait_for(lambda: server.viewers._value == serve.MAX_VIEWERS)


def test_viewers_are_limited(monkeypatch):
    monkeypatch.setattr(serve, "MAX_VIEWERS", 1)
    with LiveServer("127.0.0.1", 0) as server:
        server.show(grey(10))
        first = get(server, "/video")
        read_part(first)
        assert get(server, "/video").status == 503
        assert get(server, "/state").status == 200


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:80", 200),
        ("[::1]", 200),
        ("evil.example", 403),
        ("evil.example:80", 403),
        ("", 403),
    ],
)
def test_other_names_of_this_machine_are_refused(server, name, status):
    assert get(server, "/state", Host=name).status == status


def test_other_names_are_right_where_others_may_watch():
    with LiveServer("0.0.0.0", 0) as server:
        assert not server.is_local
        assert get(server, "/state", Host="desk.example").status == 200


def test_no_other_site_may_embed_it(server):
    assert get(server, "/state").headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_port_taken(server):
    with pytest.raises(InputError) as error:
        LiveServer("127.0.0.1", port(server))
    assert str(error.value) == (
        f"--serve 127.0.0.1:{port(server)}: cannot listen (Address already in use); choose another port or host"
    )


def test_no_such_host():
    with pytest.raises(InputError, match=r"--serve 192\.0\.2\.1:80: cannot listen \(.*\); choose another port or host"):
        LiveServer("192.0.2.1", 80)


def test_ends_with_viewers():
    with LiveServer("127.0.0.1", 0) as server:
        server.show(grey(10))
        response = get(server, "/video")
        read_part(response)
    assert response.read() == b""
    with pytest.raises(ConnectionRefusedError):
        get(server, "/")


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMIUM_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=900,500",
]


def screenshot(url: str, path: Path, seconds: int) -> np.ndarray:
    profile, budget = f"--user-data-dir={path.with_suffix('')}", f"--virtual-time-budget={1000 * seconds}"
    command = [CHROMIUM, *CHROMIUM_OPTIONS, profile, f"--screenshot={path}", budget, url]
    result = subprocess.run(command, capture_output=True, timeout=120)
    assert path.exists(), result.stderr.decode()[-2000:]
    return cv2.imread(str(path)).astype(int)


@pytest.fixture
def moving(server):
    """The server with a green box that goes round."""
    finished = threading.Event()

    def move() -> None:
        number = 0
        while not finished.wait(0.05):
            image = grey(40, 240, 320)
            left = 10 + 11 * number % 240
            cv2.rectangle(image, (left, 80), (left + 60, 160), (0, 255, 0), 4)
            server.states[:] = [State("camera 0", number, number / 20, 20.0, 0.0, {"Mask": 3}, {"No mask": 2})]
            server.show(image)
            number += 1

    mover = threading.Thread(target=move)
    mover.start()
    yield server
    finished.set()
    mover.join()


def is_green(image: np.ndarray) -> np.ndarray:
    return (image[..., 1] > 180) & (image[..., 0] < 90) & (image[..., 2] < 90)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")
def test_browser_asks_again_for_a_video_that_ended(moving, tmp_path, monkeypatch):
    streams = []

    def stream(self, live, whole=serve.Handler._stream):
        streams.append(self.path)
        if self.path == streams[0]:  # ends at once, as for a viewer that was too slow
            self._head("multipart/x-mixed-replace; boundary=frame")
        else:
            whole(self, live)

    monkeypatch.setattr(serve.Handler, "_stream", stream)
    image = screenshot(moving.url, tmp_path / "page.png", 8)
    assert len(set(streams)) >= 2
    assert is_green(image).sum() > 100


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")
def test_browser_shows_boxes_that_move(moving, tmp_path):
    """Screenshots of the page: the box goes round, the counts stand beside it."""
    lefts = []
    for number in range(3):
        image = screenshot(moving.url, tmp_path / f"{number}.png", 3)
        green = is_green(image)
        assert green.sum() > 100, "no box on the page"
        lefts.append(int(np.flatnonzero(green.any(axis=0))[0]))
        assert (image[:200, 690:].min(axis=2) > 150).sum() > 50, "no counts on the page"
    assert len(set(lefts)) > 1, lefts

"""The page to try detection in: a real server, real uploads, results equal to the image script's."""

import http.client
import json
import logging
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from urllib.parse import urlencode

import cv2
import numpy as np
import pytest
from PIL import Image

import detect_mask_image
from facemask import __main__ as commands
from facemask.api import load_detector
from facemask.app import server as app
from facemask.app.detection import PREVIEW_SIDE, PageDetector
from facemask.app.server import AppServer
from facemask.io.images import MAX_PIXELS
from facemask.serving.page_access import tls_context
from tests.helpers import EXAMPLES, ROOT

WAIT = 60  # s, on a busy machine
PEOPLE, OBAMA = ((EXAMPLES / name).read_bytes() for name in ("people.jpg", "obama_mask.jpg"))
OBAMA_SIZE = Image.open(BytesIO(OBAMA)).size
CERTIFICATE, KEY = (ROOT / "tests" / "serving" / name for name in ("tls_cert.pem", "tls_key.pem"))
PASSWORD = "open sesame"


@pytest.fixture(scope="module")
def detector():
    return load_detector()


@pytest.fixture
def server(detector, monkeypatch):
    monkeypatch.setattr(app.Handler, "timeout", WAIT)
    with AppServer(PageDetector(detector, 0.5, MAX_PIXELS), "127.0.0.1", 0) as server:
        yield server


def post(server: AppServer, path: str, data: bytes, **headers: str) -> http.client.HTTPResponse:
    if server.tls:
        context = ssl.create_default_context(cafile=str(CERTIFICATE))
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=WAIT, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT)
    headers = {"X-Page": "1"} | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", path, data, {name: value for name, value in headers.items() if value})
    return connection.getresponse()


def named(path: str, name: str, **parameters: str) -> str:
    return f"{path}?{urlencode({'name': name} | parameters)}"


def detect(server: AppServer, name: str, data: bytes, **parameters: str) -> tuple[dict, bytes]:
    """Return the line of JSON and the preview that the page gets."""
    response = post(server, named("/detect", name, **parameters), data)
    head, _, preview = response.read().partition(b"\n")
    assert response.status == 200, head
    return json.loads(head), preview


def refusal(response: http.client.HTTPResponse) -> tuple[int, str]:
    return response.status, response.read().decode()


def pillow(kind: str, image: Image.Image | None = None, **options) -> bytes:
    if image is None:
        image = Image.open(BytesIO(OBAMA))
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rotated_by_exif() -> bytes:
    image = Image.open(BytesIO(OBAMA))
    exif = image.getexif()
    exif[0x0112] = 6
    return pillow("JPEG", image.rotate(90, expand=True), exif=exif, quality=95)


def heic() -> bytes:
    from pillow_heif import from_pillow

    buffer = BytesIO()
    from_pillow(Image.open(BytesIO(OBAMA)).resize((320, 384))).save(buffer)
    return buffer.getvalue()


def large() -> bytes:
    return pillow("JPEG", Image.open(BytesIO(PEOPLE)).resize((4872, 2560), Image.Resampling.BICUBIC), quality=90)


def upside_down() -> bytes:
    """Return an image whose face is found only when it is turned."""
    return pillow("PNG", Image.open(EXAMPLES / "biden.jpg").rotate(180))


@pytest.mark.parametrize(
    ("name", "make", "size"),
    [
        pytest.param("people.jpg", lambda: PEOPLE, (1218, 640), id="JPEG"),
        pytest.param("größe, 2.JPG", rotated_by_exif, OBAMA_SIZE, id="turned by EXIF"),
        pytest.param("down.png", upside_down, (810, 860), id="upside down"),
        pytest.param("large.jpg", large, (4872, 2560), id="decoded reduced"),
        pytest.param("a.tif", lambda: pillow("TIFF"), OBAMA_SIZE, id="TIFF"),
        pytest.param("a.heic", heic, (320, 384), id="HEIC"),
        pytest.param("a.gif", lambda: pillow("GIF"), OBAMA_SIZE, id="GIF"),
        pytest.param("empty.bmp", lambda: pillow("BMP", Image.new("RGB", (64, 48))), (64, 48), id="no face"),
    ],
)
def test_results_are_those_of_the_image_script(server, tmp_path, monkeypatch, name, make, size):
    monkeypatch.chdir(tmp_path)
    data = make()
    Path(name).write_bytes(data)
    assert detect_mask_image.main(["-i", name, "--jsonl", "o.jsonl", "--csv", "o.csv", "-o", "out/"]) == 0
    head, preview = detect(server, name, data)
    record = json.loads(Path("o.jsonl").read_text())
    del record["annotated"]
    assert head["json"] == json.dumps(record) + "\n"
    assert head["csv"] == Path("o.csv").read_bytes().decode()
    assert (head["width"], head["height"], head["note"]) == (*size, "")
    assert [face["box"] for face in head["faces"]] == [face["box"] for face in record["faces"]]
    assert bool(record["faces"]) == (name != "empty.bmp")
    annotated = post(server, named("/annotated", name), data)
    (written,) = Path("out").iterdir()
    assert (annotated.headers["X-Suffix"], annotated.read()) == (written.suffix, written.read_bytes())
    image = cv2.imdecode(np.frombuffer(preview, np.uint8), cv2.IMREAD_COLOR)
    scale = min(1, PREVIEW_SIDE / max(size))
    assert image.shape[1::-1] == tuple(round(scale * side) for side in size)
    upright = cv2.resize(cv2.imread(str(written)), image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - upright).mean() < 12  # the boxes, and two compressions


def test_what_the_page_draws(server):
    faces = detect(server, "people.jpg", PEOPLE)[0]["faces"]
    assert {face["name"]: face["colour"] for face in faces} == {
        "Mask": "#009e73", "No mask": "#d55e00", "Mask worn wrong": "#e69f00",
    }  # fmt: skip
    assert all(re.fullmatch(rf"{face['name']} \d+(\.\d)?%", face["text"]) and not face["unsure"] for face in faces)


def test_a_frame_is_upright_and_gets_no_preview(server):
    head, preview = detect(server, "camera.jpg", PEOPLE, frame="")
    assert len(head["faces"]) == 8 and preview == b""
    data = upside_down()
    assert len(detect(server, "down.png", data)[0]["faces"]) == 1
    assert detect(server, "down.png", data, frame="")[0]["faces"] == []


@pytest.mark.parametrize(
    ("name", "data"),
    [
        pytest.param("a.jpg", b"", id="empty"),
        pytest.param("a.jpg", b"text", id="text"),
        pytest.param("a.jpg", PEOPLE[:20000], id="cut off"),
        pytest.param("a b.mp4", b"\0\0\0\x18ftypisom" + bytes(99), id="video"),
        pytest.param("a.nef", pillow("TIFF", Image.new("RGB", (8, 8))), id="camera raw"),
        pytest.param("a.png", pillow("PNG", Image.new("1", (20000, 15000))), id="300 megapixels"),
    ],
)
@pytest.mark.parametrize("path", ["/detect", "/annotated"])
def test_unusable_file_gets_the_line_of_the_image_script(server, tmp_path, monkeypatch, capsys, path, name, data):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(data)
    assert detect_mask_image.main(["-i", name]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert refusal(post(server, named(path, name), data)) == (422, f"{line.removeprefix('error: ')}\n")


def test_options_of_the_image_script(detector):
    detector = replace(detector, faces=replace(detector.faces, max_faces=3))
    with AppServer(PageDetector(detector, 0.5, 10_000), "127.0.0.1", 0) as server:
        message = "people.jpg: 1218 x 640 pixels are more than 10000; make it smaller, or raise --max-pixels\n"
        assert refusal(post(server, named("/detect", "people.jpg"), PEOPLE)) == (422, message)
    with AppServer(PageDetector(detector, 0.5, MAX_PIXELS), "127.0.0.1", 0) as server:
        head = detect(server, "people.jpg", PEOPLE)[0]
        assert head["note"] == "people.jpg: only its 3 most confident faces are kept; --max-faces keeps more"
    with AppServer(PageDetector(detector, 1.0, MAX_PIXELS), "127.0.0.1", 0) as server:
        assert detect(server, "people.jpg", PEOPLE)[0]["faces"] == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [("../../etc/a.jpg", "a.jpg"), ("C:\\x\\a.jpg", "a.jpg"), ("", "image"), ("a/", "image"), ("x" * 300, "x" * 255)],
)
def test_names(server, name, shown):
    assert refusal(post(server, named("/detect", name), b"text"))[1].startswith(f"{shown}: not a supported image")


def test_message_is_one_line(server):
    assert refusal(post(server, named("/detect", "a\r\nb"), b"text"))[1].startswith("a\\r\\nb: not")


def test_large_uploads_are_refused(server, monkeypatch):
    monkeypatch.setattr(app, "MAX_UPLOAD", 1 << 20)
    refused = 413, "a.jpg: more than 1 MB; make it smaller\n"
    assert refusal(post(server, named("/detect", "a.jpg"), bytes((1 << 20) + 1))) == refused
    assert refusal(post(server, named("/detect", "a.jpg"), bytes(15 << 20))) == refused
    with socket.create_connection(("127.0.0.1", server.port), WAIT) as client:  # nothing is received that is not needed
        client.sendall(b"POST /detect?name=a.jpg HTTP/1.0\r\nHost: localhost\r\nX-Page: 1\r\nContent-Length: 99999999999\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.0 413"
    assert refusal(post(server, named("/detect", "a.jpg"), bytes(1 << 20)))[0] == 422


@pytest.mark.parametrize("length", ["", "-1", "text"])
def test_uploads_state_their_size(server, length):
    head = f"POST /detect?name=a.jpg HTTP/1.0\r\nHost: localhost\r\nX-Page: 1\r\nContent-Length: {length}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), WAIT) as client:
        client.sendall(head.encode())
        assert client.recv(12) == b"HTTP/1.0 411"


@pytest.mark.parametrize("path", ["/detect", "/annotated"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 200, id="of the page"),
        pytest.param({"X_Page": ""}, 403, id="without the page's header"),
        pytest.param({"Origin": "https://evil.example"}, 403, id="of another site"),
        pytest.param({"Origin": "null", "X_Page": ""}, 403, id="of a sandbox"),
        pytest.param({"Host": "evil.example"}, 403, id="by another name"),
    ],
)
def test_posts_from_elsewhere(server, path, headers, status):
    assert post(server, named(path, "people.jpg"), PEOPLE, **headers).status == status


def test_another_site_may_not_ask_for_the_header(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT)
    connection.request(
        "OPTIONS", "/detect", headers={"Origin": "https://evil.example", "Access-Control-Request-Headers": "x-page"}
    )
    response = connection.getresponse()
    assert response.status == 501 and "Access-Control-Allow-Origin" not in response.headers


def test_page(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT)
    connection.request("GET", "/")
    response = connection.getresponse()
    page = response.read().decode()
    assert (response.status, "{{" in page, "/* page" in page, "://" in page) == (200, False, False, False)
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ") and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert [post(server, path, b"").status for path in ("/", "/none", "/login")] == [404, 404, 404]


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_nothing_without_the_password(detector, tls):
    context = tls_context(CERTIFICATE, KEY) if tls else None
    with AppServer(PageDetector(detector, 0.5, MAX_PIXELS), "127.0.0.1", 0, PASSWORD, context) as server:
        assert refusal(post(server, named("/detect", "people.jpg"), PEOPLE)) == (401, "Unauthorized\n")
        answer = post(server, "/login", urlencode({"password": PASSWORD}).encode(), X_Page="")
        cookie = answer.headers["Set-Cookie"].split(";")[0]
        assert answer.status == 303
        assert post(server, named("/detect", "people.jpg"), PEOPLE, Cookie=cookie).status == 200


def hold_places(monkeypatch, server: AppServer, seconds: float) -> None:
    monkeypatch.setattr(app, "MAX_WAIT", seconds)
    for _ in range(app.MAX_UPLOADS):
        assert server.places.acquire(blocking=False)


def test_too_many_at_once(server, monkeypatch):
    hold_places(monkeypatch, server, 0.05)
    response = post(server, named("/detect", "people.jpg"), PEOPLE)
    assert response.headers["Retry-After"] == "2"
    assert refusal(response) == (503, "people.jpg: not done, as too many images wait; try again\n")


def test_images_wait_for_a_place(server, monkeypatch):
    hold_places(monkeypatch, server, WAIT)
    threading.Timer(0.3, server.places.release).start()
    assert len(detect(server, "people.jpg", PEOPLE)[0]["faces"]) == 8


def wait_for(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not happens():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("is_silent", [False, True], ids=["goes", "sends no more"])
def test_unfinished_upload_gives_its_place_back(server, monkeypatch, is_silent):
    monkeypatch.setattr(app.Handler, "timeout", 0.3)
    with socket.create_connection(("127.0.0.1", server.port), WAIT) as client:
        client.sendall(b"POST /detect?name=a.jpg HTTP/1.0\r\nHost: localhost\r\nX-Page: 1\r\nContent-Length: 1000\r\n\r\n")
        wait_for(lambda: server.places._value == app.MAX_UPLOADS - 1)
        client.sendall(b"half of it")
        if not is_silent:
            client.close()
        wait_for(lambda: server.places._value == app.MAX_UPLOADS)


def test_slow_upload_is_given_up(server, monkeypatch):
    monkeypatch.setattr(app, "MAX_RECEIVING", 0.3)
    with socket.create_connection(("127.0.0.1", server.port), WAIT) as client:
        client.sendall(b"POST /detect?name=a.jpg HTTP/1.0\r\nHost: localhost\r\nX-Page: 1\r\nContent-Length: 1000\r\n\r\n")
        with pytest.raises(OSError):
            for _ in range(WAIT * 10):
                client.sendall(b"x")
                time.sleep(0.1)
    wait_for(lambda: server.places._value == app.MAX_UPLOADS)


class Watched:
    """A detector that counts how many calls run at once."""

    def __init__(self, detector) -> None:
        self._detector, self._running, self._lock, self.most = detector, 0, threading.Lock(), 0

    def detect_file(self, *arguments, **options):
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
        time.sleep(0.02)
        result = self._detector.detect_file(*arguments, **options)
        with self._lock:
            self._running -= 1
        return result


def test_several_browsers_at_once(server, detector, monkeypatch):
    """Each gets its own results, and images are detected one after the other."""
    watched = Watched(detector)
    monkeypatch.setattr(server.detector, "_detector", watched)
    files = {name: (EXAMPLES / name).read_bytes() for name in ("obama.jpg", "biden_mask.jpg", "astronaut.jpg")}
    alone = {name: detect(server, name, data)[0]["json"] for name, data in files.items()}
    together: list[tuple[str, str]] = []

    def browse(names: list[str]) -> None:
        together.extend((name, detect(server, name, files[name])[0]["json"]) for name in names)

    threads = [threading.Thread(target=browse, args=([*files][number:],)) for number in (0, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(together) == 3 + 2 + 3 and all(alone[name] == line for name, line in together)
    assert watched.most == 1 and len(set(alone.values())) == 3


@pytest.mark.parametrize(
    ("error", "status", "message", "logged"),
    [
        (MemoryError(), 507, "a.jpg: there is not enough memory; make it smaller\n", []),
        (cv2.error("failed"), 500, "a.jpg: detection failed (error); try another image\n", ["a.jpg: detection failed (failed)"]),
    ],
)
def test_failure_in_detection(server, monkeypatch, caplog, error, status, message, logged):
    caplog.set_level(logging.INFO)

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(type(server.detector), "_detect", fail)
        assert refusal(post(server, named("/detect", "a.jpg"), PEOPLE)) == (status, message)
    assert caplog.messages == logged
    assert len(detect(server, "people.jpg", PEOPLE)[0]["faces"]) == 8  # others are still served


def test_annotated_image_that_its_format_cannot_hold(server):
    data = pillow("BMP", Image.new("RGB", (17000, 8)))  # WebP has 16383 px at most
    answer = post(server, named("/annotated", "wide.webp"), data)
    assert (answer.headers["X-Suffix"], answer.headers["Content-Type"], answer.read()[:4]) == (".png", "image/png", b"\x89PNG")


def test_command(tmp_path):
    command = [sys.executable, "-m", "facemask", "app", "--port", "0", "--max-faces", "3"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        lines = []
        for line in process.stderr:
            lines.append(line.strip())
            if line.endswith("Ctrl-C ends\n"):
                break
        (url,) = [line.removeprefix("[INFO] open ") for line in lines if line.startswith("[INFO] open ")]
        connection = http.client.HTTPConnection(
            "127.0.0.1", int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", url)[1]), timeout=WAIT
        )
        connection.request("POST", named("/detect", "people.jpg"), PEOPLE, {"X-Page": "1"})
        record = json.loads(json.loads(connection.getresponse().readline())["json"])
        assert len(record["faces"]) == 3
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT) == 0 and process.stderr.read() == ""
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tls-key", "k.pem"], "--tls-key needs --tls-cert"),
        (["--port", "65536"], "argument --port: must be a port from 0 to 65535, received '65536'"),
        (["--host", ""], "argument --host: must not be empty"),
    ],
)
def test_wrong_usage(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        commands.main(["app", *arguments])
    assert end.value.code == 2 and capsys.readouterr().err.endswith(f"python -m facemask app: error: {message}\n")

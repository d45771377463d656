"""Show the live video of each camera, the counts and the last events to browsers."""

import ipaddress
import json
import logging
import os
import re
import socket
import ssl
import sys
import threading
import time
from base64 import b64encode
from collections import deque
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np

from facemask.drawing import tracked_label
from facemask.errors import InputError
from facemask.io.images import encode_image
from facemask.labels import STYLES, colour, display_name
from facemask.serving import page_access
from facemask.serving.page_access import Access, basic_password, make_password, tls_context
from facemask.types import Event
from facemask.video.frame_images import FrameImages

PAGE = Path(__file__).with_name("live_server.html")
LOGIN_PAGE = Path(page_access.__file__).with_name("login.html")
BOUNDARY = "frame"
JPEG_QUALITY = 80
PAGE_SIZE = 1280  # px, the longest side of images on the page, where the browser draws boxes and text
EVENTS = 20  # the last ones, that the page shows
SEND_TIMEOUT = 5.0  # s that a browser may take to accept an image, or for its request; then it is dropped
MAX_VIEWERS = 16
MAX_CONNECTIONS = 128  # at once, of viewers and others
MAX_FORM = 4096  # bytes
SEND_BUFFER = 128 << 10  # bytes: what the system holds for a slow viewer is old when it arrives
WAIT = 1.0  # s for a new image, before it is checked whether the server is to stop
STATE_INTERVAL = 0.5  # s between two states that a page gets
POLL = 0.1  # s, after which the server notices that it is to stop
PASSWORD_VARIABLE = "FACEMASK_PASSWORD"

logger = logging.getLogger(__name__)


@dataclass
class State:
    """What the page shows beside the video of a camera."""

    frames: int = 0
    time: float = 0.0  # s, of the frame shown
    rate: float = 0.0  # frames per second
    stalled: float = 0.0  # s since the last frame, while the source gives none
    faces: dict[str, int] = field(default_factory=dict)  # in the frame, by displayed label
    people: dict[str, int] = field(default_factory=dict)  # whose label was confirmed so far, by displayed label
    has_ended: bool = False


class Camera:
    """One source, as browsers see it."""

    def __init__(self, number: int, name: str, changed: threading.Condition) -> None:
        """`number` is unique among the images. `changed` is notified of each new one."""
        self.number, self.name = number, name
        self.state = State()
        self.shown = 0  # images so far
        self._images: FrameImages | None = None
        self._changed = changed
        self._encoding = threading.Lock()
        self._annotated = self._part = (0, b"")  # number of the image, and its bytes

    def show(self, images: FrameImages, state: State) -> None:
        """Send an image to browsers from now on; returns at once."""
        with self._changed:
            self._images, self.state = images, state
            self.shown += 1
            self._changed.notify_all()

    def show_stall(self, seconds: float) -> None:
        """Show on the page for how long there has been no new image."""
        self.state.stalled = seconds

    def end(self) -> None:
        """Show on the page that this source has ended."""
        self.state.has_ended = True

    def annotated(self) -> tuple[int, bytes]:
        """Return the number of the newest image, from 1, and its bytes as JPEG, with boxes and labels; 0 if there is none."""
        with self._encoding:  # once for all browsers
            number, images = self._newest()
            if images is not None and self._annotated[0] < number:
                self._annotated = number, _encode(images.annotated)
            return self._annotated

    def part(self) -> tuple[int, bytes]:
        """Return the number of the newest image, from 1, and its bytes as in a page's stream; 0 if there is none.

        The page draws boxes and labels itself, so that they are sharp however small the video is.
        """
        with self._encoding:
            number, images = self._newest()
            if images is not None and self._part[0] < number:
                image = images.plain
                height, width = image.shape[:2]
                scale = PAGE_SIZE / max(height, width)
                if scale < 1:
                    size = max(round(scale * width), 1), max(round(scale * height), 1)
                    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
                faces = [
                    {"box": face.box, "text": tracked_label(face), "colour": _css_colour(face.label), "unsure": face.is_unsure}
                    for face in images.result.faces
                ]
                zones = [{"name": name, "points": polygon.tolist()} for name, polygon in images.zones]
                head = {"camera": self.number, "width": width, "height": height, "faces": faces, "zones": zones}
                self._part = number, stream_part(head, _encode(image))
            return self._part

    def _newest(self) -> tuple[int, FrameImages | None]:
        with self._changed:
            return self.shown, self._images


def stream_part(head: dict, body: bytes = b"") -> bytes:
    """Return a part of the stream to a page: a line of JSON that says how many bytes follow it, and these."""
    return json.dumps({**head, "size": len(body)}).encode() + b"\n" + body


def _encode(image: np.ndarray) -> bytes:
    return encode_image(image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]) or b""


def _css_colour(label: str) -> str:
    blue, green, red = colour(label)
    return f"#{red:02x}{green:02x}{blue:02x}"


class LiveServer(AbstractContextManager):
    """An HTTP server with a page that shows all cameras, each camera as motion JPEG, and the counts as JSON.

    Each browser is served in a thread of its own and gets the newest images when it is ready for them; the video waits
    for none.
    """

    def __init__(self, host: str, port: int, password: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        """Listen; with a `password`, only those who have it get anything.

        Raises InputError if it cannot listen. Port 0 is any free one; `url` has it.
        """
        self.cameras: list[Camera] = []  # in the order of their places; a new list when it changes
        self._numbers = count()
        self.access = Access(password) if password else None
        self.tls = tls
        self.changed = threading.Condition()
        self.stopped = False
        self.viewers = threading.BoundedSemaphore(MAX_VIEWERS)
        self._events: deque[tuple[dict, bytes | None]] = deque(maxlen=EVENTS)
        self._event_count = 0
        self.is_local = is_local_host(host)

        try:
            self._server = _Server(self, host, port)
        except (OSError, TypeError, UnicodeError) as error:  # the latter two if the name is not a host name
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"--serve {host}:{port}: cannot listen ({reason}); choose another port or host") from error
        shown = f"[{host}]" if ":" in host else host
        self.port = self._server.server_port
        self.url = f"{'https' if tls else 'http'}://{shown}:{self.port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL,), name="serve", daemon=True)
        self._thread.start()

    def add_camera(self, name: str) -> Camera:
        """Add a source, called `name` on the page, in place of those that have ended."""
        camera = Camera(next(self._numbers), name, self.changed)
        self.cameras = [*(each for each in self.cameras if not each.state.has_ended), camera]
        return camera

    def add_event(self, event: Event) -> None:
        """Show an event, with its snapshot if it has one."""
        record = event.record
        shown = {
            "id": self._event_count,
            "clock": time.strftime("%H:%M:%S"),
            "event": record["event"],
            "label": display_name(record["label"], record["unsure"]),
            "colour": _css_colour(record["label"]),
            "source": record.get("source", ""),
            "track": record["track"],
            "probability": record["probability"],
            "snapshot": event.jpeg is not None,
        }
        self._event_count += 1
        self._events.append((shown, event.jpeg))

    def snapshot(self, number: int) -> bytes | None:
        """Return the snapshot of one of the last events as JPEG, None if it has none."""
        return next((jpeg for shown, jpeg in list(self._events) if shown["id"] == number), None)

    def state(self) -> dict:
        """Return, for JSON, everything that the page shows except images."""
        return {
            "clock": time.strftime("%Y-%m-%d %H:%M:%S"),
            "cameras": [{"number": camera.number, "name": camera.name, **asdict(camera.state)} for camera in self.cameras],
            "events": [shown for shown, _ in reversed(list(self._events))],
            "colours": {display_name(label): _css_colour(label) for label in STYLES},
        }

    def wait(self, camera: Camera, after: int) -> bool:
        """Wait for an image of a camera with a number above `after`; return whether there is one."""
        with self.changed:
            return self.changed.wait_for(lambda: camera.shown > after or self.stopped, WAIT) and not self.stopped

    def __exit__(self, *_: object) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()


def open_page(address: tuple[str, int], password: str | None, certificate: Path | None, key: Path | None) -> LiveServer:
    """Start the page at `address`, a host and a port, and say where it is.

    Without `password` the environment variable FACEMASK_PASSWORD holds it. Without both, one is made and printed if other
    machines reach the page. `certificate` and `key` are files in PEM format. Raises InputError if one cannot be used.
    """
    host, port = address
    is_local = is_local_host(host)
    tls = tls_context(certificate, key) if certificate else None
    given = password or os.environ.get(PASSWORD_VARIABLE)
    made = None if given or is_local else make_password()
    server = LiveServer(host, port, given or made, tls)
    logger.info("watch at %s%s", server.url, f" with the password {made}" if made else "")
    if not is_local and tls is None:
        logger.warning("--serve: whoever is on the network between can read the password and the video; --tls-cert encrypts")
    return server


def reuses_address(platform: str) -> bool:
    """Return whether SO_REUSEADDR is right: on Windows it would let two runs listen on one port."""
    return platform != "win32"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # connections that wait to be accepted; with the default of 5 some wait for seconds
    allow_reuse_port = False  # two runs never share a port
    allow_reuse_address = reuses_address(sys.platform)

    def __init__(self, live: LiveServer, host: str, port: int) -> None:
        self.live = live
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.connections = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__((host, port), Handler)

    def server_bind(self) -> None:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        super().server_bind()

    def process_request(self, request, client_address) -> None:
        if self.connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request, client_address) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.release()

    def finish_request(self, request, client_address) -> None:
        if self.live.tls is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(SEND_TIMEOUT)
        with self.live.tls.wrap_socket(request, server_side=True) as encrypted:  # in this thread: others do not wait
            super().finish_request(encrypted, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing: browsers come and go."""


class Handler(BaseHTTPRequestHandler):
    """Answers one browser."""

    server: _Server

    timeout = SEND_TIMEOUT
    server_version, sys_version = "facemask", ""

    def do_GET(self) -> None:
        if not self._is_named_right():
            self.send_error(HTTPStatus.FORBIDDEN, "open it as localhost or 127.0.0.1")
        elif self._is_let_in():
            self._answer(urlsplit(self.path).path)

    def do_POST(self) -> None:
        """Receive the password of the login form."""
        live = self.server.live
        length = self.headers.get("Content-Length", "")
        if not self._is_named_right() or not self._is_from_here():
            self.send_error(HTTPStatus.FORBIDDEN, "not from this page")
        elif live.access is None or self.path != "/login":
            self.send_error(HTTPStatus.NOT_FOUND)
        elif not length.isdecimal() or int(length) > MAX_FORM:
            self.send_error(HTTPStatus.BAD_REQUEST, "not a login form")
        else:
            form = parse_qs(self.rfile.read(int(length)).decode(errors="replace"))
            is_right = live.access.check(form.get("password", [""])[0], self.client_address[0])
            if is_right:
                cookie = live.access.cookie(self._cookie_name(), live.tls is not None)
                self._head("text/plain", 0, HTTPStatus.SEE_OTHER, {"Set-Cookie": cookie, "Location": "/"})
            else:
                self._ask_for_password(
                    "too many wrong passwords: wait a minute" if is_right is None else "wrong password", is_right
                )

    def _is_named_right(self) -> bool:
        """Return whether the Host is this machine, as a foreign page may make its own name mean it (DNS rebinding).

        Where a password is asked for, the browser gives the cookie to no other name.
        """
        return not self.server.live.is_local or _is_local_name(self.headers.get("Host", ""))

    def _is_from_here(self) -> bool:
        """Return whether a form was sent by this page, as far as the browser says from which it came."""
        origin = self.headers.get("Origin")
        return origin in (None, "null") or urlsplit(origin).netloc == self.headers.get("Host")

    def _cookie_name(self) -> str:
        return f"facemask_{self.server.live.port}"  # browsers do not keep the cookies of ports apart

    def _is_let_in(self) -> bool:
        """Return whether the request may be answered, or ask for the password."""
        access = self.server.live.access
        if access is None or access.has_cookie(self.headers, self._cookie_name()):
            return True
        password = basic_password(self.headers)
        if password is None:
            self._ask_for_password("", False)
            return False
        is_right = access.check(password, self.client_address[0])
        if not is_right:
            self._ask_for_password("", is_right)
        return bool(is_right)

    def _ask_for_password(self, message: str, is_right: bool | None) -> None:
        """Refuse, with a form for a person at a browser; `is_right` is None after too many wrong passwords."""
        status = HTTPStatus.TOO_MANY_REQUESTS if is_right is None else HTTPStatus.UNAUTHORIZED
        headers = {"Retry-After": "60"} if is_right is None else {}
        is_page = "text/html" in self.headers.get("Accept", "")
        if not is_page and "X-Page" not in self.headers:  # as of a video player; the page itself would open a dialogue
            headers["WWW-Authenticate"] = 'Basic realm="Face masks", charset="UTF-8"'
        if is_page:
            page = LOGIN_PAGE.read_text(encoding="utf-8").replace("<!--message-->", message).encode()
            self._send("text/html; charset=utf-8", page, status, headers)
        else:
            self._send("text/plain; charset=utf-8", f"{status.phrase}\n".encode(), status, headers)

    def _answer(self, path: str) -> None:
        live = self.server.live
        kind, _, number = path.strip("/").partition("/")
        number = number or "0"
        if path == "/":
            self._send("text/html; charset=utf-8", PAGE.read_bytes())
        elif path == "/state":
            self._send("application/json", json.dumps(live.state()).encode())
        elif path == "/stream":
            self._as_viewer(self._stream)
        elif kind == "video" and _is_index(number, live.cameras):
            self._as_viewer(lambda: self._motion_jpeg(live.cameras[int(number)]))
        elif kind == "picture.jpg" and _is_index(number, live.cameras):
            camera = live.cameras[int(number)]
            live.wait(camera, 0)
            jpeg = camera.annotated()[1]
            if jpeg:
                self._send("image/jpeg", jpeg)
            else:
                self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "no image yet")
        elif kind == "event" and number.isdecimal() and (snapshot := live.snapshot(int(number))):
            self._send("image/jpeg", snapshot)
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _as_viewer(self, send) -> None:
        if not self.server.live.viewers.acquire(blocking=False):
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, f"{MAX_VIEWERS} are watching; close another window")
            return
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        try:
            send()
        finally:
            self.server.live.viewers.release()

    def _stream(self) -> None:
        """Send the newest images of all cameras, and the state, over one connection: browsers open six at most."""
        live = self.server.live
        self._head("application/octet-stream")
        sent: dict[Camera, int] = {}
        next_state = 0.0
        while not live.stopped:
            with live.changed:
                until = min(next_state - time.monotonic(), STATE_INTERVAL)
                live.changed.wait_for(lambda: live.stopped or any(each.shown > sent.get(each, 0) for each in live.cameras), until)
            if time.monotonic() >= next_state:
                self.wfile.write(stream_part(live.state()))
                next_state = time.monotonic() + STATE_INTERVAL
            for camera in live.cameras:
                if camera.shown > sent.get(camera, 0):
                    sent[camera], part = camera.part()
                    self.wfile.write(part)

    def _motion_jpeg(self, camera: Camera) -> None:
        live = self.server.live
        self._head(f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        number = 0
        while not live.stopped:
            if live.wait(camera, number):
                number, data = camera.annotated()
                head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")

    def _send(self, kind: str, body: bytes, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None) -> None:
        self._head(kind, len(body), status, headers)
        self.wfile.write(body)

    def _head(
        self, kind: str, length: int | None = None, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", CONTENT_POLICY)
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")  # no other site may embed it
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def _hashes(element: str) -> str:
    """Return what allows the inline scripts or styles of our pages, and no others, in a Content-Security-Policy."""
    contents = [
        content
        for page in (PAGE, LOGIN_PAGE)
        for content in re.findall(f"<{element}>(.*?)</{element}>", page.read_text(encoding="utf-8"), re.DOTALL)
    ]
    return " ".join(f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'" for content in contents)


CONTENT_POLICY = (
    "default-src 'none'; img-src 'self' blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    f"style-src {_hashes('style')}; script-src {_hashes('script')}"
)


def is_local_host(host: str) -> bool:
    """Return whether only this machine reaches a server that listens on `host`."""
    return host == "localhost" or _is_loopback(host)


def _is_index(text: str, items: list) -> bool:
    return text.isdecimal() and int(text) < len(items)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_local_name(host: str) -> bool:
    """Return whether a request's Host, with or without a port, names this machine."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return name == "localhost" or _is_loopback(name.strip("[]"))

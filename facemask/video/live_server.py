"""Show the live video and its counts to browsers."""

import ipaddress
import json
import socket
import threading
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np

from facemask.errors import InputError

PAGE = Path(__file__).with_name("live_server.html")
BOUNDARY = "frame"
JPEG_QUALITY = 80
SEND_TIMEOUT = 5.0  # s that a browser may take to accept an image; then it is dropped
MAX_VIEWERS = 16
SEND_BUFFER = 128 << 10  # bytes: what the system holds for a slow viewer is old when it arrives
WAIT = 1.0  # s for a new image, before it is checked whether the server is to stop


@dataclass
class State:
    """What the page shows of a source beside the video."""

    source: str  # its name
    frames: int = 0
    time: float = 0.0  # s, of the frame shown
    rate: float = 0.0  # frames per second
    stalled: float = 0.0  # s since the last frame, while the source gives none
    faces: dict[str, int] = field(default_factory=dict)  # in the frame, by displayed label
    people: dict[str, int] = field(default_factory=dict)  # whose label was confirmed so far, by displayed label


class LiveServer(AbstractContextManager):
    """An HTTP server with a page, the video as motion JPEG, a single image, and the counts as JSON.

    Each browser is served in a thread of its own and gets the newest image when it is ready for one; the video waits for
    none.
    """

    def __init__(self, host: str, port: int) -> None:
        """Listen. Raises InputError if it cannot. Port 0 is any free one; `url` has it."""
        self.states: list[State] = []  # of the sources, in the order of their places
        self._image: np.ndarray | None = None
        self._jpeg: tuple[int, bytes] = (0, b"")  # number of the image, and its bytes
        self._number = 0  # of images shown so far
        self._changed = threading.Condition()
        self._encoding = threading.Lock()
        self.stopped = False
        self.viewers = threading.BoundedSemaphore(MAX_VIEWERS)
        self.watching: set[str] = set()  # names that viewers give themselves when they ask for the video: /video?NAME
        self.is_local = host == "localhost" or _is_loopback(host)

        try:
            self._server = _Server(self, host, port)
        except (OSError, TypeError, UnicodeError) as error:  # the latter two if the name is not a host name
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"--serve {host}:{port}: cannot listen ({reason}); choose another port or host") from error
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, name="serve", daemon=True)
        self._thread.start()

    def show(self, image: np.ndarray) -> None:
        """Send `image`, uint8 (H, W, 3) BGR, not changed later, to browsers from now on; returns at once."""
        with self._changed:
            self._image = image
            self._number += 1
            self._changed.notify_all()

    def wait_for_jpeg(self, after: int) -> tuple[int, bytes] | None:
        """Return the number and bytes of the newest image once its number exceeds `after`; None if none comes."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > after or self.stopped, WAIT)
            number, image = self._number, self._image
        if self.stopped or number <= after:
            return None
        with self._encoding:  # once for all browsers
            if self._jpeg[0] < number:
                data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
                self._jpeg = number, data
            return self._jpeg

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self.stopped = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, live: LiveServer, host: str, port: int) -> None:
        self.live = live
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing: browsers come and go."""


class Handler(BaseHTTPRequestHandler):
    """Answers one browser."""

    server: _Server

    timeout = SEND_TIMEOUT
    server_version, sys_version = "facemask", ""

    def do_GET(self) -> None:
        live = self.server.live
        path, _, viewer = self.path.partition("?")
        # A foreign page that makes its own name mean this machine must not see the video (DNS rebinding).
        if live.is_local and not _is_local_name(self.headers.get("Host", "")):
            self.send_error(HTTPStatus.FORBIDDEN, "open it as localhost or 127.0.0.1")
        elif path == "/":
            self._send("text/html; charset=utf-8", PAGE.read_bytes())
        elif path == "/state":
            state = {"sources": [asdict(state) for state in live.states], "watching": viewer in live.watching}
            self._send("application/json", json.dumps(state).encode())
        elif path == "/picture.jpg":
            newest = live.wait_for_jpeg(0)
            if newest:
                self._send("image/jpeg", newest[1])
            else:
                self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "no image yet")
        elif path == "/video":
            if not live.viewers.acquire(blocking=False):
                self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, f"{MAX_VIEWERS} are watching; close another window")
                return
            live.watching.add(viewer)
            try:
                self._stream(live)
            finally:
                live.watching.discard(viewer)
                live.viewers.release()
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _stream(self, live: LiveServer) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._head(f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        number = 0
        while not live.stopped:
            newest = live.wait_for_jpeg(number)
            if newest:
                number, data = newest
                head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")

    def _send(self, kind: str, body: bytes) -> None:
        self._head(kind, len(body))
        self.wfile.write(body)

    def _head(self, kind: str, length: int | None = None) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")  # no other site may embed it
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_local_name(host: str) -> bool:
    """Return whether a request's Host, with or without a port, names this machine."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return name == "localhost" or _is_loopback(name.strip("[]"))

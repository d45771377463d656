"""Show the live video of each camera, the counts and the last events to browsers."""

import json
import socket
import ssl
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from facemask.drawing import shown_face
from facemask.io.images import encode_image
from facemask.labels import STYLES, colour, css_colour, display_name
from facemask.serving.pages import content_policy, load_page
from facemask.serving.server import PageHandler, PageServer
from facemask.types import Event
from facemask.video.frame_images import FrameImages

PAGE = load_page(Path(__file__).with_name("live_server.html"))
BOUNDARY = "frame"
JPEG_QUALITY = 80
PAGE_SIZE = 1280  # px, the longest side of images on the page, where the browser draws boxes and text
EVENTS = 20  # the last ones, that the page shows
MAX_VIEWERS = 16
SEND_BUFFER = 128 << 10  # bytes: what the system holds for a slow viewer is old when it arrives
WAIT = 1.0  # s for a new image, before it is checked whether the server is to stop
STATE_INTERVAL = 0.5  # s between two states that a page gets


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
                faces = [shown_face(face) for face in images.result.faces]
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


class LiveServer(PageServer):
    """A server with a page that shows all cameras, each camera as motion JPEG, and the counts as JSON.

    Each browser gets the newest images when it is ready for them; the video waits for none.
    """

    invitation = "watch at"

    def __init__(self, host: str, port: int, password: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        """Listen, as PageServer does."""
        self.cameras: list[Camera] = []  # in the order of their places; a new list when it changes
        self._numbers = count()
        self.changed = threading.Condition()
        self.stopped = False
        self.viewers = threading.BoundedSemaphore(MAX_VIEWERS)
        self._events: deque[tuple[dict, bytes | None]] = deque(maxlen=EVENTS)
        self._event_count = 0
        super().__init__(Handler, host, port, password, tls)  # the last: browsers come at once

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
            "colour": css_colour(colour(record["label"])),
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
            "colours": {display_name(label): css_colour(colour(label)) for label in STYLES},
        }

    def wait(self, camera: Camera, after: int) -> bool:
        """Wait for an image of a camera with a number above `after`; return whether there is one."""
        with self.changed:
            return self.changed.wait_for(lambda: camera.shown > after or self.stopped, WAIT) and not self.stopped

    def __exit__(self, *_: object) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()
        super().__exit__()


class Handler(PageHandler):
    """Answers one browser."""

    page: LiveServer
    policy = content_policy(PAGE)

    def answer(self, path: str) -> None:
        live = self.page
        kind, _, number = path.strip("/").partition("/")
        number = number or "0"
        if path == "/":
            self.send("text/html; charset=utf-8", PAGE.encode())
        elif path == "/state":
            self.send("application/json", json.dumps(live.state()).encode())
        elif path == "/stream":
            self._as_viewer(self._stream)
        elif kind == "video" and _is_index(number, live.cameras):
            self._as_viewer(lambda: self._motion_jpeg(live.cameras[int(number)]))
        elif kind == "image.jpg" and _is_index(number, live.cameras):
            camera = live.cameras[int(number)]
            live.wait(camera, 0)
            jpeg = camera.annotated()[1]
            if jpeg:
                self.send("image/jpeg", jpeg)
            else:
                self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "no image yet")
        elif kind == "event" and number.isdecimal() and (snapshot := live.snapshot(int(number))):
            self.send("image/jpeg", snapshot)
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _as_viewer(self, send) -> None:
        if not self.page.viewers.acquire(blocking=False):
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, f"{MAX_VIEWERS} are watching; close another window")
            return
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        try:
            send()
        finally:
            self.page.viewers.release()

    def _stream(self) -> None:
        """Send the newest images of all cameras, and the state, over one connection: browsers open six at most."""
        live = self.page
        self.head("application/octet-stream")
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
        live = self.page
        self.head(f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        number = 0
        while not live.stopped:
            if live.wait(camera, number):
                number, data = camera.annotated()
                head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")


def _is_index(text: str, items: list) -> bool:
    return text.isdecimal() and int(text) < len(items)

"""A camera on the network, for tests: motion JPEG over HTTP on this machine, which can be cut, refused and stalled."""

import threading
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

BITS = 12  # of a frame's number, as black and white blocks across the picture


def numbered(number: int, width: int = 192, height: int = 64) -> np.ndarray:
    """Return a picture that shows its number, for `number_of`."""
    bits = [255 * (number >> bit & 1) for bit in range(BITS)]
    row = np.repeat(np.array(bits, np.uint8), width // BITS)
    return np.dstack([np.tile(row, (height, 1))] * 3)


def number_of(image: np.ndarray) -> int:
    """Return the number that the lowest rows of a picture show."""
    blocks = np.array_split(image[-8:].mean(axis=(0, 2)), BITS)
    return sum(int(np.median(block) > 127) << bit for bit, block in enumerate(blocks))


class Camera:
    """Sends pictures to whoever connects, at a rate, whether anybody does or not, as a camera would; then ends."""

    def __init__(self, pictures: Iterable[np.ndarray], rate: float, cuts: dict[int, float] = {}, stall_at: int | None = None):  # noqa: B006
        """At each number of `cuts` connections are cut, and refused for so many seconds; at `stall_at` it falls silent."""
        self.jpegs = [cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes() for picture in pictures]
        self.rate, self.cuts, self.stall_at = rate, dict(cuts), stall_at
        self.sent: list[int] = []  # numbers of the pictures that went out
        self.connections = 0
        self.number = -1
        self.generation = 0
        self.refusing_until = 0.0
        self.changed = threading.Condition()
        self.started = threading.Event()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if time.monotonic() < camera.refusing_until or camera.number >= len(camera.jpegs):
                    self.send_error(503)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
                self.end_headers()
                camera.connections += 1
                generation, last = camera.generation, camera.number
                camera.started.set()
                while True:
                    with camera.changed:
                        camera.changed.wait_for(lambda last=last: camera.number > last or camera.generation > generation)
                        last = camera.number
                    if camera.generation > generation:
                        return
                    data = camera.jpegs[last]
                    self.wfile.write(b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data) + data + b"\r\n")
                    camera.sent.append(last)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # readers go

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/video"

    def __enter__(self) -> "Camera":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def _run(self) -> None:
        self.started.wait()
        start = time.monotonic()
        for number in range(len(self.jpegs)):
            time.sleep(max(start + number / self.rate - time.monotonic(), 0))
            if number == self.stall_at:
                return
            if number in self.cuts:
                self.refusing_until = time.monotonic() + self.cuts[number]
                self._cut()
            with self.changed:
                self.number = number
                self.changed.notify_all()
        time.sleep(1 / self.rate)
        self.number = len(self.jpegs)
        self._cut()

    def _cut(self) -> None:
        with self.changed:
            self.generation += 1
            self.changed.notify_all()

    def __exit__(self, *_: object) -> None:
        self._cut()
        self.server.shutdown()
        self.server.server_close()

"""Serve the page: it sends images, and gets faces, records and annotated images; nothing is kept."""

import json
import logging
import ssl
import threading
from http import HTTPStatus
from mimetypes import guess_type
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from facemask.app.detection import PageDetector
from facemask.errors import InputError
from facemask.io.records import CSV_COLUMNS
from facemask.serving.pages import content_policy, load_page
from facemask.serving.server import PageHandler, PageServer

PAGE = load_page(Path(__file__).with_name("app.html"))
MAX_UPLOAD = 100 << 20  # bytes of an image
MAX_UPLOADS = 4  # at once, received or in detection: bounds the memory
MAX_WAIT = 30.0  # s for one of these places
RETRY = 2  # s, after which a browser without a place tries again
TIMEOUT, MAX_RECEIVING = 20.0, 120.0  # s without a byte of an image, and for the whole of it
MAX_NAME = 255  # characters

logger = logging.getLogger(__name__)


class AppServer(PageServer):
    """A server with a page that detects in images and in the browser's camera."""

    def __init__(
        self, detector: PageDetector, host: str, port: int, password: str | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        """Listen, as PageServer does."""
        self.detector = detector
        self.places = threading.BoundedSemaphore(MAX_UPLOADS)
        limits = {"max_bytes": MAX_UPLOAD, "columns": CSV_COLUMNS}
        self.html = PAGE.replace("{{limits}}", json.dumps(limits).replace('"', "&quot;")).encode()
        super().__init__(Handler, host, port, password, tls)  # the last: browsers come at once


class Handler(PageHandler):
    """Answers one browser."""

    page: AppServer
    policy = content_policy(PAGE)
    timeout = TIMEOUT

    def answer(self, path: str) -> None:
        if path == "/":
            self.send("text/html; charset=utf-8", self.page.html)
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def receive(self, path: str) -> None:
        """Receive an image: /detect returns a line of JSON, then a preview, /annotated the annotated image."""
        answers = {"/detect": self._detect, "/annotated": self._annotate}
        name, length = self._name(), self.headers.get("Content-Length", "")
        if path not in answers:
            self.send_error(HTTPStatus.NOT_FOUND)
        elif "X-Page" not in self.headers:  # another site's page cannot send this header without asking first
            self.refuse(HTTPStatus.FORBIDDEN, "not from this page")
        elif not length.isdecimal():
            self.refuse(HTTPStatus.LENGTH_REQUIRED, f"{name}: its size is not stated; send a file")
        elif int(length) > MAX_UPLOAD:
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{name}: more than {MAX_UPLOAD >> 20} MB; make it smaller")
        elif not self.page.places.acquire(timeout=MAX_WAIT):
            message = f"{name}: not done, as too many images wait; try again"
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, message, {"Retry-After": str(RETRY)})
        else:
            try:
                self._process(name, int(length), answers[path])
            finally:
                self.page.places.release()

    def _process(self, name: str, length: int, answer) -> None:
        try:
            answer(name, self.read_body(length, MAX_RECEIVING))
        except InputError as error:
            self.refuse(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        except OSError:  # the browser has gone
            raise
        except MemoryError:
            self.refuse(HTTPStatus.INSUFFICIENT_STORAGE, f"{name}: there is not enough memory; make it smaller")
        except Exception as error:  # OpenCV and onnxruntime raise many types
            logger.warning("%s: detection failed (%s)", name, error)
            self.refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"{name}: detection failed ({type(error).__name__}); try another image")

    def _detect(self, name: str, data: bytes) -> None:
        shown = self.page.detector.detect(name, data, is_frame="frame" in self._query())
        head = json.dumps(shown.head).encode() + b"\n"
        self.send("application/octet-stream", head + shown.preview)

    def _annotate(self, name: str, data: bytes) -> None:
        suffix, annotated = self.page.detector.annotate(name, data)
        kind = guess_type(f"a{suffix}")[0] or "application/octet-stream"
        self.send(kind, annotated, headers={"X-Suffix": suffix})

    def _query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query, keep_blank_values=True)

    def _name(self) -> str:
        """Return the name of the image, without folders."""
        name = self._query().get("name", [""])[0].replace("\\", "/").rpartition("/")[2].replace("\0", "")
        return name[:MAX_NAME] or "image"

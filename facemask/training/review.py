"""Correct the labels of a folder of --collect in the browser, one face at a time, from this machine alone."""

import json
import logging
import secrets
import threading
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import cv2

from facemask.boxes import square_around
from facemask.errors import InputError
from facemask.io.annotations import voc_xml, yolo_lines
from facemask.io.images import image_size, read_image
from facemask.io.outputs import text_output
from facemask.labels import display_name
from facemask.training.dataset import AnnotatedPhoto
from facemask.training.voc import PascalVoc
from facemask.training.yolo import class_list

PAGE = Path(__file__).with_name("review.html")
STATE_NAME = "review.json"  # in the folder: all faces, and which were reviewed
CONTEXT = 1.0  # of a face's longer side, shown around it
VIEW_SIDE = 640  # px, of the longest side of what is shown
MAX_BODY = 4096  # bytes of a request
DELETED = "deleted"  # action of the page: no face, or one that shows nothing to learn
KEPT = "kept"  # action: the label is right as it is

logger = logging.getLogger(__name__)


@dataclass
class ReviewedFace:
    """A face of a photo, and what was decided."""

    photo: str  # stem
    box: list[float]  # x1, y1, x2, y2 in px
    label: str
    reviewed: bool = False
    deleted: bool = False


class Review:
    """The faces of a folder and the decisions on them, each of which is written at once."""

    def __init__(self, folder: Path) -> None:
        """Read a folder with `images/` and `annotations/` (Pascal VOC), and its classes, of data.yaml if there is one.

        Raises InputError if it has another layout, or no faces.
        """
        if not (folder / "annotations").is_dir():
            raise InputError(f"{folder}: no annotations/ in it; give a folder of --collect, or one that convert wrote as voc")
        self.folder = folder
        photos = [photo for photo in PascalVoc().read(folder) if isinstance(photo, AnnotatedPhoto)]
        self.paths = {photo.path.stem: photo.path for photo in photos}
        known = self._read_state()
        self.faces: list[ReviewedFace] = []
        for photo in photos:
            fresh = [ReviewedFace(photo.path.stem, box.tolist(), label) for label, box in photo.faces]
            self.faces += known.get(photo.path.stem, fresh)
        if not self.faces:
            raise InputError(f"{folder}: no annotated face found; give a folder of --collect")
        self.has_yolo = (folder / "data.yaml").is_file()
        labels = {face.label for face in self.faces}
        self.classes = class_list(folder) if self.has_yolo else sorted(labels)
        if not labels <= set(self.classes):
            raise InputError(f"{folder}: data.yaml does not have the class {min(labels - set(self.classes))}; add it there")
        self._past: list[tuple[int, ReviewedFace]] = []
        self._lock = threading.Lock()

    def _read_state(self) -> dict[str, list[ReviewedFace]]:
        path = self.folder / STATE_NAME
        if not path.is_file():
            return {}
        faces: dict[str, list[ReviewedFace]] = {}
        try:
            for fields in json.loads(path.read_text(encoding="utf-8")):
                faces.setdefault(fields["photo"], []).append(ReviewedFace(**fields))
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise InputError(f"{path}: corrupt; remove it: the labels so far are in the annotations") from error
        return faces

    def decide(self, number: int, action: str) -> None:
        """Give a face a label, or KEPT or DELETED, and write it. Raises ValueError for another action, IndexError."""
        with self._lock:
            face = self.faces[number]
            if action not in (*self.classes, KEPT, DELETED):
                raise ValueError(action)
            self._past.append((number, ReviewedFace(**asdict(face))))
            face.reviewed, face.deleted = True, action == DELETED
            if action in self.classes:
                face.label = action
            self._write(face.photo)

    def undo(self) -> int | None:
        """Take the last decision back; return the number of its face, None if there is none."""
        with self._lock:
            if not self._past:
                return None
            number, previous = self._past.pop()
            self.faces[number] = previous
            self._write(previous.photo)
            return number

    def first_open(self) -> int:
        """Return the number of the first face that is to be reviewed; of the last face if all are done."""
        return next((number for number, face in enumerate(self.faces) if not face.reviewed), len(self.faces) - 1)

    @property
    def done(self) -> int:
        """Return how many faces were reviewed."""
        return sum(face.reviewed for face in self.faces)

    def _write(self, photo: str) -> None:
        faces = [(face.label, face.box) for face in self.faces if face.photo == photo and not face.deleted]
        width, height = image_size(self.paths[photo])
        with text_output(self.folder / "annotations" / f"{photo}.xml") as file:
            file.write(voc_xml(self.paths[photo].name, width, height, faces))
        if self.has_yolo:
            with text_output(self.folder / "labels" / f"{photo}.txt") as file:
                file.write(yolo_lines(width, height, faces, self.classes))
        with text_output(self.folder / STATE_NAME) as file:
            json.dump([asdict(face) for face in self.faces], file, indent=0)

    def state(self, number: int) -> dict:
        """Return what the page shows of a face."""
        face = self.faces[number]
        return {
            "number": number, "total": len(self.faces), "done": self.done, "name": face.photo, "label": face.label,
            "reviewed": face.reviewed, "deleted": face.deleted,
            "classes": [{"label": name, "text": display_name(name)} for name in self.classes],
        }  # fmt: skip

    def image(self, number: int) -> bytes:
        """Return a face with its box and what is around it as JPEG. Raises InputError if the photo cannot be read."""
        face = self.faces[number]
        image = read_image(self.paths[face.photo])
        box = [round(side) for side in face.box]
        x1, y1, x2, y2 = (round(side) for side in square_around(tuple(face.box), CONTEXT))
        left, top = max(x1, 0), max(y1, 0)
        cut = image[top : max(y2, top + 1), left : max(x2, left + 1)].copy()
        if not cut.size:
            raise InputError(f"{self.paths[face.photo]}: the box {box} is outside of it")
        scale = VIEW_SIDE / max(cut.shape[:2])
        cut = cv2.resize(cut, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
        corners = [round((side - shift) * scale) for side, shift in zip(box, (left, top, left, top), strict=True)]
        cv2.rectangle(cut, corners[:2], corners[2:], (255, 255, 255), 3)
        cv2.rectangle(cut, corners[:2], corners[2:], (0, 0, 0), 1)
        return cv2.imencode(".jpg", cut)[1].tobytes()


class ReviewServer(ThreadingHTTPServer):
    """Serves the page to browsers of this machine that have the key in their address."""

    daemon_threads = True

    def __init__(self, review: Review, port: int) -> None:
        """`port` 0 is any free one. Raises InputError if it is taken."""
        self.review, self.key = review, secrets.token_urlsafe(16)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise InputError(f"--port: {port} cannot be used ({error.strerror}); give another") from error
        self.url = f"http://127.0.0.1:{self.server_port}/?key={self.key}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing: a browser that is shown the next face drops the image of the last one."""


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    timeout = 30  # s

    def do_GET(self) -> None:
        query = self._query()
        if query is None:
            return
        review, path = self.server.review, urlsplit(self.path).path
        if path == "/":
            self._send(PAGE.read_bytes(), "text/html; charset=utf-8")
        elif path == "/face":
            self._send_state(self._number(query))
        elif path == "/image":
            try:
                self._send(review.image(self._number(query)), "image/jpeg")
            except InputError as error:
                logger.warning("%s", error)
                self.send_error(HTTPStatus.NOT_FOUND)
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        query = self._query()
        length = self.headers.get("Content-Length", "")
        if query is None:
            return
        if not length.isdecimal() or int(length) > MAX_BODY:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        review, number = self.server.review, self._number(query)
        self.rfile.read(int(length))
        if urlsplit(self.path).path == "/undo":
            undone = review.undo()
            self._send_state(number if undone is None else undone)
            return
        try:
            review.decide(number, query.get("action", ""))
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        self._send_state(min(number + 1, len(review.faces) - 1))

    def _query(self) -> dict[str, str] | None:
        """Return the request's query; None, and refused, without the key or for another host: another page may ask."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        hosts = (f"127.0.0.1:{self.server.server_port}", f"localhost:{self.server.server_port}")
        if self.headers.get("Host") in hosts and secrets.compare_digest(query.get("key", "").encode(), self.server.key.encode()):
            return query
        self.send_error(HTTPStatus.FORBIDDEN)
        return None

    def _number(self, query: dict[str, str]) -> int:
        text, count = query.get("number", ""), len(self.server.review.faces)
        return min(int(text), count - 1) if text.isdecimal() and len(text) < 9 else self.server.review.first_open()

    def _send_state(self, number: int) -> None:
        self._send(json.dumps(self.server.review.state(number)).encode(), "application/json")

    def _send(self, data: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        for name, value in (
            ("Content-Type", kind), ("Content-Length", str(len(data))), ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"), ("X-Frame-Options", "DENY"),
        ):  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Log nothing: the address has the key."""

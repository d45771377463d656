"""A report for people: one HTML page that holds its images, filters them and needs no network."""

import base64
import heapq
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np

from facemask.boxes import square_around
from facemask.io.outputs import text_output
from facemask.labels import Colour, css_colour
from facemask.types import Box

TEMPLATE = Path(__file__).with_name("report_page.html")
MAX_TILES = 2000  # on a page, which takes 10 MB then
SIDE = 150  # px, of a thumbnail
CONTEXT = 0.5  # of a face's longer side, shown around it
QUALITY = 80  # of the thumbnails, as JPEG


@dataclass(frozen=True)
class Tile:
    """A face, an event or an image on the page."""

    key: str  # of its filter
    label: str  # as people read it
    colour: Colour
    detail: str
    name: str  # of the file
    probability: float  # 0..1, of the label
    confidence: float  # 0..1, that it is a face
    is_unsure: bool = False
    thumbnail: str = ""  # a data URI
    link: str = ""  # a relative URL
    number: int = 0  # in the order given


@dataclass(frozen=True)
class Count:
    """A number at the top of the page."""

    name: str
    number: int
    colour: Colour


@dataclass(frozen=True)
class Table:
    """A table at the end of the page; `what` names its rows."""

    title: str
    what: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


class Worst:
    """Keeps the `limit` tiles of the least probable labels, so that the memory is bounded."""

    def __init__(self, limit: int = MAX_TILES) -> None:
        self._limit = limit
        self._heap: list[tuple[float, int, Tile]] = []  # the most probable first
        self._numbers = count()
        self.dropped = 0

    def takes(self, probability: float) -> bool:
        """Return whether a tile of that probability would be kept, before its thumbnail is made; count it if not."""
        if len(self._heap) < self._limit or probability < -self._heap[0][0]:
            return True
        self.dropped += 1
        return False

    def add(self, tile: Tile) -> None:
        heapq.heappush(self._heap, (-tile.probability, -next(self._numbers), tile))
        if len(self._heap) > self._limit:
            heapq.heappop(self._heap)
            self.dropped += 1

    def __iter__(self) -> Iterator[Tile]:
        return (tile for *_, tile in sorted(self._heap, key=lambda entry: (-entry[0], -entry[1])))


def thumbnail(image: np.ndarray, box: Box | None = None, colour: Colour = (255, 255, 255)) -> str:
    """Return a data URI of `image`, uint8 (H, W, 3) BGR, small: all of it, or the surroundings of a box, which is drawn."""
    left = top = 0
    if box:
        x1, y1, x2, y2 = (round(side) for side in square_around(box, CONTEXT))
        left, top = max(x1, 0), max(y1, 0)
        image = image[top:y2, left:x2]
    scale = SIDE / max(image.shape[:2])
    size = max(1, round(scale * image.shape[1])), max(1, round(scale * image.shape[0]))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    if box:
        corners = [(round(scale * (x - left)), round(scale * (y - top))) for x, y in (box[:2], box[2:])]
        cv2.rectangle(small, *corners, colour, 1)
    data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def relative_link(path: Path, page: Path) -> str:
    """Return the relative URL of a file from a page; "" if there is none, as from another drive of Windows."""
    try:
        relative = os.path.relpath(path, page.absolute().parent)
    except ValueError:
        return ""
    return quote(os.fsencode(relative).replace(os.sep.encode(), b"/"))


def write_page(
    path: Path,
    title: str,
    subtitle: str,
    counts: Sequence[Count],
    labels: Sequence[tuple[str, str, int]],
    notes: Sequence[str],
    tiles: Sequence[Tile],
    tables: Sequence[Table],
) -> None:
    """Write the page; `labels` are the filters: key, name and number. Raises InputError if it cannot be written."""
    from jinja2 import Environment  # here, as most runs need none

    environment = Environment(autoescape=True, trim_blocks=False)
    environment.filters["css"] = css_colour
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    filters = [{"key": key, "name": name, "number": number} for key, name, number in labels]
    with text_output(path) as file:
        for part in template.generate(
            title=title, subtitle=subtitle, counts=counts, labels=filters, notes=notes, tiles=tiles, tables=tables
        ):
            file.write(part.encode("utf-8", "replace").decode())  # file names need not be UTF-8

"""The report of a run over videos, as one HTML page of its events."""

from collections import Counter
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np

from facemask.boxes import square_around
from facemask.io.report_page import Count, Table, Tile, Worst, thumbnail, write_page
from facemask.labels import colour, display_name, percent
from facemask.types import Box, Event
from facemask.video.events import CONFIRMED

GREY = (140, 140, 140)
AROUND = 1.5  # of a face's longer side, shown around it: it has moved since it was seen best
MIN_PART = 0.4  # of a frame's shorter side, that is shown at least
MAX_ROWS = 5000  # of the table


class EventReport:
    """Receives the events of all sources, and writes a page with an image of each, the least certain first."""

    def __init__(self, path: Path) -> None:
        import jinja2  # noqa: F401  # if it is missing, that is said before the run

        self._path = path
        self._tiles = Worst()
        self._labels: Counter[str] = Counter()
        self._rows: dict[tuple[str, int], list[str]] = {}  # by source and track
        self._number = 0

    def receive(self, event: Event) -> None:
        """Add an event; one that ends a track completes its row."""
        record = event.record
        key = record["source"], record["track"]
        if record["event"] != CONFIRMED:
            if key in self._rows:
                self._rows[key][3] = clock(record["last_time"])
            return
        label, probability, time = record["label"], record["probability"], record.get("at") or clock(record["last_time"])
        self._labels[label] += 1
        self._number += 1
        text = f"{display_name(label, record['unsure'])} {percent(probability)}"
        if len(self._rows) < MAX_ROWS:
            self._rows[key] = [record["source"], str(record["track"]), clock(record["first_time"]), "", text]
        if self._tiles.takes(probability):
            detail = f"{time}, person {record['track']}{', ' + record['zone'] if record.get('zone') else ''}"
            image = _face_image(event.jpeg, record["best_box"]) if event.jpeg else ""
            name, unsure = record["source"], record["unsure"]
            tile = Tile(label, text, colour(label), detail, name, probability, 1.0, unsure, image, number=self._number)
            self._tiles.add(tile)

    def write(self) -> None:
        """Write the page. Raises InputError if it cannot be written."""
        labels = [(label, display_name(label), number) for label, number in self._labels.most_common()]
        counts = [Count("events", self._labels.total(), GREY)]
        counts += [Count(name, number, colour(label)) for label, name, number in labels]
        notes = [f"{self._tiles.dropped} events are counted, and not shown; --events has all."] if self._tiles.dropped else []
        heads = ("source", "person", "first seen", "last seen", "label")
        table = Table("Events", "people", heads, list(self._rows.values()))
        subtitle = f"{datetime.now():%Y-%m-%d %H:%M}, {self._labels.total()} events"
        write_page(self._path, "Face masks: events", subtitle, counts, labels, notes, list(self._tiles), [table])


def clock(seconds: float) -> str:
    """Return a time in a video as h:mm:ss, with tenths."""
    tenths = round(10 * seconds)
    return f"{tenths // 36000}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"


def _face_image(jpeg: bytes, box: Box) -> str:
    """Return a data URI of the part of a frame that shows a face and what is around it."""
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    height, width = image.shape[:2]
    x1, y1, x2, y2 = square_around(box, AROUND)
    more = max(0.0, MIN_PART * min(height, width) - (x2 - x1)) / 2
    left, top = (max(0, round(side - more)) for side in (x1, y1))
    part = image[top : round(y2 + more), left : round(x2 + more)]
    return thumbnail(part if part.size else image)

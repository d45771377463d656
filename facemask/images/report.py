"""The report of a run over images, as one HTML page."""

import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from facemask.images.outputs import ImageOutput, ImageResult, Summary
from facemask.io.find_images import describe_skipped
from facemask.io.kinds import Kind
from facemask.io.report_page import Count, Table, Tile, Worst, relative_link, thumbnail, write_page
from facemask.labels import UNSURE, colour, display_name, percent

NO_FACE = "no face"  # the filter of images without faces
GREY, RED = (140, 140, 140), (60, 60, 200)
MAX_WITHOUT_FACES = 300  # images that are shown


class HtmlReport(ImageOutput):
    """Writes a page with the faces of all images, the least certain first, and with the images without faces."""

    needs_image = True

    def __init__(self, path: Path, summary: Summary, skipped: Counter[Kind], earlier: Iterable[dict] = ()) -> None:
        """`summary` must receive each image before this output does. `earlier` are records of a run that is resumed."""
        import jinja2  # noqa: F401  # if it is missing, that is said before the run

        self._path, self._summary, self._skipped = path, summary, skipped
        self._faces, self._without = Worst(), Worst(MAX_WITHOUT_FACES)
        self._number = 0
        self._labels: Counter[str] = Counter()
        self._rows: list[tuple[str, str, str]] = []
        self._earlier = 0
        for record in earlier:
            self._add_earlier(record)

    def write(self, item: ImageResult) -> None:
        linked = item.annotated or (item.path if item.path.exists() and not item.result.hidden else None)
        link = relative_link(linked, self._path) if linked else ""
        for face in item.result.detections:
            self._labels[face.label] += 1
            if self._faces.takes(face.probability):
                tile = self._face_tile(item.name, face.label, face.probability, face.confidence, face.is_unsure)
                image = thumbnail(item.image, face.box, colour(face.label))
                self._faces.add(replace(tile, thumbnail=image, link=link))
        if not item.result.detections and self._without.takes(1.0):
            size = f"{item.result.width} x {item.result.height} px"
            tile = Tile(NO_FACE, "No face found", GREY, size, item.name, 1.0, 1.0, link=link, number=self._next_number())
            self._without.add(replace(tile, thumbnail=thumbnail(item.image)))
        self._add_row(item.name, [face.label for face in item.result.detections], f"{item.seconds:.2f} s")

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _face_tile(self, name: str, label: str, probability: float, confidence: float, is_unsure: bool) -> Tile:
        text = f"{display_name(label, is_unsure)} {percent(probability)}"
        detail = f"face {percent(confidence)}"
        return Tile(label, text, colour(label), detail, name, probability, confidence, is_unsure, number=self._next_number())

    def _add_earlier(self, record: dict) -> None:
        """Add an image of the run that is resumed: its faces have no thumbnails."""
        self._earlier += 1
        for face in record["faces"]:
            self._labels[face["label"]] += 1
            if self._faces.takes(face["probability"]):
                unsure = face.get("unsure", face["probability"] < UNSURE)
                self._faces.add(self._face_tile(record["image"], face["label"], face["probability"], face["confidence"], unsure))
        self._add_row(record["image"], [face["label"] for face in record["faces"]], "")

    def _add_row(self, name: str, labels: list[str], seconds: str) -> None:
        counts = Counter(map(display_name, labels))
        self._rows.append((name, ", ".join(f"{label} {number}" for label, number in counts.most_common()) or "no face", seconds))

    def close(self) -> None:
        summary = self._summary
        without = sum(faces == "no face" for _, faces, _ in self._rows)
        counts = [
            Count("images", len(self._rows), GREY),
            *(Count(display_name(label), number, colour(label)) for label, number in self._labels.most_common()),
            Count("images without faces", without, GREY),
        ]
        if summary.failed:
            counts.append(Count("images failed", summary.failed, RED))
        folder = _common_folder([name for name, *_ in self._rows])
        where = f" in {folder}" if folder else ""
        rows = [(name.removeprefix(folder), faces, seconds) for name, faces, seconds in self._rows]
        labels = [(label, display_name(label), number) for label, number in self._labels.most_common()]
        labels += [(NO_FACE, "No face found", without)] if without else []
        tables = [Table("Images", "images", ("image", "faces", "time"), rows)]
        if summary.messages:
            tables.insert(0, Table("Failed", "messages", ("message",), [(message,) for message in summary.messages]))
        subtitle = f"{datetime.now():%Y-%m-%d %H:%M}, {len(self._rows)} images{where}, {self._labels.total()} faces"
        tiles = [replace(tile, name=tile.name.removeprefix(folder)) for tile in (*self._faces, *self._without)]
        write_page(self._path, "Face masks", subtitle, counts, labels, list(self._notes()), tiles, tables)

    def _notes(self) -> Iterable[str]:
        if self._earlier:
            yield f"{self._earlier} images were done in an earlier run: their faces have no thumbnails."
        if self._faces.dropped:
            yield f"{self._faces.dropped} faces with more probable labels are counted, and not shown; --jsonl has all."
        if self._without.dropped:
            yield f"{self._without.dropped} more images without faces are not shown."
        if self._skipped:
            yield f"Not read: {describe_skipped(self._skipped)}."


def _common_folder(names: list[str]) -> str:
    """Return how the names of all images begin: the folder that all are in; "" if there is none."""
    with suppress(ValueError):  # no names, or relative and absolute ones
        folder = os.path.join(os.path.commonpath([os.path.dirname(name) for name in names]), "")
        return folder if all(name.startswith(folder) for name in names) else ""
    return ""

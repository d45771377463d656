"""Archives of images: faces detected in each, one row per image."""

from collections.abc import Iterator
from itertools import islice

from facemask.archive.parts import Counts
from facemask.archive.sources import Item, Unit
from facemask.archive.tables import FACES, Row
from facemask.archive.worker import Attempts, UnitResult, Work, Worker, memory_error
from facemask.errors import InputError, error_kind
from facemask.io.images import EncodedImage
from facemask.io.records import image_record
from facemask.parallel import PREFETCH, prefetch_map

ROWS = 1024  # of a part at most


def count_image(counts: Counts, record: dict) -> None:
    """Count the row of an image."""
    counts.totals["images"] += 1
    if "error" in record:
        counts.totals["failed"] += 1
        counts.errors[error_kind(record["error"])] += 1
        return
    counts.totals["without_faces"] += not record["faces"]
    counts.totals["faces"] += len(record["faces"])
    counts.totals["unsure"] += sum(face["unsure"] for face in record["faces"])
    counts.labels.update(face["label"] for face in record["faces"])


class ImageWorker(Worker):
    """Detects faces in the images of units."""

    def process(self, unit: Unit) -> UnitResult:
        output, result = self._settings.output, UnitResult()
        parts, written, is_done = self._written(unit, result.counts)
        if is_done:
            return result
        with Attempts.begin(output, unit.key, self._settings.run) as notes:
            rows: list[Row] = []
            for row in self._rows(unit, written, notes):
                if len(rows) == ROWS:
                    notes.passed()
                    self.write(FACES, unit, parts, rows, is_end=False)
                    parts, rows = parts + 1, []
                rows.append(row)
                count_image(result.counts, row.record)
                result.truncated += bool(row.columns.get("truncated"))
            notes.passed()
            if rows:
                self.write(FACES, unit, parts, rows, is_end=unit.is_whole)
        return result

    def _written(self, unit: Unit, counts: Counts) -> tuple[int, int, bool]:
        """Count the parts of a unit that exist, and their rows; return both numbers, and whether the unit is done."""
        output, parts, rows = self._settings.output, 0, 0
        while True:
            for is_end in (False, True):
                store, path = output.part(FACES, unit.key, parts, is_end)
                if store.exists(path):
                    records = output.read_part(FACES, store, path)
                    break
            else:
                return parts, rows, unit.count is not None and rows == unit.count
            for record in records:
                count_image(counts, record)
            parts, rows = parts + 1, rows + len(records)
            if is_end:
                return parts, rows, True

    def _rows(self, unit: Unit, start: int, notes: Attempts) -> Iterator[Row]:
        """Yield the rows of a unit from number `start` on, in the order of its images."""
        items = notes.watch(islice(unit.read(), start, None), start)
        prefetch = 1 if notes.is_careful else PREFETCH
        for _, row in prefetch_map(self._detect, items, workers=1, prefetch=prefetch):
            yield row.result()

    def _detect(self, item: Item) -> Row:
        columns = {"modified": item.time}
        settings = self._settings
        error = item.error
        if error is None:
            try:
                source: str | EncodedImage | None = item.path
                if source is None:
                    source = EncodedImage.parse(item.name, item.data or b"", settings.max_pixels)
                result = self._detector.detect_file(source, settings.confidence, max_pixels=settings.max_pixels)
                return Row(image_record(item.name, result), columns | {"truncated": result.is_truncated})
            except InputError as failure:
                error = str(failure)
            except MemoryError:
                error = memory_error(item.name)
        return Row({FACES.name: item.name, "error": error}, columns)


WORK = Work(
    "image",
    ImageWorker,
    FACES,
    count_image,
    ("images", "failed", "without_faces", "faces", "unsure"),
    {"tiles": "auto", "turns": "auto", "batch_size": None},
)

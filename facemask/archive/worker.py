"""What runs on each core: networks loaded once, units of work read, detected in and written."""

import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from facemask.archive.parts import FORMATS, Counts, Output, Row
from facemask.archive.sources import Item, Unit
from facemask.errors import InputError
from facemask.io.images import EncodedImage
from facemask.parallel import PREFETCH, prefetch_map

if TYPE_CHECKING:
    from facemask.detector import MaskDetector

ROWS = 1024  # of a part at most
RUN_FILE = "run.json"
ATTEMPTS = "attempts"  # folder of the notes on units that are begun
CAREFUL = 3  # attempts at a unit from which on each image is noted before it is used
DEADLY = 2  # times that a process must have ended at an image before it is passed over


@dataclass(frozen=True)
class Settings:
    """What an actor needs. `load` returns the detector."""

    load: Callable[[], "MaskDetector"]
    output: Output
    run: str  # of this run, in RUN_FILE: an actor of an earlier one, left over, must not write
    confidence: float
    max_pixels: int


@dataclass
class UnitResult:
    """What a unit gave."""

    counts: Counts
    truncated: int = 0  # images that may show more faces


class UnitDetector:
    """An actor of Ray Data: takes batches of units, pickled, and returns their UnitResults, pickled."""

    def __init__(self, settings: Settings) -> None:
        import cv2

        cv2.setNumThreads(1)  # one core per actor
        self._settings = settings
        self._detector = settings.load()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = [pickle.dumps(self.process(pickle.loads(unit))) for unit in batch["unit"]]
        return {"result": np.array(results, object)}

    def process(self, unit: Unit) -> UnitResult:
        """Detect in the images of a unit and write its parts, but those that an earlier attempt wrote.

        Raises OutputError if they cannot be written, InputError if another run writes to this output now.
        """
        output = self._settings.output
        result = UnitResult(Counts())
        parts, written, is_done = self._written(unit, result.counts)
        if is_done:
            return result
        notes = Attempts.begin(output, unit.key)
        rows: list[Row] = []
        for row in self._rows(unit, written, notes):
            if len(rows) == ROWS:
                self._write(unit, parts, rows, is_end=False)
                parts, rows = parts + 1, []
            rows.append(row)
            result.counts.add(row.record)
            result.truncated += row.truncated
        if rows:
            self._write(unit, parts, rows, is_end=unit.is_whole)
        notes.end()
        return result

    def _written(self, unit: Unit, counts: Counts) -> tuple[int, int, bool]:
        """Count the parts of a unit that exist, and their rows; return both numbers, and whether the unit is done."""
        output, parts, rows = self._settings.output, 0, 0
        while True:
            for is_end in (False, True):
                store, path = output.part(unit.key, parts, is_end)
                if store.exists(path):
                    records = output.read_part(store, path)
                    break
            else:
                return parts, rows, unit.count is not None and rows == unit.count
            for record in records:
                counts.add(record)
            parts, rows = parts + 1, rows + len(records)
            if is_end:
                return parts, rows, True

    def _rows(self, unit: Unit, start: int, notes: "Attempts") -> Iterator[Row]:
        """Yield the rows of a unit from number `start` on, in the order of its images."""
        items = notes.watch(islice(unit.read(), start, None), start)
        prefetch = 1 if notes.is_careful else PREFETCH
        for item, row in prefetch_map(self._detect, items, workers=1, prefetch=prefetch):
            yield row.result()
            notes.passed(item)

    def _detect(self, item: Item) -> Row:
        if item.error is not None:
            return Row.of_error(item.name, item.error, item.modified)
        settings = self._settings
        try:
            source: str | EncodedImage | None = item.path
            if source is None:
                source = EncodedImage.parse(item.name, item.data or b"", settings.max_pixels)
            result = self._detector.detect_file(source, settings.confidence, max_pixels=settings.max_pixels)
        except InputError as error:
            return Row.of_error(item.name, str(error), item.modified)
        except MemoryError:
            error = f"{item.name}: takes more memory than there is; make it smaller, or lower --max-pixels"
            return Row.of_error(item.name, error, item.modified)
        return Row.of_result(item.name, result, item.modified)

    def _write(self, unit: Unit, number: int, rows: list[Row], is_end: bool) -> None:
        output = self._settings.output
        check_run(output, self._settings.run)
        store, path = output.part(unit.key, number, is_end)
        store.write(path, FORMATS[output.format].encode(rows))


def check_run(output: Output, run: str) -> None:
    """Raise InputError if another run than `run` writes to an output now."""
    now = output.read_json(RUN_FILE)
    if now is None or now.get("run") != run:
        raise InputError(f"{output.name()}: another run has begun to write it; this one ends")


class Attempts:
    """Notes on the attempts at a unit, in the output: an image at which processes end, again and again, is found and left out.

    Without them, one image that crashes a decoder would end each actor that takes it, for ever.
    """

    def __init__(self, output: Output, key: str, record: dict) -> None:
        self._output, self._name, self._record = output, f"{ATTEMPTS}/{key}.json", record

    @classmethod
    def begin(cls, output: Output, key: str) -> "Attempts":
        """Note that an attempt begins."""
        record = output.read_json(f"{ATTEMPTS}/{key}.json") or {"attempts": 0, "at": None, "ended_at": []}
        ended = record["ended_at"] + ([record["at"]] if record["at"] is not None else [])
        notes = cls(output, key, {"attempts": record["attempts"] + 1, "at": None, "ended_at": ended})
        notes._save()
        return notes

    @property
    def is_careful(self) -> bool:
        """Return whether each image is noted before it is used."""
        return self._record["attempts"] >= CAREFUL

    def watch(self, items: Iterator[Item], start: int) -> Iterator[Item]:
        """Yield items, the first of number `start`; those at which processes ended come with an error instead."""
        ended = Counter(self._record["ended_at"])
        for number, item in enumerate(items, start):
            if ended[number] >= DEADLY:
                yield Item(item.name, error=f"{item.name}: ended the process that read it; make it anew, or remove it")
                continue
            if self.is_careful:
                self._record["at"] = number
                self._save()
            yield item

    def passed(self, item: Item) -> None:
        """Note that an image did no harm."""
        self._record["at"] = None

    def end(self) -> None:
        """Remove the notes."""
        store, path = self._output.path(self._name)
        store.remove(path)

    def _save(self) -> None:
        self._output.write_json(self._name, self._record)

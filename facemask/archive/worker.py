"""What runs on each core: networks loaded once, units of work read, processed and written."""

import pickle
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from facemask.archive.parts import Counts, Output
from facemask.archive.sources import Item, Unit
from facemask.archive.tables import Row, Table
from facemask.errors import InputError

if TYPE_CHECKING:
    from facemask.detector import MaskDetector

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
    stride: int | None = None  # of clips: every stride-th frame is processed


@dataclass
class UnitResult:
    """What a unit gave."""

    counts: Counts = field(default_factory=Counts)
    truncated: int = 0  # images that may show more faces


class UnitActor(ABC):
    """An actor of Ray Data: takes batches of units, pickled, and returns their results, or errors, pickled."""

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = [pickle.dumps(self._result(pickle.loads(unit))) for unit in batch["unit"]]
        return {"result": np.array(results, object)}

    def _result(self, unit: Unit) -> UnitResult | InputError:
        """Return what a unit gave, or the error that ends the run: Ray hides the text of one that is raised."""
        try:
            return self.process(unit)
        except InputError as error:
            return error

    @abstractmethod
    def process(self, unit: Unit) -> Any:
        """Process a unit; return what is to be pickled. An InputError ends the run."""


class Worker(UnitActor):
    """An actor with the networks, which writes its results itself."""

    def __init__(self, settings: Settings) -> None:
        import cv2

        cv2.setNumThreads(1)  # one core per actor
        self._settings = settings
        self._detector = settings.load()

    @abstractmethod
    def process(self, unit: Unit) -> UnitResult:
        """Process a unit and write its parts, but those that an earlier attempt wrote.

        Raises OutputError if they cannot be written, InputError if another run writes to this output now.
        """

    def write(self, table: Table, unit: Unit, number: int, rows: list[Row], is_end: bool) -> None:
        """Write a part of a unit. Raises OutputError if it cannot be written, InputError if another run writes now."""
        check_run(self._settings.output, self._settings.run)
        self._settings.output.write_part(table, unit.key, number, is_end, rows)


@dataclass(frozen=True)
class Work:
    """A kind of work on an archive. `item` is what `table` has one row for, which says that it is done."""

    item: str
    worker: type[Worker]
    table: Table
    count: Callable[[Counts, dict], None]  # of a row of that table
    totals: tuple[str, ...]  # names of counts; the first counts the items
    defaults: dict  # of the command's options that other kinds do not have, or with other defaults


def memory_error(name: str) -> str:
    """Return the message for an image or a clip that takes too much memory."""
    return f"{name}: takes more memory than there is; make it smaller, or lower --max-pixels"


def check_run(output: Output, run: str) -> None:
    """Raise InputError if another run than `run` writes to an output now."""
    now = output.read_json(RUN_FILE)
    if now is None or now.get("run") != run:
        raise InputError(f"{output.name()}: another run has begun to write it; this one ends")


class Attempts:
    """Notes on the attempts of a run at a unit, in the output: an image at which processes end is found and left out.

    Without them, one image that crashes a decoder would end each actor that takes it, for ever. Notes of an earlier run are
    dropped: a full disk or a killed driver ended it, and no image.
    """

    def __init__(self, output: Output, key: str, record: dict) -> None:
        self._output, self._name, self._record = output, f"{ATTEMPTS}/{key}.json", record

    @classmethod
    @contextmanager
    def begin(cls, output: Output, key: str, run: str) -> Iterator["Attempts"]:
        """Note that an attempt of `run` begins; remove the notes at its end. Errors that the process survives blame no image."""
        record = output.read_json(f"{ATTEMPTS}/{key}.json")
        if record is None or record.get("run") != run:
            record = {"attempts": 0, "at": None, "ended_at": []}
        ended = record["ended_at"] + ([record["at"]] if record["at"] is not None else [])
        notes = cls(output, key, {"run": run, "attempts": record["attempts"] + 1, "at": None, "ended_at": ended})
        notes._save()
        try:
            yield notes
        except Exception:
            with suppress(InputError):  # as on a full disk, which is the error
                notes.passed()
            raise
        store, path = output.path(notes._name)
        store.remove(path)

    @property
    def is_careful(self) -> bool:
        """Return whether each image is noted before it is used."""
        return self._record["attempts"] >= CAREFUL

    def watch(self, items: Iterator[Item], start: int) -> Iterator[Item]:
        """Yield items, the first of number `start`; those at which processes ended come with an error instead."""
        ended = Counter(self._record["ended_at"])
        for number, item in enumerate(items, start):
            if ended[number] >= DEADLY:
                yield Item(item.name, error=f"{item.name}: ended the process that read it; replace or remove it")
                continue
            if self.is_careful:
                self._record["at"] = number
                self._save()
            yield item

    def passed(self) -> None:
        """Note that all images up to here did no harm."""
        if self._record["at"] is not None:
            self._record["at"] = None
            self._save()

    def _save(self) -> None:
        self._output.write_json(self._name, self._record)

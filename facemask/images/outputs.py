"""What receives the faces of each image: one protocol for lines, files, the window, records and counts."""

import heapq
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from facemask.drawing import draw_detections, pixelate_faces
from facemask.errors import InputError, error_kind, failure_allowed
from facemask.io.find_images import describe_skipped
from facemask.io.images import write_image
from facemask.io.kinds import Kind
from facemask.io.records import RunRecords
from facemask.labels import display_name, percent
from facemask.types import FileResult

SLOWEST = 3  # images that the summary names
MAX_FAILURES = 5  # reasons that it names
MAX_MESSAGES = 1000  # that it keeps for a report

logger = logging.getLogger("facemask")


def truncation_warning(name: str, result: FileResult) -> str:
    """Return a warning if an image may have more faces than were kept, "" otherwise."""
    number = len(result.detections)
    return f"{name}: only its {number} most confident faces are kept; --max-faces keeps more" if result.is_truncated else ""


@dataclass
class ImageResult:
    """An image and its faces, for the outputs."""

    path: Path
    name: str  # in records and messages: the path or the URL
    result: FileResult
    seconds: float  # that it took
    annotated: Path | None = None  # the file of the annotated image, once it is written

    @cached_property
    def image(self) -> np.ndarray:
        """The image, uint8 (H, W, 3) BGR, its faces hidden if asked for."""
        assert self.result.image is not None
        return pixelate_faces(self.result.image, self.result.hidden) if self.result.hidden else self.result.image

    @cached_property
    def drawn(self) -> np.ndarray:
        """The annotated image, uint8 (H, W, 3) BGR."""
        return draw_detections(self.image, self.result.detections)


class ImageOutput(AbstractContextManager, ABC):
    """Receives every image that is done, in order; a context manager that closes it."""

    needs_image = False  # True: `write` uses the image, which then must be kept

    @abstractmethod
    def write(self, item: ImageResult) -> None:
        """Receive an image. Raises InputError on failure."""

    def close(self) -> None:
        """Finish, after the last image. Raises InputError on failure."""

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()


class PrintedFaces(ImageOutput):
    """Prints one line per face, and warns if there may be more faces."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def write(self, item: ImageResult) -> None:
        if warning := truncation_warning(item.name, item.result):
            logger.warning("%s", warning)
        if not item.result.detections:
            self._write(f"{item.name}: no face found")
        for face in item.result.detections:
            label = f"{display_name(face.label, face.is_unsure)} {percent(face.probability, 1)}"
            box = " ".join(map(str, face.box))
            self._write(f"{item.name}: {label}, box {box}, face confidence {percent(face.confidence, 1)}")


class AnnotatedFiles(ImageOutput):
    """Writes the annotated images."""

    needs_image = True

    def __init__(self, outputs: Mapping[Path, Path], summary: "Summary") -> None:
        """`outputs` are the files by image."""
        self._outputs, self._summary = outputs, summary

    def write(self, item: ImageResult) -> None:
        with self._summary.failure_allowed():  # its faces count
            write_image(self._outputs[item.path], item.drawn)
            item.annotated = self._outputs[item.path]


class WindowOutput(ImageOutput):
    """Shows each annotated image until a key is pressed, as long as the window is open."""

    needs_image = True

    def __init__(self, show: Callable[[np.ndarray], bool]) -> None:
        """`show` returns False once the window is closed."""
        self._show, self._is_open = show, True
        self.seconds = 0.0  # in which it waited for a key

    def write(self, item: ImageResult) -> None:
        if self._is_open:
            start = time.perf_counter()
            self._is_open = self._show(item.drawn)
            self.seconds += time.perf_counter() - start


class Records(ImageOutput):
    """Writes the records; the annotated image must be written before."""

    def __init__(self, records: RunRecords) -> None:
        self._records = records

    def write(self, item: ImageResult) -> None:
        self._records.write(item.name, item.result, item.annotated)


class Summary(ImageOutput):
    """Counts the images by result and the faces by label, and takes the time."""

    def __init__(self, is_single: bool, skipped: Counter[Kind]) -> None:
        """The failure of the one image of an `is_single` run is an error. `skipped` are files that are not read."""
        self.done = self.failed = self.without_faces = self.unsure = 0
        self.labels: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()  # by reason
        self.messages: list[str] = []  # of the first failures
        self._slowest: list[tuple[float, str]] = []
        self._skipped = skipped
        self._is_single, self._start = is_single, time.perf_counter()

    def failure_allowed(self) -> AbstractContextManager[None]:
        """Count an InputError of the block as a failure, with a warning; the other images continue."""
        return nullcontext() if self._is_single else failure_allowed(self._warn)

    def _warn(self, error: InputError) -> None:
        logger.warning("%s", error)
        self.failed += 1
        self.messages += [str(error)] if len(self.messages) < MAX_MESSAGES else []
        self.failures[error_kind(str(error))] += 1

    def write(self, item: ImageResult) -> None:
        self.done += 1
        faces = item.result.detections
        self.without_faces += not faces
        self.unsure += sum(face.is_unsure for face in faces)
        self.labels.update(face.label for face in faces)
        heapq.heappush(self._slowest, (item.seconds, item.name))
        if len(self._slowest) > SLOWEST:
            heapq.heappop(self._slowest)

    def log(self, total: int, time_shown: float) -> None:
        """Log a table of `total` images, if there are several, and their counts and time without `time_shown`, s."""
        seconds = time.perf_counter() - self._start - time_shown
        labels = [f"{display_name(label)} {count}" for label, count in self.labels.most_common()]
        if not self._is_single:
            for name, cells in self._table(labels):
                logger.info("%-8s %s", name, ", ".join(cells))
        by_label = f" ({', '.join(labels)})" if labels else ""
        faces = f"{self.labels.total()} faces{by_label}"
        per_image = 1000 * seconds / max(self.done, 1)
        logger.info("%d of %d images, %s; %.2f s, %.0f ms per image", self.done, total, faces, seconds, per_image)

    def _table(self, labels: list[str]) -> Iterator[tuple[str, list[str]]]:
        counts = {"with faces": self.done - self.without_faces, "without": self.without_faces, "failed": self.failed}
        yield "images", [f"{count} {name}" for name, count in counts.items() if count or name == "with faces"]
        if labels:
            yield "faces", labels + ([f"{self.unsure} of them unsure"] if self.unsure else [])
        if self._slowest:
            yield "slowest", [f"{name} {seconds:.2f} s" for seconds, name in sorted(self._slowest, reverse=True)]
        if self.failures:
            more = len(self.failures) - MAX_FAILURES
            reasons = [f"{count} {reason}" for reason, count in self.failures.most_common(MAX_FAILURES)]
            yield "failed", reasons + ([f"{more} other reasons"] if more > 0 else [])
        if self._skipped:
            yield "not read", [describe_skipped(self._skipped)]

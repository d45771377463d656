"""Archives of video: each clip is tracked as the video script does it; rows of clips, tracks and events."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pyarrow import ArrowException

from facemask.archive.parts import Counts
from facemask.archive.sources import Item, Unit
from facemask.archive.stores import REMEDY, Store, StoreError, patient, reason
from facemask.archive.tables import CLIPS, EVENTS, TRACKS, Row
from facemask.archive.worker import Attempts, UnitResult, Work, Worker, memory_error
from facemask.errors import InputError, OutputError, error_kind
from facemask.io.images import FATAL_ERRORS
from facemask.io.outputs import FREE_SPACE
from facemask.labels import alerts
from facemask.types import Event, FrameResult
from facemask.video.events import EventRecorder, track_record
from facemask.video.frame_images import FrameImages
from facemask.video.outputs import FrameOutput, Tracks
from facemask.video.report import check_frames
from facemask.video.session import Channel, Session, face_detection
from facemask.video.sources import open_source
from facemask.video.tracker import MaskTracker
from facemask.video.zones import ZoneFilter

COPIED = 1 << 20  # bytes of a file of an object store at a time


def count_clip(counts: Counts, record: dict) -> None:
    """Count the row of a clip."""
    counts.totals["clips"] += 1
    if "error" in record:
        counts.totals["failed"] += 1
        counts.errors[error_kind(record["error"])] += 1
        return
    counts.totals["incomplete"] += "fault" in record
    counts.totals.update({name: record[name] for name in ("frames", "faces", "events")})
    counts.totals["people"] += record["tracks"]
    counts.labels.update(record["people"])


class FirstAndLast(FrameOutput):
    """Keeps the size of the first frame, in px, and the time of the last, in s."""

    width = height = 0
    seconds = 0.0

    def write(self, result: FrameResult, images: FrameImages) -> None:
        if not self.width:
            self.height, self.width = images.plain.shape[:2]
        self.seconds = result.time


class ClipWorker(Worker):
    """Tracks the faces of a clip; what it found is written at its end, the row of the clip last."""

    def process(self, unit: Unit) -> UnitResult:
        output, result = self._settings.output, UnitResult()
        store, path = output.part(CLIPS, unit.key, 0, is_end=True)
        if store.exists(path):
            for record in output.read_part(CLIPS, store, path):
                count_clip(result.counts, record)
            return result
        with Attempts.begin(output, unit.key, self._settings.run) as notes:
            (item,) = notes.watch(unit.read(), 0)
            tracks, events, clip = self._track(item)
            notes.passed()
            for table, rows in ((TRACKS, tracks), (EVENTS, events), (CLIPS, [clip])):
                self.write(table, unit, 0, rows, is_end=True)
        count_clip(result.counts, clip.record)
        return result

    def _track(self, item: Item) -> tuple[list[Row], list[Row], Row]:
        """Return the rows of a clip's tracks and events, and the clip's own."""
        columns = {"modified": item.time}
        error = item.error
        if error is None:
            try:
                with local_file(item) as path:
                    tracks, events, record = self._run(path, item.name)
                return tracks, events, Row(record, columns)
            except (OutputError, StoreError):
                raise
            except InputError as failure:
                error = str(failure)
            except MemoryError:
                error = memory_error(item.name)
        return [], [], Row({CLIPS.name: item.name, "error": error}, columns)

    def _run(self, path: str, name: str) -> tuple[list[Row], list[Row], dict]:
        """Track a clip to its end. Raises InputError if it cannot be opened, or gives no frame."""
        settings, detector = self._settings, self._detector
        events: list[Event] = []
        with ExitStack() as stack:
            source = stack.enter_context(open_source(path, None, settings.stride or 1, max_pixels=settings.max_pixels, name=name))
            recorder = EventRecorder(alerts(detector.classifier.info.labels), name, [events.append])
            tracks, ends = Tracks(), FirstAndLast()
            outputs = [stack.enter_context(output) for output in (tracks, ends, recorder)]
            tracker = MaskTracker.for_detector(detector, float(source.output_fps), settings.confidence)
            channel = Channel(source, tracker, outputs, ZoneFilter([], name), events=recorder)
            detect = face_detection(detector.faces, settings.confidence, hide=False)
            Session([channel], detect, detector.classifier.classify_images, workers=1).run()
        check_frames(channel)
        people = channel.statistics.people
        record = {
            CLIPS.name: name,
            "width": ends.width,
            "height": ends.height,
            **({"fault": source.fault} if source.fault else {}),
            "seconds": round(ends.seconds, 4),
            "frames": channel.statistics.frames,
            "lost": dict(source.losses),
            "faces": channel.statistics.faces,
            "tracks": len(tracks.by_id),
            "people": {label or "unconfirmed": count for label, count in sorted(people.items())},
            "events": recorder.count,
        }
        rows = [
            Row({TRACKS.name: name} | track_record(track) | {"confirmed_label": track.confirmed_label})
            for _, track in sorted(tracks.by_id.items())
        ]
        return rows, [Row(event.record) for event in events], record


@contextmanager
def local_file(item: Item) -> Iterator[str]:
    """Yield the path of a clip on this machine; one of an object store is copied here meanwhile.

    Raises InputError if it cannot be read, OutputError if there is no space for it.
    """
    assert item.path is not None
    store, path = Store.of(item.path)
    if not store.address:
        yield item.path
        return
    with tempfile.TemporaryDirectory(prefix="facemask-") as folder:
        copy = Path(folder, "clip" + Path(path).suffix)
        _copy(store, path, copy)
        yield str(copy)


@patient
def _copy(store: Store, path: str, place: Path) -> None:
    try:
        with store.open(path) as remote, place.open("wb") as file:
            shutil.copyfileobj(remote, file, COPIED)
    except (OSError, ArrowException) as error:
        if getattr(error, "errno", None) in FATAL_ERRORS:
            raise OutputError(f"{place.parent}: cannot be written ({reason(error)}); {FREE_SPACE}") from error
        store.check(path, error)
        raise InputError(f"{store.name(path)}: cannot be read ({reason(error)}); {REMEDY}") from error


WORK = Work(
    "video",
    ClipWorker,
    CLIPS,
    count_clip,
    ("clips", "failed", "incomplete", "frames", "faces", "people", "events"),
    {"tiles": "off", "stride": 1},
)

"""What receives each frame of a video: one protocol for files, the page, the window and the counts."""

import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager

from facemask.io.json_lines import JsonLines
from facemask.io.records import tracked_face_record
from facemask.labels import display_name
from facemask.types import FrameResult, Track
from facemask.video.frame_images import FrameImages
from facemask.video.grid import Tile
from facemask.video.writer import VideoSink

RATE_SMOOTHING = 0.95  # weight of the past in the frame rate shown; frames come in bursts


class FrameOutput(AbstractContextManager, ABC):
    """Receives every frame in order; a context manager that closes it."""

    @abstractmethod
    def write(self, result: FrameResult, images: FrameImages) -> None:
        """Receive a frame, and what there is to show of it. Raises InputError on failure."""

    def stalled(self, seconds: float) -> None:
        """Receive, a few times a second, for how many seconds the source has given no frame."""

    def close(self) -> None:
        """Finish, after the last frame or an error. Raises InputError on failure."""

    def __exit__(self, *_: object) -> None:
        self.close()


class Statistics(FrameOutput):
    """Counts the frames, their rate, the faces and the people: where there are zones, those that were in one."""

    def __init__(self) -> None:
        self.frames = self.faces = 0
        self.rate = 0.0  # frames per second now, smoothed
        self._start = self._last = time.perf_counter()
        self._interval = 0.0  # s between two frames, smoothed
        self._present: dict[int, Track] = {}  # tracks that have not ended, by ID
        self._ended: Counter[str] = Counter()  # people who left, by confirmed label

    def write(self, result: FrameResult, images: FrameImages) -> None:
        now = time.perf_counter()
        past = RATE_SMOOTHING if self.frames else 0.0
        self._interval = past * self._interval + (1 - past) * (now - self._last)
        self.rate = 1 / max(self._interval, 1e-9)
        self._last = now
        self.frames += 1
        self.faces += sum(face.zone is not None for face in result.faces)
        self._present.update((track.id, track) for track in result.tracks if track.zone is not None or track.id in self._present)
        for track in result.ended:
            if self._present.pop(track.id, None):
                self._ended[track.confirmed_label] += 1

    @property
    def people(self) -> Counter[str]:
        """Return the people so far by confirmed label, "" if none was confirmed."""
        return self._ended + Counter(track.confirmed_label for track in self._present.values())

    @classmethod
    def total(cls, several: Iterable["Statistics"]) -> "Statistics":
        """Return the sum over sources, whose people are different ones."""
        total = cls()
        for each in several:
            total._start, total._last = min(total._start, each._start), max(total._last if total.frames else 0.0, each._last)
            total.frames += each.frames
            total.faces += each.faces
            total._ended += each.people
        return total

    def summary(self, is_stopped: bool, losses: Mapping[str, int], events: int | None) -> str:
        """Return one line: frames and `losses`, faces and people, the number of `events` unless None, time."""
        people = self.people
        unconfirmed = people.pop("", 0)
        labels = [f"{display_name(label)} {number}" for label, number in people.most_common()]
        labels += [f"too brief to confirm {unconfirmed}"] if unconfirmed else []
        by_label = f" ({', '.join(labels)})" if labels else ""
        frames = f"{self.frames} frames{' (stopped)' if is_stopped else ''}"
        lost = [f"{number} {how}" for how, number in losses.items()]
        faces = f"{self.faces} faces of {people.total() + unconfirmed} people{by_label}"
        seconds = self._last - self._start
        speed = f"{seconds:.1f} s, {self.frames / max(seconds, 1e-9):.1f} frames/s"
        return "; ".join([", ".join([frames, *lost, faces]), *([] if events is None else [f"{events} events"]), speed])


def count_faces(result: FrameResult) -> dict[str, int]:
    """Return the number of counted faces in a frame by displayed label, unsure ones apart, the most frequent first."""
    counted = [face for face in result.faces if face.zone is not None]
    return dict(Counter(display_name(face.label, face.is_unsure) for face in counted).most_common())


class FrameRecords(FrameOutput):
    """Writes a JSON line for each frame, with its faces and their tracks."""

    def __init__(self, lines: JsonLines, source: str) -> None:
        """`source` is the name of the frames' source; several may write to the same file."""
        self._lines, self._source = lines, source

    def write(self, result: FrameResult, images: FrameImages) -> None:
        faces = [tracked_face_record(face) for face in result.faces]
        self._lines.write({"source": self._source, "frame": result.number, "time": round(result.time, 4), "faces": faces})


class Tracks(FrameOutput):
    """Keeps the tracks of a video, each as it was last."""

    def __init__(self) -> None:
        self.by_id: dict[int, Track] = {}

    def write(self, result: FrameResult, images: FrameImages) -> None:
        self.by_id.update((track.id, track) for track in result.tracks)
        self.by_id.update((track.id, track) for track in result.ended if track.id in self.by_id)


class VideoFile(FrameOutput):
    """Writes the annotated video, on a thread of its own: the next frames are processed meanwhile."""

    QUEUE = 2  # frames that wait to be encoded; bounds the memory

    def __init__(self, sink: VideoSink) -> None:
        self._sink = sink
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._waiting: deque[Future[None]] = deque()  # one for each frame that is not known to be written

    def write(self, result: FrameResult, images: FrameImages) -> None:
        """Hand over a frame, and wait while too many are waiting. Raises InputError if one before could not be written."""
        while self._waiting and (len(self._waiting) > self.QUEUE or self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._sink.write, images.annotated, result.time))

    def close(self) -> None:
        try:
            while self._waiting:
                self._waiting.popleft().result()
        finally:
            self._thread.shutdown(cancel_futures=True)
            self._sink.close()


class WindowOutput(FrameOutput):
    """Shows the video and the counts of a source in a window."""

    def __init__(self, tile: Tile, statistics: Statistics) -> None:
        """`tile` is the place of the source. `statistics` receive each frame before this output."""
        self._tile, self._statistics = tile, statistics

    def write(self, result: FrameResult, images: FrameImages) -> None:
        text = "  ".join(f"{label} {number}" for label, number in count_faces(result).items())
        self._tile.show(images.annotated, f"{self._statistics.rate:.0f} frames/s  {text}")

    def stalled(self, seconds: float) -> None:
        self._tile.show_stall(seconds)


class ProgressBar(FrameOutput):
    """Shows on stderr how far the video is, or how many frames several sources have given together."""

    def __init__(self, total: int | None, name: str | None = None) -> None:
        """`total` is the number of frames to be expected; None if unknown. `name` is put before the bar."""
        from tqdm import tqdm

        self._bar = tqdm(total=total, desc=name, unit="frame", disable=None)

    def write(self, result: FrameResult, images: FrameImages) -> None:
        self._bar.update()

    def close(self) -> None:
        self._bar.close()
